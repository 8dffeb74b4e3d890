#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "codec/rest_infer.h"

namespace fastserve {
namespace {

struct Decoded {
  std::string body;
  Request request;
  RestForm form = RestForm::kJson;
  Status status;

  explicit Decoded(std::string text, std::optional<std::string_view> length = std::nullopt)
      : body(std::move(text)) {
    request.model_name = "m";
    status = decode_rest_infer(std::as_bytes(std::span(body)), length, request, form);
  }
  template <class T>
  std::vector<T> values(std::size_t input = 0) const {
    const auto data = request.inputs.at(input).data;
    std::vector<T> out(data.size() / sizeof(T));
    if (!data.empty()) std::memcpy(out.data(), data.data(), data.size());
    return out;
  }
  std::string bytes(std::size_t input = 0) const {
    const auto data = request.inputs.at(input).data;
    return {reinterpret_cast<const char*>(data.data()), data.size()};
  }
};

std::string with_data(const char* dtype, const char* shape, const std::string& data) {
  return std::string(R"({"inputs":[{"name":"x","shape":)") + shape + R"(,"datatype":")" + dtype +
         R"(","data":)" + data + "}]}";
}
// A request of one JSON input "x" of one dimension and that many elements, given as text.
Decoded typed(const char* dtype, const char* shape, const std::string& data) {
  return Decoded(with_data(dtype, shape, data));
}

void expect_refused(const Decoded& d, std::string_view words, Code code = Code::kInvalidArgument) {
  EXPECT_EQ(d.status.code(), code) << d.body;
  EXPECT_NE(d.status.message().find(words), std::string::npos) << d.body << "\n" << d.status.message();
}

TEST(RestDecode, ReadsAWholeRequest) {
  const Decoded d(
      R"({"id":"a\"b","parameters":{"priority":3,"timeout":250,"n":-7,"u":18446744073709551615,"d":1.5,
      "s":"t\n","b":false},"unknown":[{"x":[1]}],
      "inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3e0,0.1],"extra":null,
                 "parameters":{"content_type":"np"}},
                {"name":"y","shape":[1],"datatype":"INT64","data":[9]}],
      "outputs":[{"name":"p","parameters":{"binary_data":true}},{"name":"q","parameters":{"classification":3}}]})");
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  const Request& r = d.request;
  EXPECT_EQ(d.form, RestForm::kJson);
  EXPECT_EQ(r.id, "a\"b");
  EXPECT_EQ(r.priority, 3U);
  EXPECT_EQ(r.queue_timeout_ns, 250 * kMicrosecond);
  ASSERT_EQ(r.parameters.size(), 5U);
  EXPECT_EQ(std::get<std::int64_t>(r.parameters[0].value), -7);
  EXPECT_EQ(std::get<std::uint64_t>(r.parameters[1].value), UINT64_MAX);
  EXPECT_EQ(std::get<double>(r.parameters[2].value), 1.5);
  EXPECT_EQ(std::get<std::string_view>(r.parameters[3].value), "t\n");
  EXPECT_EQ(std::get<bool>(r.parameters[4].value), false);
  ASSERT_EQ(r.inputs.size(), 2U);
  EXPECT_EQ(r.inputs[0].name, "x");
  EXPECT_EQ(r.inputs[0].dtype, DType::kFp32);
  EXPECT_EQ(r.inputs[0].shape, (Shape{2, 2}));
  EXPECT_EQ(d.values<float>(0), (std::vector<float>{1, 2.5, -3, 0.1F}));
  EXPECT_EQ(d.values<std::int64_t>(1), (std::vector<std::int64_t>{9}));
  ASSERT_EQ(r.requested_outputs.size(), 2U);
  EXPECT_TRUE(r.requested_outputs[0].binary);
  EXPECT_FALSE(r.requested_outputs[1].binary);
  EXPECT_EQ(r.requested_outputs[1].classification, 3);
}

