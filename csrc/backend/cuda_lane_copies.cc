// A lane's way in and out: rows of requests -> device, device -> rows of answers. (The order of things is in cuda_lane.cc.)
#include <algorithm>
#include <string>

#include "backend/cuda_lane.h"
#include "memory/pinned_ranges.h"

namespace fastserve {
namespace {

const TensorView& view_of(const Slot& slot, std::size_t i) {
  return slot.request->inputs[static_cast<std::size_t>(slot.request->input_order[i])];
}

std::size_t rows_bytes(std::int64_t rows, std::size_t row_bytes) {
  return static_cast<std::size_t>(rows) * row_bytes;
}

}  // namespace

// Of a model with free dimensions, and of one that has its own memory for its graphs. Free: nothing is under way on it.
Status CudaLane::make_room(Input& input, std::size_t bytes, const std::string& name) {
  if (bytes <= input.capacity) return Status::ok();
  const std::size_t capacity = std::max(bytes, input.capacity + input.capacity / 2);
  DeviceAddress grown = 0;
  FS_RETURN_IF_ERROR(allocate(capacity, "input '" + name + "'", grown));
  if (input.address != 0) {
    std::erase(own_, input.address);
    FS_RETURN_IF_ERROR(check(device_.driver().mem_free(input.address), "cuMemFree"));
  }
  input = {grown, capacity, 0};
  return Status::ok();
}

Status CudaLane::copy_in(Batch& batch, std::vector<Input>& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const BatchTensor& tensor = batch.inputs()[i];
    inputs[i].dirty_rows = std::max(inputs[i].dirty_rows, batch.rows());
    if (tensor.data == nullptr) {
      FS_RETURN_IF_ERROR(copy_in_place(batch, i, inputs[i].address));
    } else if (!batch.signature().batches()) {
      FS_RETURN_IF_ERROR(to_device(inputs[i].address, tensor.data, tensor.bytes));
    } else {
      const std::size_t row_bytes = tensor.shape.byte_count_from(tensor.dtype, 1).value_or(0);
      FS_RETURN_IF_ERROR(to_device(inputs[i].address, tensor.data, rows_bytes(batch.rows(), row_bytes)));
    }
    if (batch.signature().batches()) FS_RETURN_IF_ERROR(clear_padding(batch, i, inputs[i]));
  }
  for (const DevicePart& part : batch.device_parts())
    FS_RETURN_IF_ERROR(from_device(inputs[part.input].address + part.offset, part.data));
  return Status::ok();
}

// The rows of each request from where its client wrote them, page-locked memory or the device's own.
Status CudaLane::copy_in_place(Batch& batch, std::size_t i, DeviceAddress to) {
  for (const Slot& slot : batch.slots()) {
    const TensorView& view = view_of(slot, i);
    if (view.on_device != nullptr) {
      FS_RETURN_IF_ERROR(from_device(to, view.data));
    } else {
      FS_RETURN_IF_ERROR(to_device(to, view.data.data(), view.data.size()));
      device_.counts().in_place_copies.fetch_add(1, std::memory_order_relaxed);
    }
    to += view.data.size();
  }
  return Status::ok();
}

// Rows that an earlier batch left, as far as this one reads them. Mostly none: batches of one lane tend to be alike.
Status CudaLane::clear_padding(Batch& batch, std::size_t i, Input& input) {
  const std::int64_t rows = batch.rows();
  const std::int64_t until = std::min(batch.run_rows(), input.dirty_rows);
  const BatchTensor& tensor = batch.inputs()[i];
  const std::size_t row_bytes = tensor.shape.byte_count_from(tensor.dtype, 1).value_or(0);
  if (until > rows && row_bytes != 0) {
    FS_RETURN_IF_ERROR(check(device_.driver().memset_d8_async(input.address + rows_bytes(rows, row_bytes), 0,
                                                              rows_bytes(until - rows, row_bytes), stream_),
                             "cuMemsetD8Async"));
  }
  if (input.dirty_rows <= batch.run_rows()) input.dirty_rows = rows;
  return Status::ok();
}

Status CudaLane::to_device(DeviceAddress to, const std::byte* from, std::size_t bytes) {
  if (bytes == 0) return Status::ok();
  if (!pinned_ranges().holds(from, bytes))
    device_.counts().unpinned_copies.fetch_add(1, std::memory_order_relaxed);
  return check(device_.driver().memcpy_htod_async(to, from, bytes, stream_), "cuMemcpyHtoDAsync");
}

Status CudaLane::from_device(DeviceAddress to, std::span<const std::byte> from) {
  if (from.empty()) return Status::ok();
  device_.counts().in_place_copies.fetch_add(1, std::memory_order_relaxed);
  return check(device_.driver().memcpy_dtod_async(to, reinterpret_cast<CUdeviceptr>(from.data()), from.size(),
                                                  stream_),
               "cuMemcpyDtoDAsync");
}

