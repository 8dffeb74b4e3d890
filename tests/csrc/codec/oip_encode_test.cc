#include <gtest/gtest.h>
#include <protozero/pbf_reader.hpp>

#include <memory>
#include <string>
#include <vector>

#include "codec/grpc_framing.h"
#include "codec/oip_infer.h"
#include "codec/write_queue.h"

namespace fastserve {
namespace {

class Version : public ServedVersion {
 public:
  explicit Version(const std::vector<std::string>& outputs) : ServedVersion("model", 12) {
    for (const std::string& output : outputs) signature.outputs.push_back({output, DType::kFp32, {}, false});
  }
};

std::string bytes_of(OutMessage& message) {
  WriteQueue queue;
  queue.append(std::move(message));
  std::string out;
  while (!queue.empty()) {
    iovec iov;
    queue.gather({&iov, 1});
    out.append(static_cast<const char*>(iov.iov_base), iov.iov_len);
    queue.consume(iov.iov_len);
  }
  return out;
}

// What a client would read, with protozero as its protobuf.
struct Read {
  std::string model, version, id;
  struct Output {
    std::string name, datatype;
    std::vector<std::int64_t> shape;
    std::vector<std::string> parameters;  // "name=value"
  };
  std::vector<Output> outputs;
  std::vector<std::string> raw;
  std::string error;   // of a ModelStreamInferResponse
  std::string final_;  // the whole `triton_final_response` entry, as "name=value"

