#include <simdjson.h>
#include <protozero/varint.hpp>

#include <array>
#include <limits>
#include <string>

#include "codec/grpc_framing.h"
#include "codec/oip_infer.h"

namespace fastserve {
namespace {

// Tags (field number << 3 | 2): all fields here are length-delimited. protos/oip_grpc_service.proto.
constexpr char kModelName = 0x0A;
constexpr char kModelVersion = 0x12;
constexpr char kId = 0x1A;
constexpr char kOutputs = 0x2A;
constexpr char kRawOutputContents = 0x32;
constexpr char kOutputName = 0x0A;
constexpr char kOutputDatatype = 0x12;
constexpr char kOutputShape = 0x1A;
constexpr char kErrorMessage = 0x0A;   // of ModelStreamInferResponse
constexpr char kInferResponse = 0x12;  // likewise

// A whole entry of ModelInferResponse.parameters (field 4): {"triton_final_response": {bool_param: ...}}.
constexpr std::string_view kFinal("\x22\x1B\x0A\x15triton_final_response\x12\x02\x08\x01", 29);
constexpr std::string_view kNotFinal("\x22\x1B\x0A\x15triton_final_response\x12\x02\x08\x00", 29);

std::size_t varint_bytes(std::uint64_t value) {
  return static_cast<std::size_t>(protozero::length_of_varint(value));
}
std::size_t field_bytes(std::size_t size) { return 1 + varint_bytes(size) + size; }
std::size_t optional_bytes(std::string_view text) { return text.empty() ? 0 : field_bytes(text.size()); }

std::size_t shape_bytes(const Shape& shape) {
  std::size_t sum = 0;
  for (const std::int64_t d : shape.dims()) sum += varint_bytes(static_cast<std::uint64_t>(d));
  return sum;
}

// Writes into room that was measured before.
class Writer {
 public:
  explicit Writer(std::byte* at) : at_(reinterpret_cast<char*>(at)) {}
  void varint(std::uint64_t value) { at_ += protozero::add_varint_to_buffer(at_, value); }
  void head(char tag, std::size_t size) {
    *at_++ = tag;
    varint(size);
  }
  void field(char tag, std::string_view text) {
    if (text.empty()) return;
    head(tag, text.size());
    bytes(text.data(), text.size());
  }
  void bytes(const void* from, std::size_t size) {
    if (size != 0) std::memcpy(at_, from, size);
    at_ += size;
  }
  char* text() const { return at_; }
  const std::byte* at() const { return reinterpret_cast<const std::byte*>(at_); }

 private:
  char* at_;
};

std::string_view output_name(const OutputTensor& output, const ServedVersion& version) {
  return version.signature.outputs[static_cast<std::size_t>(output.index)].name;
}

std::size_t output_bytes(const OutputTensor& output, const ServedVersion& version) {
  const std::size_t dims = shape_bytes(output.shape);
  return optional_bytes(output_name(output, version)) + field_bytes(dtype_name(output.dtype).size()) +
         (dims == 0 ? 0 : field_bytes(dims));
}

void write_output(const OutputTensor& output, const ServedVersion& version, Writer& w) {
  w.head(kOutputs, output_bytes(output, version));
  w.field(kOutputName, output_name(output, version));
  w.field(kOutputDatatype, dtype_name(output.dtype));
  if (output.shape.empty()) return;
  w.head(kOutputShape, shape_bytes(output.shape));
  for (const std::int64_t d : output.shape.dims()) w.varint(static_cast<std::uint64_t>(d));
}

struct Sizes {
  std::size_t message = 0;  // without the gRPC prefix
  std::size_t referenced = 0;
};

Sizes measure(const Response& response, const ServedVersion& version, const Request& request) {
  Sizes sizes;
  sizes.message =
      optional_bytes(version.name) + optional_bytes(version.number_text) + optional_bytes(request.id);
  for (const OutputTensor& output : response.outputs) {
    sizes.message += field_bytes(output_bytes(output, version)) + field_bytes(output.data.size());
    if (output.data.size() >= kReferenceBytes) sizes.referenced += output.data.size();
  }
  return sizes;
}

// `parameter`: encoded, or nothing. `in_stream`: wrapped into a ModelStreamInferResponse.
Status encode(const Response& response, const ServedVersion& version, const Request& request,
              std::string_view parameter, bool in_stream, OutMessage& out) {
  out.clear();
  const Sizes sizes = measure(response, version, request);
  const std::size_t infer_bytes = sizes.message + parameter.size();
  const std::size_t message_bytes = in_stream ? field_bytes(infer_bytes) : infer_bytes;
  if (message_bytes > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    return invalid_argument("response message too large: got " + std::to_string(message_bytes) +
                            " bytes, limit 2147483647");
  }
  std::byte* const start = out.own.extend(kGrpcPrefixBytes + message_bytes - sizes.referenced);
  write_grpc_prefix(start, message_bytes);
  Writer w(start + kGrpcPrefixBytes);
  if (in_stream) w.head(kInferResponse, infer_bytes);
  w.field(kModelName, version.name);
  w.field(kModelVersion, version.number_text);
  w.field(kId, request.id);
  w.bytes(parameter.data(), parameter.size());
  for (const OutputTensor& output : response.outputs) write_output(output, version, w);
  for (const OutputTensor& output :
       response.outputs) {  // one entry each, empty ones too: clients index by position
    w.head(kRawOutputContents, output.data.size());
    if (output.data.size() >= kReferenceBytes) {
      out.external.push_back({static_cast<std::size_t>(w.at() - start), output.data});
    } else {
      w.bytes(output.data.data(), output.data.size());
    }
  }
  return Status::ok();
}

}  // namespace

Status encode_model_infer(const Response& response, const ServedVersion& version, const Request& request,
                          OutMessage& out) {
  return encode(response, version, request, {}, false, out);
}

Status encode_model_stream_infer(const Response& response, const ServedVersion& version,
                                 const Request& request, OutMessage& out) {
  return encode(response, version, request, response.final ? kFinal : kNotFinal, true, out);
}

void encode_stream_error(std::string_view id, std::string_view message, OutMessage& out) {
  out.clear();
  const std::size_t infer_bytes = optional_bytes(id) + kFinal.size();
  const std::size_t message_bytes = optional_bytes(message) + field_bytes(infer_bytes);
  std::byte* const start = out.own.extend(kGrpcPrefixBytes + message_bytes);
  write_grpc_prefix(start, message_bytes);
  Writer w(start + kGrpcPrefixBytes);
  w.field(kErrorMessage, message);
  if (!simdjson::validate_utf8(message.data(), message.size())) {
    for (char* c = w.text() - message.size(); c != w.text(); ++c)
      *c = static_cast<unsigned char>(*c) < 0x80 ? *c : '?';
  }
  w.head(kInferResponse, infer_bytes);
  w.field(kId, id);
  w.bytes(kFinal.data(), kFinal.size());
}

}  // namespace fastserve
