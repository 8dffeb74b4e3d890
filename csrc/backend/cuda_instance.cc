#include "backend/cuda_instance.h"

#include <algorithm>

#include "memory/device_memory.h"
#include "memory/pinned_ranges.h"

namespace fastserve {
namespace {

// A copy that is told to the driver costs about as much as copying this by hand, and gathering pieces saves copies.
constexpr std::size_t kPieceWorthACopy = std::size_t{32} << 10;
constexpr std::size_t kMostPieces = 8;

}  // namespace

// On a lost device nothing may be freed, and a waiter may sleep in the driver for ever.
CudaInstance::~CudaInstance() {
  if (lanes_->version().device().lost()) CudaLanes::abandon(lanes_);
}

void CudaInstance::start(Batch& batch) {
  CudaDevice& device = lanes_->version().device();
  if (device.lost()) return batch.finish(device.lost_status());
  CudaLane* const lane = lanes_->take();
  if (lane == nullptr) return batch.finish(internal_error("more batches at once than lanes"));
  const CudaDevice::Current current(device);
  lane->depart(batch);
}

bool CudaInstance::reads_in_place(const Batch& batch) const {
  const PinnedRanges& ranges = pinned_ranges();
  if (!ranges.active() || batch.slots().size() > kMostPieces) return false;
  std::size_t bytes = 0;
  std::size_t pieces = 0;
  for (const Slot& slot : batch.slots()) {
    for (const TensorView& view : slot.request->inputs) {
      if (view.data.empty()) continue;
      const bool here = view.on_device != nullptr ? view.on_device->device() == device()
                                                  : ranges.holds(view.data.data(), view.data.size());
      if (!here) return false;
      bytes += view.data.size();
      ++pieces;
    }
  }
  return batch.slots().size() == 1 || bytes >= pieces * kPieceWorthACopy;
}

}  // namespace fastserve