TEST(RestDecode, TakesKeysInAnyOrder) {
  const Decoded d(R"({"inputs":[{"data": [[1,2],[3,4]] ,"datatype":"UINT8","shape":[2,2],"name":"x"},
                                {"data":[5],"name":"y","datatype":"INT8","shape":[1]}]})");
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  EXPECT_EQ(d.values<std::uint8_t>(0), (std::vector<std::uint8_t>{1, 2, 3, 4}));
  EXPECT_EQ(d.values<std::int8_t>(1), (std::vector<std::int8_t>{5}));
}

TEST(RestDecode, StoresEveryDtype) {
  EXPECT_EQ(typed("BOOL", "[4]", "[true,false,1,0]").bytes(), std::string("\1\0\1\0", 4));
  EXPECT_EQ(typed("UINT8", "[2]", "[0,255]").values<std::uint8_t>(), (std::vector<std::uint8_t>{0, 255}));
  EXPECT_EQ(typed("UINT16", "[2]", "[0,65535]").values<std::uint16_t>(),
            (std::vector<std::uint16_t>{0, 65535}));
  EXPECT_EQ(typed("UINT32", "[1]", "[4294967295]").values<std::uint32_t>(),
            (std::vector<std::uint32_t>{UINT32_MAX}));
  EXPECT_EQ(typed("UINT64", "[1]", "[18446744073709551615]").values<std::uint64_t>(),
            (std::vector<std::uint64_t>{UINT64_MAX}));
  EXPECT_EQ(typed("INT8", "[2]", "[-128,127]").values<std::int8_t>(), (std::vector<std::int8_t>{-128, 127}));
  EXPECT_EQ(typed("INT16", "[1]", "[-32768]").values<std::int16_t>(), (std::vector<std::int16_t>{-32768}));
  EXPECT_EQ(typed("INT32", "[1]", "[-2147483648]").values<std::int32_t>(),
            (std::vector<std::int32_t>{INT32_MIN}));
  EXPECT_EQ(typed("INT64", "[1]", "[-9223372036854775808]").values<std::int64_t>(),
            (std::vector<std::int64_t>{INT64_MIN}));
  EXPECT_EQ(typed("FP32", "[3]", "[0.1,1e-45,3.4028235e38]").values<float>(),
            (std::vector<float>{0.1F, 1e-45F, 3.4028235e38F}));
  EXPECT_EQ(typed("FP64", "[2]", "[0.1,1.7976931348623157e308]").values<double>(),
            (std::vector<double>{0.1, 1.7976931348623157e308}));
  EXPECT_EQ(typed("BYTES", "[3]", R"(["ab","","\u00e9\n"])").bytes(),
            std::string("\2\0\0\0ab\0\0\0\0\3\0\0\0\xc3\xa9\n", 17));
}

