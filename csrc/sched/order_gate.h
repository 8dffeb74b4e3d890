// preserve_ordering: batches that finish out of order on several instances leave in the order in which they left the queue.
//
// A batch that is late holds the others back, by definition; that it failed makes no difference. What was dropped in the queue
// (expired, cancelled, refused) is answered at once and has no place in the order: it never left it as work.
// Thread: pass() on any; `send` on whichever thread finished the batch that the others waited for, one batch at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>

#include "batch/request.h"

namespace fastserve {

class OrderGate {
 public:
  // A batch whose turn came. `kept_place`: as it was passed in.
  using Send = void (*)(BatchRef batch, bool kept_place);
  explicit OrderGate(Send send) : send_(send) {}

  // Finished batches that may wait here while their instances go on. Beyond that a batch keeps its place in its instance's
  // depth until it is sent, so that one slow batch does not let answers pile up without bound.
  static constexpr std::size_t kMostWaiting = 64;
  bool crowded() const { return waiting_.load(std::memory_order_relaxed) >= kMostWaiting; }
  std::size_t waiting() const { return waiting_.load(std::memory_order_relaxed); }

  // `order`: Batch::order; each number exactly once. The caller holds something that keeps the gate alive meanwhile: the batch
  // may be sent by another thread before this returns, and batches of others from here.
  void pass(std::uint64_t order, BatchRef batch, bool keeps_place);

 private:
  struct Place {
    BatchRef batch;  // empty: not finished yet
    bool kept_place = false;
  };

  const Send send_;
  std::mutex mutex_;          // guards what follows; not held while sending
  std::deque<Place> places_;  // of next_, next_ + 1, ...
  std::uint64_t next_ = 0;
  bool sending_ = false;                 // somebody does, and looks again before he stops
  std::atomic<std::size_t> waiting_{0};  // relaxed: an estimate for crowded()
};

}  // namespace fastserve