Status CudaLane::to_host(std::byte* to, DeviceAddress from, std::size_t bytes) {
  if (bytes == 0) return Status::ok();
  if (!pinned_ranges().holds(to, bytes))
    device_.counts().unpinned_copies.fetch_add(1, std::memory_order_relaxed);
  return check(device_.driver().memcpy_dtoh_async(to, from, bytes, stream_), "cuMemcpyDtoHAsync");
}

// Where a request wants its answer, when that is page-locked; else the batch's own memory, from which it is copied there.
Status CudaLane::reserve_output(Batch& batch, std::size_t i, const Shape& shape, std::size_t bytes) {
  const TensorSpec& spec = version_.signature().outputs[i];
  if (const std::byte* there = batch.device_destination(i, bytes, device_.ordinal()); there != nullptr) {
    batch.set_output(i, spec.dtype, shape, there, bytes);
    return Status::ok();
  }
  std::byte* memory = batch.output_memory(i, bytes);
  if (memory != nullptr && memory != batch.outputs()[i].own) {
    if (pinned_ranges().holds(memory, bytes)) {
      device_.counts().in_place_copies.fetch_add(1, std::memory_order_relaxed);
    } else {
      memory = batch.own_output_memory(i, bytes);
    }
  }
  if (memory == nullptr) {
    return {Code::kResourceExhausted,
            "no memory for " + std::to_string(bytes) + " bytes of output '" + spec.name + "'"};
  }
  batch.set_output(i, spec.dtype, shape, memory, bytes);
  return Status::ok();
}

// Of the real rows; only of outputs whose size the rows fix.
Status CudaLane::reserve_outputs(Batch& batch) {
  for (std::size_t i = 0; i < version_.outputs().size(); ++i) {
    const TensorBytes& size = version_.outputs()[i];
    Shape shape = version_.signature().outputs[i].shape;
    if (!size.fixed) {
      return internal_error("outputs[\"" + version_.signature().outputs[i].name +
                            "\"]: the model did not say where it is");
    }
    const bool batches = version_.signature().batches();
    if (batches) shape[0] = batch.rows();
    FS_RETURN_IF_ERROR(
        reserve_output(batch, i, shape, rows_bytes(batches ? batch.rows() : 1, size.row_bytes)));
  }
  return Status::ok();
}

// To where reserve_output said; memory of the GPU that a client shares is one of the places.
Status CudaLane::copy_output(Batch& batch, std::size_t i, DeviceAddress from) {
  const BatchTensor& tensor = batch.outputs()[i];
  auto* const to = const_cast<std::byte*>(tensor.data);
  if (to == nullptr || to != batch.device_destination(i, tensor.bytes, device_.ordinal()))
    return to_host(to, from, tensor.bytes);
  return from_device(reinterpret_cast<CUdeviceptr>(to),
                     {reinterpret_cast<const std::byte*>(from), tensor.bytes});
}

Status CudaLane::copy_out(Batch& batch, const std::vector<DeviceAddress>& outputs) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    FS_RETURN_IF_ERROR(copy_output(batch, i, outputs[i]));
  }
  return Status::ok();
}

// Of a run without a graph, which says itself what came out.
Status CudaLane::copy_out(Batch& batch, const std::vector<DeviceTensor>& outputs) {
  const std::size_t wanted = version_.signature().outputs.size();
  if (outputs.size() != wanted) {
    return internal_error("the model gave " + std::to_string(outputs.size()) + " outputs, want " +
                          std::to_string(wanted));
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    FS_RETURN_IF_ERROR(check_output(batch, i, outputs[i]));
    Shape shape = outputs[i].shape;
    if (version_.signature().batches()) shape[0] = batch.rows();
    const DType dtype = version_.signature().outputs[i].dtype;
    FS_RETURN_IF_ERROR(reserve_output(batch, i, shape, shape.byte_count(dtype).value_or(0)));
    FS_RETURN_IF_ERROR(copy_output(batch, i, outputs[i].address));
  }
  return Status::ok();
}

Status CudaLane::check_output(const Batch& batch, std::size_t i, const DeviceTensor& tensor) const {
  const TensorSpec& spec = version_.signature().outputs[i];
  const std::string field = "outputs[\"" + spec.name + "\"]";
  const bool batches = version_.signature().batches();
  bool fits = tensor.shape.rank() == spec.shape.rank();
  for (std::size_t d = batches ? 1 : 0; fits && d < spec.shape.rank(); ++d)
    fits = spec.shape[d] < 0 || spec.shape[d] == tensor.shape[d];
  if (!fits)
    return internal_error(field + ".shape: got " + tensor.shape.str() + ", want " + spec.shape.str());
  if (batches && tensor.shape[0] != batch.run_rows() && tensor.shape[0] != batch.rows()) {
    return internal_error(field + ".shape: got " + tensor.shape.str() + ", want " +
                          std::to_string(batch.run_rows()) + " rows");
  }
  const auto bytes = tensor.shape.byte_count(spec.dtype);
  if (bytes && *bytes == tensor.bytes && (tensor.address != 0 || *bytes == 0)) return Status::ok();
  return internal_error(field + ": got " + std::to_string(tensor.bytes) + " bytes for shape " +
                        tensor.shape.str());
}

}  // namespace fastserve
