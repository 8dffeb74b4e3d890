// Response side of rest_infer.h.
#include <cstring>

#include "codec/json_tensor.h"
#include "codec/json_writer.h"
#include "codec/response_parameter.h"
#include "codec/rest_infer.h"
#include "codec/rest_parameters.h"
#include "codec/shared_place.h"

namespace fastserve {
namespace {

class RestEncoder {
 public:
  RestEncoder(const Response& response, const ServedVersion& version, const Request& request, OutMessage& out)
      : response_(response),
        version_(version),
        request_(request),
        all_binary_(request.requested_outputs.empty() && wants_binary_output(request)),
        out_(out),
        json_(out.own) {}

  Status run(RestHead& head) {
    json_.begin_object();
    if (!request_.id.empty()) {
      json_.key("id");
      json_.string(request_.id);
    }
    json_.key("model_name");
    json_.string(version_.name);
    json_.key("model_version");
    json_.string(version_.number_text);
    if (response_.parameters != nullptr) FS_RETURN_IF_ERROR(write_parameters(*response_.parameters));
    json_.key("outputs");
    json_.begin_array();
    for (std::size_t i = 0; i < response_.outputs.size(); ++i) FS_RETURN_IF_ERROR(write_output(i));
    json_.end_array();
    json_.end_object();
    append_binaries(head);
    return Status::ok();
  }

 private:
  const RequestedOutput* requested(std::size_t i) const {
    return i < request_.requested_outputs.size() ? &request_.requested_outputs[i] : nullptr;
  }
  bool in_shared_memory(std::size_t i) const {
    const RequestedOutput* asked = requested(i);
    return asked != nullptr && !asked->shared.region.empty();
  }
  bool binary(std::size_t i) const {
    if (in_shared_memory(i)) return false;
    const RequestedOutput* asked = requested(i);
    return asked != nullptr ? asked->binary : all_binary_;
  }
  const std::string& name(std::size_t i) const {
    return version_.signature.outputs[static_cast<std::size_t>(response_.outputs[i].index)].name;
  }
  std::string field(std::size_t i) const { return "outputs[\"" + std::string(excerpt(name(i))) + "\"]"; }

  Status write_parameters(const ResponseParameters& parameters) {
    json_.key("parameters");
    json_.begin_object();
    for (const ResponseParameter& each : parameters) {
      FS_RETURN_IF_ERROR(check_utf8(each));
      json_.key(each.name);
      if (const auto* flag = std::get_if<bool>(&each.value)) json_.boolean(*flag);
      if (const auto* number = std::get_if<std::int64_t>(&each.value)) json_.integer(*number);
      if (const auto* number = std::get_if<std::uint64_t>(&each.value)) json_.unsigned_integer(*number);
      if (const auto* number = std::get_if<double>(&each.value)) json_.number(*number);
      if (const auto* text = std::get_if<std::string>(&each.value)) json_.string(*text);
    }
    json_.end_object();
    return Status::ok();
  }

  Status write_output(std::size_t i) {
    const OutputTensor& output = response_.outputs[i];
    json_.begin_object();
    json_.key("name");
    json_.string(name(i));
    json_.key("datatype");
    json_.string(dtype_name(output.dtype));
    json_.key("shape");
    json_.begin_array();
    for (const std::int64_t dim : output.shape.dims()) json_.integer(dim);
    json_.end_array();
    if (in_shared_memory(i)) {
      write_place(requested(i)->shared);
    } else if (binary(i)) {
      json_.key("parameters");
      json_.begin_object();
      json_.key("binary_data_size");
      json_.unsigned_integer(output.data.size());
      json_.end_object();
    } else {
      json_.key("data");
      FS_RETURN_IF_ERROR(write_data(i));
    }
    json_.end_object();
    return Status::ok();
  }

  void write_place(const SharedPlace& place) {
    json_.key("parameters");
    json_.begin_object();
    json_.key(kSharedRegion);
    json_.string(place.region);
    json_.key(kSharedBytes);
    json_.unsigned_integer(place.bytes);
    json_.key(kSharedOffset);
    json_.unsigned_integer(place.offset);
    json_.end_object();
  }

  Status write_data(std::size_t i) {
    const OutputTensor& output = response_.outputs[i];
    switch (output.dtype) {
      case DType::kBytes:
        return write_strings(i);
      case DType::kFp16:
      case DType::kBf16:
        return invalid_argument(
            field(i) + ".data: datatype " + std::string(dtype_name(output.dtype)) +
            " has no JSON form; ask for binary data (outputs[].parameters.binary_data: true)");
      default:
        json_.elements(output.dtype, output.data);
        return Status::ok();
    }
  }

  Status write_strings(std::size_t i) {
    json_.begin_array();
    std::span<const std::byte> rest = response_.outputs[i].data;
    for (std::size_t element = 0; !rest.empty(); ++element) {
      std::uint32_t size = 0;
      if (rest.size() >= 4) std::memcpy(&size, rest.data(), 4);
      if (rest.size() < 4 || rest.size() - 4 < size) {
        return internal_error(field(i) + ": the model's BYTES output is cut off");
      }
      const std::string_view text(reinterpret_cast<const char*>(rest.data()) + 4, size);
      if (!is_utf8(text)) {
        return invalid_argument(field(i) + ".data[" + std::to_string(element) +
                                "]: not UTF-8, which JSON needs; ask for binary data "
                                "(outputs[].parameters.binary_data: true)");
      }
      json_.string(text);
      rest = rest.subspan(4 + std::size_t{size});
    }
    json_.end_array();
    return Status::ok();
  }

  void append_binaries(RestHead& head) {
    const std::size_t json_bytes = out_.own.size();
    head = {"application/json", std::nullopt};
    for (std::size_t i = 0; i < response_.outputs.size(); ++i) {
      if (!binary(i) || response_.outputs[i].data.empty()) continue;
      out_.add_payload(response_.outputs[i].data);
      head = {"application/octet-stream", json_bytes};
    }
  }

  const Response& response_;
  const ServedVersion& version_;
  const Request& request_;
  const bool all_binary_;
  OutMessage& out_;
  JsonWriter json_;
};

}  // namespace

Status encode_rest_infer(const Response& response, const ServedVersion& version, const Request& request,
                         OutMessage& out, RestHead& head) {
  out.clear();
  Status status = RestEncoder(response, version, request, out).run(head);
  if (!status.is_ok()) out.clear();
  return status;
}

}  // namespace fastserve
