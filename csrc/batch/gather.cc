// The way in: requests' inputs -> what the device reads. (Batch::gather)
#include <cstring>

#include "base/checked.h"
#include "batch/batch.h"
#include "memory/device_memory.h"

namespace fastserve {
namespace {

Status no_memory(const TensorSpec& spec, std::size_t bytes) {
  return {Code::kResourceExhausted,
          "no memory for " + std::to_string(bytes) + " bytes of batch input '" + spec.name + "'"};
}

const TensorView& input_of(const Slot& slot, std::size_t i) {
  return slot.request->inputs[static_cast<std::size_t>(slot.request->input_order[i])];
}

// Elements of one row: the product of the dimensions behind the first.
std::size_t elements_per_row(const Shape& shape) {
  return static_cast<std::size_t>(Shape(shape.dims().subspan(1)).elements().value_or(0));
}

}  // namespace

Status Batch::gather(std::int64_t run_rows, bool may_bind, int device) {
  run_rows_ = run_rows;
  device_parts_.clear();
  const bool bind =
      may_bind && slots_.size() == 1 && (!signature_.batches() || slots_.front().rows == run_rows);
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    inputs_[i].present = slots_.front().request->input_order[i] >= 0;
    if (!inputs_[i].present) continue;
    if (bind && input_of(slots_.front(), i).on_device == nullptr) {
      bind_input(i);
    } else if (signature_.batches()) {
      FS_RETURN_IF_ERROR(gather_input(i, device));
    } else {
      FS_RETURN_IF_ERROR(copy_input(i, device));
    }
  }
  return Status::ok();
}

Status Batch::leave_in_place(std::int64_t run_rows) {
  run_rows_ = run_rows;
  device_parts_.clear();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    BatchTensor& input = inputs_[i];
    input.present = slots_.front().request->input_order[i] >= 0;
    if (!input.present) continue;
    const TensorView& first = input_of(slots_.front(), i);
    input.dtype = first.dtype;
    input.shape = first.shape;
    if (signature_.batches()) input.shape[0] = run_rows_;
    input.data = nullptr;
    input.bytes = 0;
    for (const Slot& slot : slots_) input.bytes += input_of(slot, i).data.size();
  }
  return Status::ok();
}

void Batch::bind_input(std::size_t i) {
  const TensorView& view = input_of(slots_.front(), i);
  inputs_[i].dtype = view.dtype;
  inputs_[i].shape = view.shape;
  inputs_[i].data = view.data.data();
  inputs_[i].bytes = view.data.size();
}

// One request's part of input i, to where it is in the batch's tensor; or noted, where the device reads it by itself.
Status Batch::fetch(std::size_t i, const TensorView& view, std::size_t offset, int device) {
  if (view.data.empty()) return Status::ok();
  if (view.on_device == nullptr) {
    std::memcpy(inputs_[i].own + offset, view.data.data(), view.data.size());
  } else if (view.on_device->device() == device) {
    device_parts_.push_back({i, offset, view.data});
    return Status::ok();
  } else {
    FS_RETURN_IF_ERROR(view.on_device->read(inputs_[i].own + offset, view.data.data(), view.data.size()));
  }
  copied_bytes += view.data.size();
  return Status::ok();
}

// Of a model without batching, whose tensors have no rows.
Status Batch::copy_input(std::size_t i, int device) {
  const TensorView& view = input_of(slots_.front(), i);
  BatchTensor& input = inputs_[i];
  if (!reserve(input, view.data.size())) return no_memory(signature_.inputs[i], view.data.size());
  FS_RETURN_IF_ERROR(fetch(i, view, 0, device));
  input.dtype = view.dtype;
  input.shape = view.shape;
  input.data = input.own;
  input.bytes = view.data.size();
  return Status::ok();
}

Status Batch::gather_input(std::size_t i, int device) {
  const TensorView& first = input_of(slots_.front(), i);
  BatchTensor& input = inputs_[i];
  input.dtype = first.dtype;
  input.shape = first.shape;
  input.shape[0] = run_rows_;
  const auto padding_rows = static_cast<std::size_t>(run_rows_ - rows_);
  std::size_t padding_bytes = 0;  // zeros; for kBytes a zero length each, which is an empty element
  std::size_t bytes = 0;
  const std::size_t row_bytes = first.dtype == DType::kBytes
                                    ? elements_per_row(first.shape) * sizeof(std::uint32_t)
                                    : first.shape.byte_count_from(first.dtype, 1).value_or(0);
  bool fits = checked_mul(row_bytes, padding_rows, padding_bytes);
  bytes = padding_bytes;
  for (const Slot& slot : slots_) fits = fits && checked_add(bytes, input_of(slot, i).data.size(), bytes);
  if (!fits || !reserve(input, bytes)) return no_memory(signature_.inputs[i], bytes);

  std::size_t at = 0;
  for (const Slot& slot : slots_) {
    const TensorView& view = input_of(slot, i);
    FS_RETURN_IF_ERROR(fetch(i, view, at, device));
    at += view.data.size();
  }
  std::memset(input.own + at, 0, padding_bytes);
  input.data = input.own;
  input.bytes = bytes;
  return Status::ok();
}

}  // namespace fastserve