TEST(RestDecode, ChecksElements) {
  expect_refused(typed("UINT8", "[6]", "[0,1,2,3,4,300]"),
                 R"(inputs["x"].data[5]: got 300, want 0..255 for UINT8)");
  expect_refused(typed("UINT8", "[1]", "[256]"), "want 0..255");
  expect_refused(typed("UINT8", "[1]", "[-1]"), "got -1, want 0..255");
  expect_refused(typed("INT8", "[1]", "[128]"), "want -128..127 for INT8");
  expect_refused(typed("INT8", "[1]", "[-129]"), "want -128..127");
  expect_refused(typed("UINT16", "[1]", "[65536]"), "want 0..65535");
  expect_refused(typed("INT16", "[1]", "[32768]"), "want -32768..32767");
  expect_refused(typed("INT32", "[1]", "[2147483648]"), "want -2147483648..2147483647");
  expect_refused(typed("UINT32", "[1]", "[4294967296]"), "want 0..4294967295");
  expect_refused(typed("INT64", "[1]", "[9223372036854775808]"),
                 "want -9223372036854775808..9223372036854775807");
  expect_refused(typed("UINT64", "[1]", "[18446744073709551616]"), "want 0..18446744073709551615");
  expect_refused(typed("INT32", "[1]", "[1.5]"), "got 1.5, want -2147483648..2147483647 for INT32");
  expect_refused(typed("INT32", "[1]", "[1.0]"), "got 1.0");
  expect_refused(typed("INT32", "[1]", "[1e3]"), "got 1e3");
  expect_refused(typed("INT32", "[1]", "[true]"), "got true, want a number for INT32");
  expect_refused(typed("FP32", "[1]", "[1e39]"), "got 1e39, want a finite number for FP32");
  expect_refused(typed("FP64", "[1]", "[1e999]"), "got 1e999, want a finite number for FP64");
  expect_refused(typed("FP32", "[1]", "[\"1\"]"), "got a string, want a number");
  expect_refused(typed("FP32", "[1]", "[null]"), "got null, want a number");
  expect_refused(typed("FP32", "[1]", "[NaN]"), "expected a value at byte");
  expect_refused(typed("FP32", "[1]", "[Infinity]"), "expected a value at byte");
  expect_refused(typed("BOOL", "[1]", "[2]"), "got 2, want true, false, 0 or 1 for BOOL");
  expect_refused(typed("BOOL", "[1]", "[0.0]"), "got 0.0, want true, false, 0 or 1");
  expect_refused(typed("BYTES", "[1]", "[1]"), "got a number, want a string for BYTES");
  expect_refused(typed("FP16", "[1]", "[1]"), "FP16 has no JSON form; send it as binary data");
  expect_refused(typed("BF16", "[1]", "[1]"), "BF16 has no JSON form; send it as binary data");
}

TEST(RestDecode, MatchesDataWithTheShape) {
  EXPECT_EQ(typed("INT8", "[2,1,2]", "[[[1,2]],[[3,4]]]").bytes(), "\1\2\3\4");
  EXPECT_EQ(typed("INT8", "[2,1,2]", "[1,2,3,4]").bytes(), "\1\2\3\4");
  EXPECT_EQ(typed("INT8", "[]", "[7]").bytes(), "\7");
  EXPECT_EQ(typed("INT8", "[0]", "[]").bytes(), "");
  EXPECT_EQ(typed("INT8", "[2,0]", "[[],[]]").bytes(), "");
  EXPECT_TRUE(typed("INT8", "[2,0]", "[[],[]]").status.is_ok());
  EXPECT_TRUE(typed("BYTES", "[0]", "[]").status.is_ok());
  const char* const triton = "Unable to parse 'data': Shape does not match true shape of 'data' field";
  expect_refused(typed("INT8", "[3]", "[1,2]"), triton);
  expect_refused(typed("INT8", "[3]", "[1,2]"), R"(inputs["x"].data: got 2 elements, want 3 (shape [3]))");
  expect_refused(typed("INT8", "[3]", "[1,2,3,4]"), "got 4 elements, want 3");
  expect_refused(typed("INT8", "[2,2]", "[[1,2],[3]]"), R"(inputs["x"].data[1]: got 1 elements, want 2)");
  expect_refused(typed("INT8", "[2,2]", "[[1,2],[3,4,5]]"), "data[1]: got 3 elements, want 2");
  expect_refused(typed("INT8", "[2,2]", "[[1,2]]"), "data: got 1 elements, want 2");
  expect_refused(typed("INT8", "[2,2]", "[[1,2],[3,4],[5,6]]"), "data: got 3 elements, want 2");
  expect_refused(typed("INT8", "[2,2]", "[[1,2],3]"), "data[1]: got a number, want an array of 2");
  expect_refused(typed("INT8", "[2,2]", "[1,[2],3,4]"), "data[1]: got an array, want a number");
  expect_refused(typed("INT8", "[2,2]", "[[1,[2]],[3,4]]"), "data[0][1]: got an array, want a number");
  expect_refused(typed("INT8", "[2]", "[[1,2]]"), "data[0]: got an array, want a number");
  expect_refused(typed("INT8", "[2]", "5"), R"(inputs["x"].data: got a number, want an array)");
  expect_refused(typed("INT8", "[2]", "{}"), "got an object, want an array");
  expect_refused(typed("INT8", "[1000000000]", "[1]"), "got fewer elements than shape [1000000000] has");
  expect_refused(typed("INT8", "[1099511627776]", "[1]"), "fewer than 2^40 elements");
  expect_refused(typed("INT8", "[4294967296,4294967296]", "[1]"), "fewer than 2^40 elements");
  expect_refused(typed("INT8", "[-1]", "[1]"),
                 R"(inputs["x"].shape[0]: got -1, want an integer of 0 or more)");
  expect_refused(typed("INT8", "[1.0]", "[1]"), "shape[0]: got 1.0");
  expect_refused(typed("INT8", "[9223372036854775808]", "[1]"), "shape[0]: got 9223372036854775808");
  expect_refused(typed("INT8", "[\"1\"]", "[1]"), "shape[0]: got another type, want an integer");
  expect_refused(typed("INT8", "1", "[1]"), "shape: got another type, want an array");
  EXPECT_TRUE(typed("INT8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[1]").status.is_ok());
  expect_refused(typed("INT8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[1]"), "got more than 16 dimensions");
}

