// Raw requests (rest_infer.h): a body without JSON, Inference-Header-Content-Length: 0.
#include <cstring>

#include "codec/json_tensor.h"
#include "codec/rest_infer.h"

namespace fastserve {
namespace {

Status refuse(std::string_view model, const std::string& why) {
  return invalid_argument(
      "This request is treated as raw input request because 'Inference-Header-Content-Length' is 0: model '" +
      std::string(excerpt(model)) + "' " + why);
}

// One row of the model's shape, its one dynamic dimension (if any) computed from the bytes.
Status raw_shape(const TensorSpec& spec, std::string_view model, std::size_t bytes, bool batches,
                 Shape& out) {
  std::size_t dynamic_at = kMaxRank;
  for (std::size_t i = 0; i < spec.shape.rank(); ++i) {
    out.push_back(spec.shape[i]);
    if (batches && i == 0) {
      out[0] = 1;
    } else if (spec.shape[i] < 0) {
      if (dynamic_at != kMaxRank) {
        return refuse(model, "has an input with more than one dynamic dimension: " + input_field(spec.name) +
                                 ".shape: got " + spec.shape.str());
      }
      dynamic_at = i;
    }
  }
  if (spec.dtype == DType::kBytes) {
    // Triton: BYTES is one element.
    if (dynamic_at != kMaxRank) out[dynamic_at] = 1;
    return out.elements() == 1
               ? Status::ok()
               : refuse(model, "has a BYTES input of more than one element: " + input_field(spec.name) +
                                   ".shape: got " + spec.shape.str());
  }
  if (dynamic_at == kMaxRank) return Status::ok();  // validate() compares the bytes
  out[dynamic_at] = 1;
  const auto unit = out.byte_count(spec.dtype);
  if (!unit || *unit == 0 || bytes % *unit != 0) {
    return refuse(model, "got " + std::to_string(bytes) + " bytes for " + input_field(spec.name) +
                             " of shape " + spec.shape.str() + ", want a multiple of " +
                             std::to_string(unit.value_or(0)));
  }
  out[dynamic_at] = static_cast<std::int64_t>(bytes / *unit);
  return Status::ok();
}

}  // namespace

Status complete_raw_request(const Signature& signature, std::string_view model,
                            std::span<const std::byte> body, Request& out) {
  if (signature.inputs.size() != 1) {
    return refuse(model, "has " + std::to_string(signature.inputs.size()) + " inputs, want 1");
  }
  const TensorSpec& spec = signature.inputs.front();
  // The name is copied: the caller may give the version's handle back before the request is submitted.
  const std::span<std::byte> name = out.scratch.allocate(spec.name.size());
  std::memcpy(name.data(), spec.name.data(), spec.name.size());
  TensorView input{{reinterpret_cast<const char*>(name.data()), name.size()}, spec.dtype, {}, body};
  FS_RETURN_IF_ERROR(raw_shape(spec, model, body.size(), signature.batches(), input.shape));
  if (spec.dtype == DType::kBytes) {
    if (body.size() > UINT32_MAX) return refuse(model, "got a body of 4 GiB or more");
    const auto size = static_cast<std::uint32_t>(body.size());
    const std::span<std::byte> element = out.scratch.allocate(4 + body.size());
    std::memcpy(element.data(), &size, 4);
    if (!body.empty()) std::memcpy(element.data() + 4, body.data(), body.size());
    input.data = element;
  }
  out.inputs.push_back(input);
  out.parameters.push_back({"binary_data_output", true});
  return Status::ok();
}

}  // namespace fastserve