  explicit Read(const std::string& wire, bool in_stream = false) {
    std::span<const std::byte> rest = std::as_bytes(std::span(wire.data(), wire.size()));
    GrpcDeframer deframer;
    ByteBuffer message;
    EXPECT_TRUE(deframer.feed_unary(rest, message));
    EXPECT_TRUE(deframer.complete());
    protozero::pbf_reader reader(reinterpret_cast<const char*>(message.data()), message.size());
    if (!in_stream) infer_response(reader);
    while (in_stream && reader.next()) {
      reader.tag() == 1 ? void(error = reader.get_string()) : infer_response(reader.get_message());
    }
  }
  void infer_response(protozero::pbf_reader reader) {
    while (reader.next()) {
      switch (reader.tag()) {
        case 1:
          model = reader.get_string();
          break;
        case 2:
          version = reader.get_string();
          break;
        case 3:
          id = reader.get_string();
          break;
        case 4: {
          protozero::pbf_reader entry = reader.get_message();
          while (entry.next()) {
            if (entry.tag() == 1) {
              final_ += entry.get_string();
            } else {
              protozero::pbf_reader value(entry.get_view());
              EXPECT_TRUE(value.next());
              EXPECT_EQ(value.tag(), 1U);
              final_ += value.get_bool() ? "=true" : "=false";
            }
          }
          break;
        }
        case 5:
          outputs.push_back(output(reader.get_message()));
          break;
        case 6:
          raw.push_back(reader.get_string());
          break;
        default:
          ADD_FAILURE() << reader.tag();
          reader.skip();
      }
    }
  }
  static Output output(protozero::pbf_reader reader) {
    Output out;
    while (reader.next()) {
      switch (reader.tag()) {
        case 1:
          out.name = reader.get_string();
          break;
        case 2:
          out.datatype = reader.get_string();
          break;
        case 3:
          for (const std::int64_t d : reader.get_packed_int64()) out.shape.push_back(d);
          break;
        case 4: {
          protozero::pbf_reader entry = reader.get_message();
          EXPECT_TRUE(entry.next(1));
          std::string text = entry.get_string() + "=";
          EXPECT_TRUE(entry.next(2));
          protozero::pbf_reader value = entry.get_message();
          EXPECT_TRUE(value.next());
          text += value.tag() == 2 ? std::to_string(value.get_int64()) : value.get_string();
          EXPECT_FALSE(value.next() || entry.next());
          out.parameters.push_back(text);
          break;
        }
        default:
          ADD_FAILURE() << reader.tag();
          reader.skip();
      }
    }
    return out;
  }
};

OutputTensor tensor(int index, DType dtype, const Shape& shape, const std::string& data) {
  return {index, dtype, shape, std::as_bytes(std::span(data.data(), data.size()))};
}

TEST(EncodeModelInfer, OutputsInOrderOneRawEntryEach) {
  Version version({"first", "second", "third"});
  Request request;
  request.id = "id-9";
  const std::string a(8, 'a');
  const std::string none;
  Response response;
  response.outputs = {tensor(2, DType::kFp32, Shape{1, 2}, a), tensor(0, DType::kBytes, Shape{0}, none),
                      tensor(1, DType::kInt64, Shape{}, a)};
  OutMessage out;
  out.own.append(std::string_view("left over"));
  ASSERT_TRUE(encode_model_infer(response, version, request, out));
  EXPECT_FALSE(out.needs_keep());
  const Read read(bytes_of(out));
  EXPECT_EQ(read.model, "model");
  EXPECT_EQ(read.version, "12");
  EXPECT_EQ(read.id, "id-9");
  ASSERT_EQ(read.outputs.size(), 3U);
  EXPECT_EQ(read.outputs[0].name, "third");
  EXPECT_EQ(read.outputs[0].datatype, "FP32");
  EXPECT_EQ(read.outputs[0].shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(read.outputs[1].name, "first");
  EXPECT_EQ(read.outputs[1].datatype, "BYTES");
  EXPECT_TRUE(read.outputs[2].shape.empty());
  EXPECT_EQ(read.raw, (std::vector<std::string>{a, "", a}));
}

// All kinds: tests/integration/test_model_parameters.py, read by tritonclient.
TEST(EncodeModelInfer, ParametersOfTheModelStandBeforeTheStreamsOwn) {
  Version version({"first"});
  const std::string a(8, 'a');
  Response response;
  response.outputs = {tensor(0, DType::kFp32, Shape{1, 2}, a)};
  response.parameters = std::make_shared<const ResponseParameters>(ResponseParameters{{"flag", true}});
  OutMessage out;
  ASSERT_TRUE(encode_model_infer(response, version, Request(), out));
  EXPECT_EQ(Read(bytes_of(out)).final_, "flag=true");
  ASSERT_TRUE(encode_model_stream_infer(response, version, Request(), out));
  EXPECT_EQ(Read(bytes_of(out), true).final_, "flag=truetriton_final_response=true");
  response.parameters = std::make_shared<const ResponseParameters>(ResponseParameters{{"\xff", true}});
  EXPECT_EQ(encode_model_infer(response, version, Request(), out).code(), Code::kInternal);
}

TEST(EncodeModelInfer, OutputsInSharedMemoryHaveAnEmptyEntryAndTheirPlace) {
  Version version({"first", "second", "third"});
  const std::string large(kReferenceBytes, 'L');
  const std::string plain = "abcd";
  const std::string third = "efgh";
  Request request;
  request.requested_outputs = {{.name = "first", .shared = {"region", 4096, large.size()}},
                               {.name = "second"},
                               {.name = "third", .shared = {std::string_view("r"), 0, 4}}};
  Response response;
  response.outputs = {tensor(0, DType::kFp32, Shape{1, 2048}, large),
                      tensor(1, DType::kFp32, Shape{1}, plain), tensor(2, DType::kFp32, Shape{1}, third)};
  OutMessage out;
  ASSERT_TRUE(encode_model_infer(response, version, request, out));
  EXPECT_FALSE(out.needs_keep()) << "nothing of the region goes to the socket";
  const Read read(bytes_of(out));
  EXPECT_EQ(read.raw, (std::vector<std::string>{"", "abcd", ""}));
  ASSERT_EQ(read.outputs.size(), 3U);
  EXPECT_EQ(read.outputs[0].parameters,
            (std::vector<std::string>{"shared_memory_region=region", "shared_memory_byte_size=8192",
                                      "shared_memory_offset=4096"}));
  EXPECT_TRUE(read.outputs[1].parameters.empty());
  EXPECT_EQ(read.outputs[2].parameters.back(), "shared_memory_offset=0");
  EXPECT_EQ(read.outputs[2].shape, (std::vector<std::int64_t>{1}));
}

TEST(EncodeModelInfer, NoIdNoOutputs) {
  Version version({});
  OutMessage out;
  ASSERT_TRUE(encode_model_infer(Response{}, version, Request{}, out));
  const Read read(bytes_of(out));
  EXPECT_EQ(read.id, "");
  EXPECT_TRUE(read.outputs.empty());
  EXPECT_TRUE(read.raw.empty());
}

TEST(EncodeModelInfer, LargeTensorsAreReferencedSmallOnesCopied) {
  Version version({"a", "b", "c", "d"});
  Response response;
  std::vector<std::string> data;
  for (const std::size_t size : {kReferenceBytes - 1, kReferenceBytes, std::size_t{3}, std::size_t{300000}}) {
    data.emplace_back(size, static_cast<char>('a' + data.size()));
  }
  for (int i = 0; i < 4; ++i) {
    const std::string& bytes = data[static_cast<std::size_t>(i)];
    response.outputs.push_back(
        tensor(i, DType::kUint8, Shape{static_cast<std::int64_t>(bytes.size())}, bytes));
  }
  OutMessage out;
  ASSERT_TRUE(encode_model_infer(response, version, Request{}, out));
  EXPECT_TRUE(out.needs_keep());
  ASSERT_EQ(out.external.size(), 2U);
  EXPECT_EQ(out.external[0].bytes.data(), reinterpret_cast<const std::byte*>(data[1].data()));
  EXPECT_EQ(out.external[1].bytes.size(), 300000U);
  out.keep = std::make_shared<int>(0);
  EXPECT_EQ(Read(bytes_of(out)).raw, data);
}

TEST(EncodeModelStreamInfer, IsTheSameInsideAndSaysWhetherItIsFinal) {
  Version version({"y", "z"});
  Request request;
  request.id = "id-9";
  const std::string small(8, 'a');
  const std::string large(kReferenceBytes, 'b');
  for (const bool final : {true, false}) {
    Response response;
    response.final = final;
    response.outputs = {tensor(1, DType::kFp32, Shape{1, 2}, small),
                        tensor(0, DType::kUint8, Shape{8192}, large)};
    OutMessage out;
    ASSERT_TRUE(encode_model_stream_infer(response, version, request, out));
    ASSERT_EQ(out.external.size(), 1U);
    out.keep = std::make_shared<int>(0);
    const Read read(bytes_of(out), true);
    EXPECT_EQ(read.error, "");
    EXPECT_EQ(read.model, "model");
    EXPECT_EQ(read.version, "12");
    EXPECT_EQ(read.id, "id-9");
    EXPECT_EQ(read.final_, final ? "triton_final_response=true" : "triton_final_response=false");
    ASSERT_EQ(read.outputs.size(), 2U);
    EXPECT_EQ(read.outputs[0].name, "z");
    EXPECT_EQ(read.raw, (std::vector<std::string>{small, large}));
  }
}

TEST(EncodeStreamError, CarriesTheIdAndIsAlwaysUtf8) {
  OutMessage out;
  encode_stream_error("id-9", "what went wrong", out);
  const Read read(bytes_of(out), true);
  EXPECT_EQ(read.error, "what went wrong");
  EXPECT_EQ(read.id, "id-9");
  EXPECT_EQ(read.model, "");
  EXPECT_EQ(read.final_, "triton_final_response=true");
  encode_stream_error("",
                      "gr\xC3\xBC\xC3\x9F"
                      "e",
                      out);
  EXPECT_EQ(Read(bytes_of(out), true).error,
            "gr\xC3\xBC\xC3\x9F"
            "e");
  encode_stream_error("", "cut \xC3", out);
  EXPECT_EQ(Read(bytes_of(out), true).error, "cut ?");
}

TEST(EncodeModelInfer, MessageLimitIsInt32Max) {
  Version version({"y"});
  Request request;
  Response response;
  const std::byte* const anywhere =
      reinterpret_cast<const std::byte*>(&version);  // sizes only: never read here
  const auto encoded = [&](std::size_t size) {
    response.outputs = {{0, DType::kUint8, Shape{1}, {anywhere, size}}};
    OutMessage out;
    const Status status = encode_model_infer(response, version, request, out);
    EXPECT_EQ(out.bytes() == 0, !status.is_ok());
    return std::pair(status.code(), out.bytes());
  };
  const std::size_t size = 0x7FFFFFFF - 100;
  const auto [code, total] = encoded(size);
  EXPECT_EQ(code, Code::kOk);
  const std::size_t overhead = total - kGrpcPrefixBytes - size;
  EXPECT_EQ(encoded(0x7FFFFFFF - overhead).first, Code::kOk);
  EXPECT_EQ(encoded(0x7FFFFFFF - overhead + 1).first, Code::kInvalidArgument);
}

}  // namespace
}  // namespace fastserve
