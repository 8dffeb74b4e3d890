#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "codec/rest_infer.h"

namespace fastserve {
namespace {

struct TestVersion final : ServedVersion {
  using ServedVersion::ServedVersion;
};

class RestEncode : public testing::Test {
 protected:
  template <class T>
  void add(const char* name, DType dtype, Shape shape, const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    add_bytes(name, dtype, shape, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  void add_bytes(const char* name, DType dtype, Shape shape, std::string data) {
    memory_.push_back(std::make_unique<std::string>(std::move(data)));
    response_.outputs.push_back({static_cast<int>(version_.signature.outputs.size()), dtype, shape,
                                 std::as_bytes(std::span(*memory_.back()))});
    version_.signature.outputs.push_back({name, dtype, shape, false});
  }
  Status encode() { return encode_rest_infer(response_, version_, request_, out_, head_); }
  std::string text() {
    EXPECT_TRUE(encode().is_ok());
    std::string all;
    std::size_t at = 0;
    for (const OutMessage::External& e : out_.external) {
      all += out_.own.view().substr(at, e.at - at);
      all.append(reinterpret_cast<const char*>(e.bytes.data()), e.bytes.size());
      at = e.at;
    }
    return all + std::string(out_.own.view().substr(at));
  }
  void refused(Code code, std::string_view words) {
    const Status status = encode();
    EXPECT_EQ(status.code(), code);
    EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
    EXPECT_EQ(out_.bytes(), 0U);
  }

  TestVersion version_{"m", 3};
  Response response_;
  Request request_;
  OutMessage out_;
  RestHead head_;
  std::vector<std::unique_ptr<std::string>> memory_;
};

TEST_F(RestEncode, ParametersOfTheModel) {
  add<std::int8_t>("p", DType::kInt8, {1}, {1});
  response_.parameters =
      std::make_shared<const ResponseParameters>(ResponseParameters{{"flag", true},
                                                                    {"low", std::int64_t{-5}},
                                                                    {"high", ~std::uint64_t{0}},
                                                                    {"share", 0.25},
                                                                    {"a\"b", "w\n"}});
  EXPECT_EQ(
      text(),
      R"({"model_name":"m","model_version":"3","parameters":{"flag":true,"low":-5,"high":18446744073709551615,)"
      R"("share":0.25,"a\"b":"w\n"},"outputs":[{"name":"p","datatype":"INT8","shape":[1],"data":[1]}]})");
  response_.parameters =
      std::make_shared<const ResponseParameters>(ResponseParameters{{"word", std::string("\xff")}});
  refused(Code::kInternal, "not UTF-8");
}

TEST_F(RestEncode, OutputsInSharedMemoryHaveTheirPlaceAndNoData) {
  add<std::int8_t>("p", DType::kInt8, {2}, {1, 2});
  add<std::int8_t>("q", DType::kInt8, {2}, {3, 4});
  request_.requested_outputs = {{.name = "p", .binary = true, .shared = {"a\"b", 64, 8}},
                                {.name = "q", .binary = true}};
  const std::string all = text();
  EXPECT_EQ(
      all,
      R"({"model_name":"m","model_version":"3","outputs":[{"name":"p","datatype":"INT8","shape":[2],)"
      R"("parameters":{"shared_memory_region":"a\"b","shared_memory_byte_size":8,"shared_memory_offset":64}},)"
      R"({"name":"q","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}}]})"
      "\3\4");
  request_.requested_outputs[1].shared = {"c", 0, 2};
  text();
  EXPECT_EQ(head_.content_type, "application/json");
  EXPECT_FALSE(head_.json_length);
}

TEST_F(RestEncode, WritesFlatJson) {
  request_.id = "q\"7";
  add<float>("p", DType::kFp32, {2, 2}, {1, 0.1F, -2.5F, 3e10F});
  add<std::uint8_t>("b", DType::kBool, {2}, {1, 0});
  add<std::int64_t>("n", DType::kInt64, {0}, {});
  add_bytes("s", DType::kBytes, {2}, std::string("\2\0\0\0a\n\0\0\0\0", 10));
  EXPECT_EQ(text(), R"({"id":"q\"7","model_name":"m","model_version":"3","outputs":[)"
                    R"({"name":"p","datatype":"FP32","shape":[2,2],"data":[1,0.1,-2.5,3e+10]},)"
                    R"({"name":"b","datatype":"BOOL","shape":[2],"data":[true,false]},)"
                    R"({"name":"n","datatype":"INT64","shape":[0],"data":[]},)"
                    R"({"name":"s","datatype":"BYTES","shape":[2],"data":["a\n",""]}]})");
  EXPECT_EQ(head_.content_type, "application/json");
  EXPECT_EQ(head_.json_length, std::nullopt);
}

