// The lanes of one instance, and which of them are free: the back-pressure. No lane free, no batch starts, and requests gather.
// Thread: make on a loader thread; take by whoever starts batches, one at a time; give_back on any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/cuda_lane.h"
#include "backend/cuda_version.h"

namespace fastserve {

class CudaWaiter;  // backend/cuda_waiter.h

class CudaLanes {
 public:
  // Lanes first .. first + count - 1 of the version, captured; `told` hears of each size.
  static Result<std::shared_ptr<CudaLanes>> make(std::shared_ptr<CudaVersion> version, int first, int count,
                                                 const std::function<void(const std::string&)>& told);
  ~CudaLanes();  // all free; the device lives
  CudaLanes(const CudaLanes&) = delete;
  CudaLanes& operator=(const CudaLanes&) = delete;

  CudaVersion& version() const { return *version_; }
  int count() const { return static_cast<int>(lanes_.size()); }
  bool all_captured() const { return all_captured_; }
  const std::vector<std::unique_ptr<CudaLane>>& lanes() const { return lanes_; }

  CudaLane* take();                      // nullptr: none is free
  void give_back(const CudaLane& lane);  // it may be taken at once
  void add(CudaLane& lane);              // flying: to whoever watches its event
  // The device is lost: its memory, and a thread that may sleep in the driver, stay for ever.
  static void abandon(std::shared_ptr<CudaLanes> lanes);

 private:
  explicit CudaLanes(std::shared_ptr<CudaVersion> version);

  const std::shared_ptr<CudaVersion> version_;
  std::vector<std::unique_ptr<CudaLane>> lanes_;
  bool all_captured_ = true;
  // Bit i: lane i is free. Taken lowest first, so that with little load the same buffers and graphs stay warm. acq_rel: the taker
  // sees what the lander left.
  std::atomic<std::uint32_t> free_{0};
  std::unique_ptr<CudaWaiter> waiter_;  // nullptr: polled
};

}  // namespace fastserve
