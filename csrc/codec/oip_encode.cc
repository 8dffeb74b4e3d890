#include <simdjson.h>
#include <protozero/pbf_writer.hpp>
#include <protozero/varint.hpp>

#include <array>
#include <limits>
#include <string>
#include <variant>

#include "codec/grpc_framing.h"
#include "codec/oip_infer.h"
#include "codec/response_parameter.h"
#include "codec/shared_place.h"

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
constexpr char kOutputParameter = 0x22;  // a map entry: key 1, value 2
constexpr char kMapKey = 0x0A;
constexpr char kMapValue = 0x12;
constexpr char kInt64Parameter = 0x10;  // of InferParameter; a varint
constexpr char kStringParameter = 0x1A;
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
  void number(char tag, std::uint64_t value) {
    *at_++ = tag;
    varint(value);
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

// Where the client wanted an output; "" region: in the message.
const SharedPlace& place_of(const Request& request, std::size_t output) {
  static constexpr SharedPlace kNone;
  return output < request.requested_outputs.size() ? request.requested_outputs[output].shared : kNone;
}

// What goes into the message of it.
std::span<const std::byte> payload_of(const Response& response, const Request& request, std::size_t output) {
  return place_of(request, output).region.empty() ? response.outputs[output].data
                                                  : std::span<const std::byte>();
}

std::size_t number_entry_bytes(std::string_view key, std::uint64_t value) {
  return field_bytes(key.size()) + field_bytes(1 + varint_bytes(value));
}
std::size_t region_entry_bytes(std::string_view region) {
  return field_bytes(kSharedRegion.size()) + field_bytes(field_bytes(region.size()));
}

std::size_t place_bytes(const SharedPlace& place) {
  if (place.region.empty()) return 0;
  return field_bytes(region_entry_bytes(place.region)) +
         field_bytes(number_entry_bytes(kSharedBytes, place.bytes)) +
         field_bytes(number_entry_bytes(kSharedOffset, place.offset));
}

void write_number_entry(std::string_view key, std::uint64_t value, Writer& w) {
  w.head(kOutputParameter, number_entry_bytes(key, value));
  w.field(kMapKey, key);
  w.head(kMapValue, 1 + varint_bytes(value));
  w.number(kInt64Parameter, value);
}

void write_place(const SharedPlace& place, Writer& w) {
  if (place.region.empty()) return;
  w.head(kOutputParameter, region_entry_bytes(place.region));
  w.field(kMapKey, kSharedRegion);
  w.head(kMapValue, field_bytes(place.region.size()));
  w.field(kStringParameter, place.region);
  write_number_entry(kSharedBytes, place.bytes, w);
  write_number_entry(kSharedOffset, place.offset, w);
}

std::size_t output_bytes(const OutputTensor& output, const SharedPlace& place, const ServedVersion& version) {
  const std::size_t dims = shape_bytes(output.shape);
  return optional_bytes(output_name(output, version)) + field_bytes(dtype_name(output.dtype).size()) +
         (dims == 0 ? 0 : field_bytes(dims)) + place_bytes(place);
}

void write_output(const OutputTensor& output, const SharedPlace& place, const ServedVersion& version,
                  Writer& w) {
  w.head(kOutputs, output_bytes(output, place, version));
  w.field(kOutputName, output_name(output, version));
  w.field(kOutputDatatype, dtype_name(output.dtype));
  if (!output.shape.empty()) {
    w.head(kOutputShape, shape_bytes(output.shape));
    for (const std::int64_t d : output.shape.dims()) w.varint(static_cast<std::uint64_t>(d));
  }
  write_place(place, w);
}

struct Sizes {
  std::size_t message = 0;  // without the gRPC prefix
  std::size_t referenced = 0;
};

Sizes measure(const Response& response, const ServedVersion& version, const Request& request) {
  Sizes sizes;
  sizes.message =
      optional_bytes(version.name) + optional_bytes(version.number_text) + optional_bytes(request.id);
  for (std::size_t i = 0; i < response.outputs.size(); ++i) {
    const std::size_t bytes = payload_of(response, request, i).size();
    sizes.message += field_bytes(output_bytes(response.outputs[i], place_of(request, i), version));
    sizes.message += field_bytes(bytes);
    if (bytes >= kReferenceBytes) sizes.referenced += bytes;
  }
  return sizes;
}

// Entries of ModelInferResponse.parameters, which few models have: written aside.
Status encode_parameters(const ResponseParameters& parameters, std::string& out) {
  constexpr protozero::pbf_tag_type kParameters = 4;
  protozero::pbf_writer message(out);
  for (const ResponseParameter& each : parameters) {
    FS_RETURN_IF_ERROR(check_utf8(each));
    protozero::pbf_writer entry(message, kParameters);
    entry.add_string(1, each.name);
    protozero::pbf_writer value(entry, 2);
    if (const auto* flag = std::get_if<bool>(&each.value)) value.add_bool(1, *flag);
    if (const auto* number = std::get_if<std::int64_t>(&each.value)) value.add_int64(2, *number);
    if (const auto* text = std::get_if<std::string>(&each.value)) value.add_string(3, *text);
    if (const auto* number = std::get_if<double>(&each.value)) value.add_double(4, *number);
    if (const auto* number = std::get_if<std::uint64_t>(&each.value)) value.add_uint64(5, *number);
  }
  return Status::ok();
}

// `parameter`: encoded, or nothing. `in_stream`: wrapped into a ModelStreamInferResponse.
Status encode(const Response& response, const ServedVersion& version, const Request& request,
              std::string_view parameter, bool in_stream, OutMessage& out) {
  out.clear();
  std::string parameters;
  if (response.parameters != nullptr) {
    FS_RETURN_IF_ERROR(encode_parameters(*response.parameters, parameters));
    parameter = parameters.append(parameter);
  }
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
  for (std::size_t i = 0; i < response.outputs.size(); ++i) {
    write_output(response.outputs[i], place_of(request, i), version, w);
  }
  // One entry each, empty ones too: clients index by position.
  for (std::size_t i = 0; i < response.outputs.size(); ++i) {
    const std::span<const std::byte> data = payload_of(response, request, i);
    w.head(kRawOutputContents, data.size());
    if (data.size() >= kReferenceBytes) {
      out.external.push_back({static_cast<std::size_t>(w.at() - start), data});
    } else {
      w.bytes(data.data(), data.size());
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
