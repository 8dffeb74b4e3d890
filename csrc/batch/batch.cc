#include "batch/batch.h"

#include <algorithm>

#include "base/log.h"
#include "memory/device_memory.h"

namespace fastserve {
namespace {

bool overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  const std::less<const std::byte*> before;
  return !a.empty() && !b.empty() && before(a.data(), b.data() + b.size()) &&
         before(b.data(), a.data() + a.size());
}

}  // namespace

Batch::Batch(const Signature& signature, HostAllocator& allocator)
    : signature_(signature),
      allocator_(allocator),
      inputs_(signature.inputs.size()),
      outputs_(signature.outputs.size()) {}

Batch::~Batch() {
  for (auto* tensors : {&inputs_, &outputs_}) {
    for (BatchTensor& tensor : *tensors) {
      if (tensor.own != nullptr) allocator_.free(tensor.own, tensor.capacity);
    }
  }
}

void Batch::add(Request* request) {
  slots_.push_back({request, rows_, request->rows});
  rows_ += request->rows;
}

// Room for `bytes`; the former contents are lost. Grows by half at least, so that slowly rising sizes settle.
bool Batch::reserve(BatchTensor& tensor, std::size_t bytes) {
  if (tensor.own != nullptr && bytes <= tensor.capacity) return true;
  const std::size_t capacity = std::max(bytes, tensor.capacity + tensor.capacity / 2);
  std::byte* grown = allocator_.allocate(capacity);
  if (grown == nullptr) return false;
  if (tensor.own != nullptr) allocator_.free(tensor.own, tensor.capacity);
  tensor.own = grown;
  tensor.capacity = capacity;
  return true;
}

// Not for an answer that others may read later (a tap keeps a copy of it): its owner could change it meanwhile. Nor for strings,
// whose lengths must not change between the look and the walk. Nor onto an input, which the device may read again: the answer
// is copied there when it is done.
std::byte* Batch::destination(std::size_t output, std::size_t bytes) const {
  if (slots_.size() != 1 || run_rows_ != rows_ || signature_.outputs[output].dtype == DType::kBytes)
    return nullptr;
  const Request& request = *slots_.front().request;
  if (request.tap != nullptr || request.requested_outputs.empty()) return nullptr;
  for (std::size_t at = 0; at < request.output_order.size(); ++at) {
    if (request.output_order[at] != static_cast<int>(output)) continue;
    const std::span<std::byte> wanted = request.requested_outputs[at].destination;
    if (request.requested_outputs[at].on_device != nullptr)
      return nullptr;  // a device's address: copied there later
    const auto on_it = [&](const TensorView& input) { return overlap(input.data, wanted); };
    return wanted.size() >= bytes && std::ranges::none_of(request.inputs, on_it) ? wanted.data() : nullptr;
  }
  return nullptr;
}

std::byte* Batch::device_destination(std::size_t i, std::size_t bytes, int device) const {
  if (slots_.size() != 1 || signature_.outputs[i].dtype == DType::kBytes) return nullptr;
  const Request& request = *slots_.front().request;
  if (request.tap != nullptr) return nullptr;  // others read the answer before it is placed
  for (std::size_t at = 0; at < std::min(request.output_order.size(), request.requested_outputs.size());
       ++at) {
    const RequestedOutput& wanted = request.requested_outputs[at];
    if (request.output_order[at] != static_cast<int>(i)) continue;
    const bool here = wanted.on_device != nullptr && wanted.on_device->device() == device;
    return here && wanted.destination.size() >= bytes ? wanted.destination.data() : nullptr;
  }
  return nullptr;
}

std::byte* Batch::output_memory(std::size_t i, std::size_t bytes) {
  if (std::byte* asked_for = destination(i, bytes); asked_for != nullptr) return asked_for;
  return own_output_memory(i, bytes);
}

void Batch::set_output(std::size_t i, DType dtype, const Shape& shape, const std::byte* data,
                       std::size_t bytes) {
  BatchTensor& output = outputs_[i];
  output.dtype = dtype;
  output.shape = shape;
  output.data = data;
  output.bytes = bytes;
  output.present = true;
}

void Batch::set_slot_output(std::size_t slot, std::size_t output, DType dtype, const Shape& shape,
                            std::span<const std::byte> data) {
  slot_outputs_.resize(slots_.size() * outputs_.size());
  slot_outputs_[slot * outputs_.size() + output] = {true, {static_cast<int>(output), dtype, shape, data}};
}

void Batch::set_slot_parameters(std::size_t slot, ResponseParameters parameters) {
  slot_parameters_.resize(slots_.size());
  slot_parameters_[slot] = std::make_shared<const ResponseParameters>(std::move(parameters));
}

void Batch::fail_slot(std::size_t slot, Status status) {
  slot_outputs_.resize(slots_.size() * outputs_.size());
  slot_faults_.resize(slots_.size());
  slot_faults_[slot] = std::move(status);
}

void Batch::finish(Status status) {
  if (finished_.exchange(true, std::memory_order_acq_rel)) {
    log(LogLevel::kError, "a backend finished a batch twice: " + status.message());
    return;
  }
  on_finish(*this, std::move(status));
}

void Batch::clear() {
  slots_.clear();
  slot_outputs_.clear();
  slot_faults_.clear();
  slot_parameters_.clear();
  copied_bytes = 0;
  rows_ = run_rows_ = 0;
  for (auto* tensors : {&inputs_, &outputs_}) {
    for (BatchTensor& tensor : *tensors) {
      tensor.data = nullptr;
      tensor.bytes = 0;
      tensor.present = false;
    }
  }
  device_memory.reset();
  dequeued = run_start = run_end = 0;
  finished_.store(false, std::memory_order_relaxed);
}

bool uniform(const Signature& signature) {
  return std::ranges::all_of(signature.inputs, [&](const TensorSpec& spec) {
    const auto dims = spec.shape.dims().subspan(signature.batches() && !spec.shape.empty() ? 1 : 0);
    return !spec.optional && std::ranges::all_of(dims, [](std::int64_t d) { return d >= 0; });
  });
}

bool may_share(const Signature& signature, const Request& a, const Request& b) {
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    const int in_a = a.input_order[i];
    const int in_b = b.input_order[i];
    if ((in_a < 0) != (in_b < 0)) return false;
    if (in_a < 0) continue;
    const auto dims_a = a.inputs[static_cast<std::size_t>(in_a)].shape.dims();
    const auto dims_b = b.inputs[static_cast<std::size_t>(in_b)].shape.dims();
    if (!std::ranges::equal(dims_a.subspan(1), dims_b.subspan(1))) return false;
  }
  return true;
}

}  // namespace fastserve