TEST(RestDecode, ReadsTheDeepestNesting) {
  std::string shape = "[1";
  std::string data = "[";
  for (int i = 1; i < 16; ++i) {
    shape += ",1";
    data += "[";
  }
  EXPECT_EQ(typed("INT8", (shape + "]").c_str(), data + "9" + std::string(16, ']')).bytes(), "\x9");
}

TEST(RestDecode, NamesWhatIsMissingOrWrong) {
  const struct {
    const char* body;
    const char* words;
  } cases[] = {
      {"", "expected an object at byte 0"},
      {"[]", "expected an object at byte 0"},
      {"{}", "inputs: missing"},
      {"{\"inputs\":{}}", "inputs: got another type, want an array"},
      {"{\"inputs\":[1]}", "inputs[0]: got another type, want an object"},
      {"{\"inputs\":[{}]}", "inputs[0].name: missing"},
      {"{\"inputs\":[{\"name\":\"x\"}]}", "inputs[\"x\"].shape: missing"},
      {"{\"inputs\":[{\"name\":\"x\",\"shape\":[1]}]}", "inputs[\"x\"].datatype: missing"},
      {"{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\"}]}", "inputs[\"x\"].data: missing"},
      {"{\"inputs\":[{\"name\":1}]}", "inputs[0].name: got another type, want a string"},
      {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"fp32\"}]}",
       "inputs[\"x\"].datatype: got 'fp32', want BOOL"},
      {"{\"id\":7}", "id: got another type, want a string"},
      {"{\"id\":\"a\",\"id\":\"b\"}", "id: given twice"},
      {"{\"inputs\":[],\"inputs\":[]}", "inputs: given twice"},
      {"{\"inputs\":[{\"name\":\"x\",\"name\":\"y\"}]}", "inputs[\"x\"].name: given twice"},
      {"{\"inputs\":[{\"shape\":[1],\"shape\":[1]}]}", "inputs[0].shape: given twice"},
      {"{\"inputs\":[{\"data\":[1],\"data\":[1]}]}", "inputs[0].data: given twice"},
      {"{\"parameters\":{\"a\":1,\"a\":2}}", "parameters[\"a\"]: given twice"},
      {"{\"parameters\":{\"timeout\":1,\"timeout\":1}}", "parameters[\"timeout\"]: given twice"},
      {"{\"parameters\":{\"a\":null}}",
       "parameters[\"a\"]: got another type, want a boolean, a number or a string"},
      {"{\"parameters\":{\"a\":1e999}}", "parameters[\"a\"]: got 1e999, want a number that 64 bits hold"},
      {"{\"parameters\":{\"a\":99999999999999999999}}", "want a number that 64 bits hold"},
      {"{\"parameters\":{\"priority\":-1}}",
       "parameters[\"priority\"]: got -1, want an integer in 0..4294967295"},
      {"{\"parameters\":{\"timeout\":\"5\"}}", "parameters[\"timeout\"]: got another type, want an integer"},
      {"{\"parameters\":{\"timeout\":9223372036854775807}}",
       "parameters[\"timeout\"]: got 9223372036854775807"},
      {"{\"parameters\":{\"triton_x\":1}}", "are reserved"},
      {"{\"parameters\":{\"binary_data_output\":1}}",
       "binary_data_output\"]: got another type, want true or false"},
      {"{\"parameters\":[]}", "parameters: got another type, want an object"},
      {"{\"outputs\":{}}", "outputs: got another type, want an array"},
      {"{\"outputs\":[{}]}", "outputs[0].name: missing"},
      {"{\"outputs\":[{\"name\":\"p\",\"parameters\":{\"binary_data\":1}}]}",
       "outputs[\"p\"].parameters[\"binary_data\"]: got 1, want true or false"},
      {"{\"outputs\":[{\"name\":\"p\",\"parameters\":{\"classification\":0}}]}",
       "got 0, want an integer in 1.."},
      {"{\"inputs\":[]}garbage", "unexpected text behind the end"},
      {"{\"inputs\":[]", "the text ends too early"},
  };
  for (const auto& c : cases) expect_refused(Decoded(c.body), c.words);
}

