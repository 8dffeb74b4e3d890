#include "sched/order_gate.h"

#include <utility>

namespace fastserve {

void OrderGate::pass(std::uint64_t order, BatchRef batch, bool keeps_place) {
  std::unique_lock lock(mutex_);
  const auto at = static_cast<std::size_t>(order - next_);
  if (places_.size() <= at) places_.resize(at + 1);
  places_[at].batch = std::move(batch);
  places_[at].kept_place = keeps_place;
  waiting_.fetch_add(1, std::memory_order_relaxed);
  if (sending_) return;
  sending_ = true;
  while (!places_.empty() && places_.front().batch.get() != nullptr) {
    Place ready = std::move(places_.front());
    places_.pop_front();
    ++next_;
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    lock.unlock();
    send_(std::move(ready.batch), ready.kept_place);
    lock.lock();
  }
  sending_ = false;
}

}  // namespace fastserve
