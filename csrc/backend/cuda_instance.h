// Batches on lanes: start() hands one to a free lane, and returns when the driver has taken it.
// Thread: start by one at a time (the instance's own thread is the launcher); the completer finishes.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cuda_lanes.h"

namespace fastserve {

class CudaInstance final : public BackendInstance {
 public:
  explicit CudaInstance(std::shared_ptr<CudaLanes> lanes) : lanes_(std::move(lanes)) {}
  ~CudaInstance() override;  // nothing is under way

  int depth() const override { return lanes_->count(); }
  void start(Batch& batch) override;
  bool binds_inputs() const override {
    return false;
  }  // what is not page-locked would be copied by the driver, while it waits
  int device() const override { return lanes_->version().device().ordinal(); }
  bool reads_in_place(const Batch& batch) const override;
  // Not while a model loads on the device: the driver's locks may be held for long, and an I/O thread must not wait for them.
  bool starts_promptly() const override {
    return lanes_->all_captured() && lanes_->version().device().loading.load(std::memory_order_relaxed) == 0;
  }

 private:
  const std::shared_ptr<CudaLanes> lanes_;
};

}  // namespace fastserve