// One input with these parameters and one output with those.
Decoded shared(const std::string& input, const std::string& output = "{}", const char* data = "") {
  return Decoded(R"({"inputs":[{"name":"x","shape":[1],"datatype":"INT8")" + std::string(data) +
                 R"(,"parameters":)" + input + R"(}],"outputs":[{"name":"p","parameters":)" + output + "}]}");
}

TEST(RestDecode, ReadsPlacesInSharedMemory) {
  const Decoded d = shared(
      R"({"shared_memory_region":"a\"b","shared_memory_byte_size":1,"shared_memory_offset":18446744073709551615})",
      R"({"binary_data":true,"shared_memory_byte_size":4,"shared_memory_region":"out"})");
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  ASSERT_EQ(d.request.shared_inputs.size(), 1U);
  EXPECT_EQ(d.request.shared_inputs[0].place.region, "a\"b");
  EXPECT_EQ(d.request.shared_inputs[0].place.offset, ~std::uint64_t{0});
  EXPECT_EQ(d.request.requested_outputs[0].shared.region, "out");
  EXPECT_EQ(d.request.requested_outputs[0].shared.bytes, 4U);
  EXPECT_EQ(d.request.requested_outputs[0].shared.offset, 0U);
}

TEST(RestDecode, ChecksPlacesInSharedMemory) {
  const char* const fine = R"({"shared_memory_region":"r","shared_memory_byte_size":1})";
  struct Case {
    const char *input, *output, *words;
  };
  const Case cases[] = {
      {R"({"shared_memory_region":"r"})", "{}",
       R"(inputs["x"].parameters["shared_memory_byte_size"]: missing)"},
      {R"({"shared_memory_byte_size":1})", "{}",
       R"(inputs["x"].parameters["shared_memory_region"]: missing)"},
      {R"({"shared_memory_region":"","shared_memory_byte_size":1})", "{}",
       R"(["shared_memory_region"]: missing)"},
      {fine, R"({"shared_memory_offset":0})", R"(outputs["p"].parameters["shared_memory_region"]: missing)"},
      {R"({"shared_memory_region":7,"shared_memory_byte_size":1})", "{}",
       R"(inputs["x"].parameters["shared_memory_region"]: got 7, want a string)"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":"1"})", "{}",
       R"(["shared_memory_byte_size"]: got another type, want a whole number of 0 or more bytes)"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":-1})", "{}", "got -1, want a whole number"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":1.5})", "{}", "got 1.5, want a whole number"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":18446744073709551616})", "{}",
       "got 18446744073709551616, want a whole number"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":1,"shared_memory_byte_size":1})", "{}",
       R"(inputs["x"].parameters["shared_memory_byte_size"]: given twice)"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":1,"shared_memory_size":1})", "{}",
       R"(["shared_memory_size"]: unknown, want)"},
      {R"({"shared_memory_region":"r","shared_memory_byte_size":1,"binary_data_size":1})", "{}",
       R"(inputs["x"]: got both parameters.binary_data_size and parameters.shared_memory_region)"},
      {fine, R"({"shared_memory_region":"r","shared_memory_byte_size":1,"classification":2})",
       R"(output can't set both 'shared_memory_region' and 'classification'. outputs["p"])"},
  };
  for (const Case& c : cases) expect_refused(shared(c.input, c.output), c.words);
  expect_refused(shared(fine, "{}", R"(,"data":[1])"),
                 R"(inputs["x"]: got both data and parameters.shared_memory_region, want one of them)");
}

