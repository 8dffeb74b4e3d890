#include "backend/cuda_lanes.h"

#include <bit>

#include "backend/cuda_completer.h"
#include "backend/cuda_fault.h"
#include "backend/cuda_waiter.h"

namespace fastserve {

CudaLanes::CudaLanes(std::shared_ptr<CudaVersion> version) : version_(std::move(version)) {}

Result<std::shared_ptr<CudaLanes>> CudaLanes::make(std::shared_ptr<CudaVersion> version, int first, int count,
                                                   const std::function<void(const std::string&)>& told) {
  const auto made = std::shared_ptr<CudaLanes>(new CudaLanes(std::move(version)));
  const CudaVersion& of = made->version();
  for (int i = 0; i < count; ++i) {
    made->lanes_.push_back(std::make_unique<CudaLane>(*made, of, first + i, i));
    CudaLane& lane = *made->lanes_.back();
    FS_RETURN_IF_ERROR(lane.make());
    // The largest first: what libraries allocate lazily is then large enough for all.
    const auto& sizes = of.buckets();
    for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
      const std::int64_t rows = *size;
      FS_RETURN_IF_ERROR(lane.prepare(rows));
      made->all_captured_ = made->all_captured_ && lane.captured(rows);
      told("lane " + std::to_string(first + i) + ", " + std::to_string(rows) +
           (rows == 1 ? " row" : " rows"));
    }
    made->free_.fetch_or(1U << i, std::memory_order_relaxed);
  }
  made->all_captured_ = made->all_captured_ && !of.buckets().empty();
  if (of.settings().completion == CudaSettings::Completion::kBlocking) {
    made->waiter_ = std::make_unique<CudaWaiter>(of);
    of.device().completer().watch(*made);
  }
  return made;
}

CudaLanes::~CudaLanes() {
  if (waiter_ != nullptr) version_->device().completer().forget(*this);
  waiter_.reset();
  lanes_.clear();
}

CudaLane* CudaLanes::take() {
  const std::uint32_t free = free_.load(std::memory_order_acquire);
  if (free == 0) return nullptr;
  const int lowest = std::countr_zero(free);
  free_.fetch_and(~(1U << lowest), std::memory_order_acq_rel);  // only one taker
  return lanes_[static_cast<std::size_t>(lowest)].get();
}

void CudaLanes::give_back(const CudaLane& lane) {
  free_.fetch_or(1U << lane.place(), std::memory_order_acq_rel);
}

void CudaLanes::abandon(std::shared_ptr<CudaLanes> lanes) {
  if (lanes->waiter_ != nullptr) lanes->waiter_->abandon();
  keep_for_ever(std::move(lanes));
}

void CudaLanes::add(CudaLane& lane) {
  if (waiter_ != nullptr) return waiter_->add(lane);
  version_->device().completer().add(lane);
}

}  // namespace fastserve
