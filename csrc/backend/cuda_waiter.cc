#include "backend/cuda_waiter.h"

#include <pthread.h>

#include "backend/cuda_lane.h"

namespace fastserve {

CudaWaiter::CudaWaiter(const CudaVersion& version) : version_(version), thread_([this] { loop(); }) {}

CudaWaiter::~CudaWaiter() {
  stopping_.store(true, std::memory_order_seq_cst);
  bell_.ring_all();
  thread_.join();
}

void CudaWaiter::add(CudaLane& lane) {
  if (added_.push(&lane)) bell_.ring();
}

void CudaWaiter::loop() {
  ::pthread_setname_np(::pthread_self(), "gpu-wait");
  const CudaDevice::Current current(version_.device());
  for (;;) {
    const std::uint32_t ticket = bell_.ticket();
    CudaLane* lane = added_.take_all();
    if (lane == nullptr) {
      if (stopping_.load(std::memory_order_seq_cst)) return;
      bell_.wait(ticket, kNever);
      continue;
    }
    while (lane != nullptr) {
      CudaLane* const next = lane->next_in_intake;  // a landed lane may be on its way again
      if (!land(*lane)) return;
      lane = next;
    }
  }
}

// False: the device is lost; what is left is the completer's.
bool CudaWaiter::land(CudaLane& lane) {
  CudaDevice& device = version_.device();
  const CUresult result = lane.wait();
  if (device.lost()) return false;
  // Whoever wins the claim may read the batch: should the device be lost just now, the completer lands its lanes, this one too.
  if (!lane.claim_landing()) return true;
  if (result == CUDA_SUCCESS) {
    lane.land();
    return true;
  }
  device.lose(to_status(result, "cuEventSynchronize"), lane.describe());
  lane.land_lost();
  return false;
}

}  // namespace fastserve