TEST(RestDecode, HoldsItsLimits) {
  const auto inputs = [](int count) {
    std::string text = "{\"inputs\":[";
    for (int i = 0; i < count; ++i) {
      text += std::string(i == 0 ? "" : ",") + R"({"name":"x)" + std::to_string(i) +
              R"(","shape":[1],"datatype":"INT8","data":[1]})";
    }
    return Decoded(text + "]}");
  };
  EXPECT_TRUE(inputs(63).status.is_ok());
  EXPECT_TRUE(inputs(64).status.is_ok());
  expect_refused(inputs(65), "inputs: got more than 64");
  const auto outputs = [](int count) {
    std::string text = "{\"inputs\":[],\"outputs\":[";
    for (int i = 0; i < count; ++i)
      text += std::string(i == 0 ? "" : ",") + R"({"name":"x)" + std::to_string(i) + "\"}";
    return Decoded(text + "]}");
  };
  EXPECT_TRUE(outputs(64).status.is_ok());
  expect_refused(outputs(65), "outputs: got more than 64");
  expect_refused(typed("INT64", "[1]", "[" + std::string(65, '1') + "]"),
                 "a number longer than 64 characters");
  expect_refused(Decoded("{\"x\":" + std::string(100'000, '[')), "nested deeper than 32");
  // Errors do not echo more than 128 bytes of what the client sent.
  const Decoded d(R"({"inputs":[{"name":")" + std::string(5000, 'n') + R"("}]})");
  EXPECT_LT(d.status.message().size(), 300U);
}

constexpr const char* kBinary =
    R"({"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},)"
    R"({"name":"j","shape":[1],"datatype":"INT8","data":[3]},)"
    R"({"name":"y","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]})";

TEST(RestDecode, SlicesBinaryDataInOrder) {
  const std::string json = kBinary;
  const std::string length = std::to_string(json.size());
  const Decoded d(json + "AAAABBBB" + std::string("\1\0\0\0z", 5), length);
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  EXPECT_EQ(d.bytes(0), "AAAABBBB");
  EXPECT_EQ(d.bytes(1), "\3");
  EXPECT_EQ(d.bytes(2), std::string("\1\0\0\0z", 5));
  EXPECT_EQ(static_cast<const void*>(d.request.inputs[0].data.data()),
            d.body.data() + json.size());  // no copy
}

