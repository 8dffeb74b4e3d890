// The way out: what the device wrote -> every request's response. (Batch::scatter)
#include "batch/batch.h"
#include "batch/place_outputs.h"

namespace fastserve {
namespace {

// The client did nothing wrong: the backend did not keep what the signature promises.
Status broken(const TensorSpec& spec, const std::string& what) {
  return internal_error("outputs[\"" + spec.name + "\"]" + what);
}

std::int64_t elements_per_row(const Shape& shape) {
  return Shape(shape.dims().subspan(1)).elements().value_or(0);
}

}  // namespace

void Batch::scatter(const Status& status) {
  const bool by_slot = !slot_outputs_.empty();
  const Status outcome = status.is_ok() && !by_slot ? check_outputs() : status;
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    Request& request = *slots_[s].request;
    Response& response = request.response;
    response.request = &request;
    response.status = outcome;
    response.final = true;
    response.outputs.clear();
    if (outcome.is_ok() && by_slot) response.status = check_slot(s);
    if (!response.status.is_ok()) continue;
    for (const int output : request.output_order) {
      const auto i = static_cast<std::size_t>(output);
      response.outputs.push_back(by_slot ? slot_outputs_[s * outputs_.size() + i].tensor : slice(i, s));
    }
    if (!slot_parameters_.empty()) response.parameters = slot_parameters_[s];
    response.batch = BatchRef(this);
    if (request.tap == nullptr) {
      copied_bytes += place_outputs(request);
    } else {
      check_places(request);
    }
  }
}

Status Batch::check_slot(std::size_t slot) const {
  if (!slot_faults_.empty() && !slot_faults_[slot].is_ok()) return slot_faults_[slot];
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const TensorSpec& spec = signature_.outputs[i];
    const auto& [present, tensor] = slot_outputs_[slot * outputs_.size() + i];
    if (!present) return broken(spec, ": the backend did not set it");
    if (tensor.dtype != spec.dtype) {
      return broken(spec, ".datatype: got " + std::string(dtype_name(tensor.dtype)) + ", want " +
                              std::string(dtype_name(spec.dtype)));
    }
    if (signature_.batches() && (tensor.shape.empty() || tensor.shape[0] != slots_[slot].rows)) {
      return broken(spec, ".shape: got " + tensor.shape.str() + ", want " +
                              std::to_string(slots_[slot].rows) + " rows");
    }
    const auto elements = tensor.shape.elements();
    const auto extent = spec.dtype != DType::kBytes ? tensor.shape.byte_count(tensor.dtype)
                        : elements                  ? bytes_extent(tensor.data, *elements)
                                                    : std::nullopt;
    if (!extent || *extent != tensor.data.size()) {
      return broken(spec, ".data: got " + std::to_string(tensor.data.size()) + " bytes for shape " +
                              tensor.shape.str());
    }
  }
  return Status::ok();
}

Status Batch::check_outputs() {
  bytes_ends_.assign(outputs_.size() * slots_.size(), 0);
  for (std::size_t i = 0; i < outputs_.size(); ++i) FS_RETURN_IF_ERROR(check_output(i));
  return Status::ok();
}

Status Batch::check_output(std::size_t i) {
  const TensorSpec& spec = signature_.outputs[i];
  const BatchTensor& output = outputs_[i];
  if (!output.present) return broken(spec, ": the backend did not set it");
  if (output.dtype != spec.dtype) {
    return broken(spec, ".datatype: got " + std::string(dtype_name(output.dtype)) + ", want " +
                            std::string(dtype_name(spec.dtype)));
  }
  // A backend may leave its padding rows out of the output.
  if (signature_.batches() &&
      (output.shape.empty() || (output.shape[0] != run_rows_ && output.shape[0] != rows_))) {
    return broken(spec,
                  ".shape: got " + output.shape.str() + ", want " + std::to_string(run_rows_) + " rows");
  }
  if (spec.dtype == DType::kBytes) return walk_bytes_output(i);
  const auto want = output.shape.byte_count(output.dtype);
  if (!want || *want > output.bytes) {
    return broken(spec,
                  ".data: got " + std::to_string(output.bytes) + " bytes for shape " + output.shape.str());
  }
  return Status::ok();
}

Status Batch::walk_bytes_output(std::size_t i) {
  const BatchTensor& output = outputs_[i];
  const std::span data(output.data, output.bytes);
  std::size_t at = 0;
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    const std::int64_t count = signature_.batches() ? slots_[s].rows * elements_per_row(output.shape)
                                                    : output.shape.elements().value_or(-1);
    const auto extent = count < 0 ? std::nullopt : bytes_extent(data.subspan(at), count);
    if (!extent)
      return broken(signature_.outputs[i], ".data: elements cut off for shape " + output.shape.str());
    at += *extent;
    bytes_ends_[i * slots_.size() + s] = at;
  }
  return Status::ok();
}

OutputTensor Batch::slice(std::size_t output, std::size_t slot) const {
  const BatchTensor& from = outputs_[output];
  OutputTensor out{static_cast<int>(output), from.dtype, from.shape, {from.data, from.bytes}};
  if (from.dtype == DType::kBytes) {
    const std::size_t* ends = &bytes_ends_[output * slots_.size()];
    const std::size_t begin = slot == 0 ? 0 : ends[slot - 1];
    out.data = {from.data + begin, ends[slot] - begin};
    if (signature_.batches()) out.shape[0] = slots_[slot].rows;
    return out;
  }
  if (!signature_.batches()) {
    out.data = out.data.first(from.shape.byte_count(from.dtype).value_or(0));
    return out;
  }
  const std::size_t row_bytes = from.shape.byte_count_from(from.dtype, 1).value_or(0);
  out.shape[0] = slots_[slot].rows;
  out.data = out.data.subspan(static_cast<std::size_t>(slots_[slot].first_row) * row_bytes,
                              static_cast<std::size_t>(slots_[slot].rows) * row_bytes);
  return out;
}

}  // namespace fastserve