TEST_F(RestEncode, LeavesOutAnIdThatWasNotGiven) {
  EXPECT_EQ(text(), R"({"model_name":"m","model_version":"3","outputs":[]})");
}

TEST_F(RestEncode, WritesNonFiniteNumbersAsTritonDoes) {
  const float inf = std::numeric_limits<float>::infinity();
  add<float>("p", DType::kFp32, {3}, {std::nanf(""), inf, -inf});
  EXPECT_NE(text().find(R"("data":[NaN,Infinity,-Infinity])"), std::string::npos);
}

TEST_F(RestEncode, AppendsBinaryOutputsInOrder) {
  add<std::int16_t>("a", DType::kInt16, {2}, {0x4141, 0x4242});
  add<std::int16_t>("j", DType::kInt16, {1}, {5});
  add_bytes("h", DType::kFp16, {1}, "hh");
  request_.requested_outputs = {{"a", 0, true}, {"j", 0, false}, {"h", 0, true}};
  const std::string json =
      R"({"model_name":"m","model_version":"3","outputs":[)"
      R"({"name":"a","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}},)"
      R"({"name":"j","datatype":"INT16","shape":[1],"data":[5]},)"
      R"({"name":"h","datatype":"FP16","shape":[1],"parameters":{"binary_data_size":2}}]})";
  EXPECT_EQ(text(), json + "AABBhh");
  EXPECT_EQ(head_.content_type, "application/octet-stream");
  EXPECT_EQ(head_.json_length, json.size());
  EXPECT_FALSE(out_.needs_keep());
}

TEST_F(RestEncode, RefersToLargeBinaryOutputs) {
  add_bytes("small", DType::kUint8, {3}, "abc");
  add_bytes("large", DType::kUint8, {8192}, std::string(8192, 'x'));
  add_bytes("tail", DType::kUint8, {1}, "z");
  request_.parameters.push_back({"binary_data_output", true});
  const std::string all = text();
  ASSERT_EQ(out_.external.size(), 1U);
  EXPECT_EQ(static_cast<const void*>(out_.external[0].bytes.data()), memory_[1]->data());
  EXPECT_TRUE(out_.needs_keep());
  EXPECT_EQ(all.substr(head_.json_length.value()), "abc" + std::string(8192, 'x') + "z");
}

TEST_F(RestEncode, IsPlainJsonWhenAllBinariesAreEmpty) {
  add_bytes("e", DType::kFp32, {0}, "");
  request_.parameters.push_back({"binary_data_output", true});
  EXPECT_NE(text().find(R"("parameters":{"binary_data_size":0})"), std::string::npos);
  EXPECT_EQ(head_.content_type, "application/json");
  EXPECT_EQ(head_.json_length, std::nullopt);
}

TEST_F(RestEncode, RefusesWhatJsonCannotHold) {
  add_bytes("h", DType::kFp16, {1}, "hh");
  refused(Code::kInvalidArgument,
          R"(outputs["h"].data: datatype FP16 has no JSON form; ask for binary data)");
}

TEST_F(RestEncode, RefusesBytesThatAreNoUtf8) {
  add_bytes("s", DType::kBytes, {2}, std::string("\1\0\0\0a\1\0\0\0\xff", 10));
  refused(Code::kInvalidArgument,
          R"(outputs["s"].data[1]: not UTF-8, which JSON needs; ask for binary data)");
}

TEST_F(RestEncode, BlamesTheModelForCutBytes) {
  add_bytes("s", DType::kBytes, {1}, std::string("\5\0\0\0a", 5));
  refused(Code::kInternal, "cut off");
}

// What we write is read back bit by bit.
TEST_F(RestEncode, RoundTripsThroughTheDecoder) {
  std::vector<float> values;
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const std::uint32_t bits = i * 858'993'459U;
    float f = 0;
    std::memcpy(&f, &bits, 4);
    if (std::isfinite(f)) values.push_back(f);
  }
  const auto count = static_cast<std::int64_t>(values.size());
  add<float>("p", DType::kFp32, {count}, values);
  std::string answer = text();
  answer.replace(answer.find("\"outputs\""), 9, "\"inputs\"");
  Request back;
  RestForm form;
  const Status status = decode_rest_infer(std::as_bytes(std::span(answer)), std::nullopt, back, form);
  ASSERT_TRUE(status.is_ok()) << status.message();
  ASSERT_EQ(back.inputs[0].data.size(), memory_[0]->size());
  EXPECT_EQ(std::memcmp(back.inputs[0].data.data(), memory_[0]->data(), memory_[0]->size()), 0);
}

}  // namespace
}  // namespace fastserve