TEST(RestDecode, ChecksBinarySizes) {
  const std::string json = kBinary;
  const std::string length = std::to_string(json.size());
  expect_refused(Decoded(json + "AAAABBBBxxxx", length),
                 "unexpected size for input 'y', expecting 5 additional bytes for model 'm'");
  expect_refused(Decoded(json + "AAAABBBBxxxx", length), "but the body has 4 bytes left");
  expect_refused(Decoded(json + "AAAABBBBxxxxx?", length),
                 "unexpected additional input data for model 'm': got 1 bytes");
  expect_refused(Decoded(json, length), "unexpected size for input 'x', expecting 8 additional bytes");
  expect_refused(Decoded(json), "the request has no header Inference-Header-Content-Length");
  const auto sized = [](const char* size) {
    const std::string text =
        std::string(
            R"({"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":)") +
        size + "}}]}";
    return Decoded(text + "a", std::to_string(text.size()));
  };
  EXPECT_TRUE(sized("1").status.is_ok());
  expect_refused(sized("0"), "unexpected additional input data");
  expect_refused(sized("2"), "expecting 2 additional bytes");
  expect_refused(sized("-1"), R"(inputs["x"].parameters["binary_data_size"]: got -1)");
  expect_refused(sized("1.0"), "got 1.0, want an integer");
  expect_refused(sized("9223372036854775807"), "expecting 9223372036854775807 additional bytes");
  expect_refused(sized("18446744073709551615"), "got 18446744073709551615, want an integer");
  expect_refused(sized("\"1\""), "got another type, want an integer");
  expect_refused(sized("1,\"binary_data_size\":1"), "given twice");
  const std::string both =
      R"({"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}}]})";
  expect_refused(Decoded(both + "a", std::to_string(both.size())),
                 "got both data and parameters.binary_data_size");
}

TEST(RestDecode, ChecksTheHeaderLength) {
  const std::string json = with_data("INT8", "[1]", "[1]");
  const std::string n = std::to_string(json.size());
  EXPECT_TRUE(Decoded(json, n).status.is_ok());
  const std::string range = "inference header size should be in range (0, " + n + "), got: ";
  for (const std::string& bad :
       {std::to_string(json.size() + 1), std::string("-1"), std::string("-9223372036854775809"),
        std::string("9223372036854775808"), std::string("18446744073709551616"), std::string(""),
        std::string("1x"), std::string(" 1"), std::string("+1"), std::string("0x10"), std::string("1.0")}) {
    expect_refused(Decoded(json, bad), range + bad);
  }
  expect_refused(Decoded(json, std::to_string(json.size() - 1)), "failed to parse the request JSON buffer");
  EXPECT_LT(Decoded(json, std::string(10'000, '9')).status.message().size(), 300U);
}

TEST(RestDecode, AppliesTheBinaryDefault) {
  const Decoded d(R"({"inputs":[],"parameters":{"binary_data_output":true},"outputs":[{"name":"a"},
      {"name":"b","parameters":{"binary_data":false}},{"name":"c","parameters":{"binary_data":true}}]})");
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  EXPECT_TRUE(d.request.requested_outputs[0].binary);
  EXPECT_FALSE(d.request.requested_outputs[1].binary);
  EXPECT_TRUE(d.request.requested_outputs[2].binary);
}

Signature raw_signature(DType dtype, Shape shape, std::int64_t max_rows) {
  Signature s;
  s.inputs.push_back({"x", dtype, shape, false});
  s.max_batch_rows = max_rows;
  return s;
}

TEST(RestRaw, MakesOneRow) {
  Decoded d(std::string(16, 'r'), "0");
  ASSERT_TRUE(d.status.is_ok());
  ASSERT_EQ(d.form, RestForm::kRaw);
  ASSERT_TRUE(complete_raw_request(raw_signature(DType::kFp32, {-1, 4}, 8), "m",
                                   std::as_bytes(std::span(d.body)), d.request)
                  .is_ok());
  ASSERT_EQ(d.request.inputs.size(), 1U);
  EXPECT_EQ(d.request.inputs[0].name, "x");
  EXPECT_EQ(d.request.inputs[0].shape, (Shape{1, 4}));
  EXPECT_EQ(d.bytes(), d.body);
  ASSERT_EQ(d.request.parameters.size(), 1U);
  EXPECT_EQ(d.request.parameters[0].name, "binary_data_output");
}

TEST(RestRaw, FillsTheDynamicDimension) {
  const std::string body(24, 'r');
  const auto complete = [&](const Signature& s, Request& r) {
    return complete_raw_request(s, "m", std::as_bytes(std::span(body)), r);
  };
  Request batched;
  ASSERT_TRUE(complete(raw_signature(DType::kFp32, {-1, 2, -1}, 8), batched).is_ok());
  EXPECT_EQ(batched.inputs[0].shape, (Shape{1, 2, 3}));
  Request plain;
  ASSERT_TRUE(complete(raw_signature(DType::kInt16, {-1, 4}, 0), plain).is_ok());
  EXPECT_EQ(plain.inputs[0].shape, (Shape{3, 4}));
  Request bytes;
  ASSERT_TRUE(complete(raw_signature(DType::kBytes, {-1, 1}, 8), bytes).is_ok());
  EXPECT_EQ(bytes.inputs[0].shape, (Shape{1, 1}));
  EXPECT_EQ(bytes.inputs[0].data.size(), 28U);
  std::uint32_t prefix = 0;
  std::memcpy(&prefix, bytes.inputs[0].data.data(), 4);
  EXPECT_EQ(prefix, 24U);
}

TEST(RestRaw, RefusesModelsAndSizesThatDoNotFit) {
  const std::string body(10, 'r');
  const auto why = [&](const Signature& s) {
    Request r;
    const Status status = complete_raw_request(s, "m", std::as_bytes(std::span(body)), r);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  Signature two = raw_signature(DType::kFp32, {-1, 4}, 8);
  two.inputs.push_back(two.inputs[0]);
  EXPECT_NE(why(two).find("has 2 inputs, want 1"), std::string::npos);
  EXPECT_NE(why(raw_signature(DType::kFp32, {-1, -1}, 0)).find("more than one dynamic dimension"),
            std::string::npos);
  EXPECT_NE(why(raw_signature(DType::kFp32, {-1}, 0)).find("got 10 bytes"), std::string::npos);
  EXPECT_NE(why(raw_signature(DType::kBytes, {-1, 2}, 8)).find("BYTES input of more than one element"),
            std::string::npos);
}

// No body reads outside of itself (the heap block is exact: ASan watches), and what is accepted fits its shape.
TEST(RestDecode, SurvivesMutants) {
  const std::string json =
      R"({"id":"i\u0041","parameters":{"binary_data_output":true,"timeout":5},"inputs":[{"data":[[1,2],[3,4]],"name":"x",)"
      R"("shape":[2,2],"datatype":"FP32"},{"name":"b","shape":[4],"datatype":"UINT8","parameters":{"binary_data_size":4}},)"
      R"({"name":"s","shape":[2],"datatype":"BYTES","data":["a\n","\u00e9"]}],"outputs":[{"name":"p"}]})";
  const std::string alphabet = "{}[],:\"\\ 0159.eE-tfn\xff_";
  std::mt19937 random(17);
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = json;
    for (auto edits = random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text.erase(at, 1 + random() % 8);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 30));
          break;
      }
    }
    const std::string length = std::to_string(random() % 8 == 0 ? random() % (text.size() + 4) : text.size());
    const std::vector<char> exact = [&] {
      std::string all = text + "BBBB";
      all.resize(all.size() - (random() % 16 == 0 ? random() % 6 : 0));
      return std::vector<char>(all.begin(), all.end());
    }();
    Request request;
    RestForm form;
    const Status status = decode_rest_infer(std::as_bytes(std::span(exact)), length, request, form);
    if (!status.is_ok()) {
      ASSERT_TRUE(status.code() == Code::kInvalidArgument || status.code() == Code::kUnimplemented)
          << status.message();
      ASSERT_LT(status.message().size(), 600U);
      continue;
    }
    accepted += form == RestForm::kJson ? 1 : 0;
    for (const TensorView& input : request.inputs) {
      if (input.name == "b") continue;  // binary: validate() compares sizes
      if (input.dtype == DType::kBytes) {
        ASSERT_EQ(bytes_extent(input.data, input.shape.elements().value()), input.data.size());
      } else {
        ASSERT_EQ(input.data.size(), input.shape.byte_count(input.dtype).value());
      }
    }
  }
  EXPECT_GT(accepted, 2000);
}

}  // namespace
}  // namespace fastserve
