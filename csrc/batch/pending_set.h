// The waiting requests of one model, ordered: by priority, within one by arrival; and a heap by expiry. Nothing here
// allocates in steady state: the lists run through the requests, the heap keeps its capacity.
// Thread: whoever holds the model's pull token. Borrows the requests. Pure: time comes in as an argument.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "batch/request.h"

namespace fastserve {

// Levels 1 (first) to 16 (last); a request's priority beyond the last counts as the last. 0 takes the default.
inline constexpr std::uint32_t kPriorityLevels = 16;
inline constexpr std::uint32_t kMiddlePriority = kPriorityLevels / 2;

class PendingSet {
 public:
  explicit PendingSet(std::uint32_t default_priority = 0);  // 0 = the middle level

  void add(Request& request);
  void remove(Request& request);

  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  // The order in which requests are served: first(), then next() of each. nullptr at the end.
  Request* first() const;
  Request* next(const Request& request) const;
  Nanos oldest_enqueued() const;  // kNever when empty
  Nanos earliest_expiry() const { return by_expiry_.empty() ? kNever : by_expiry_.front()->expires; }

  // Removes what expired (expires <= now) or was cancelled; oldest first, linked by next_in_intake.
  Request* take_expired(Nanos now);
  Request* take_cancelled();
  Request* take_all();

 private:
  struct Level {
    Request* head = nullptr;
    Request* tail = nullptr;
  };
  Request* first_from(std::size_t level) const;
  void heap_push(Request& request);
  void heap_remove(Request& request);
  void heap_place(std::size_t at, Request* request);
  void sift_up(std::size_t at);
  void sift_down(std::size_t at);

  std::array<Level, kPriorityLevels> levels_{};
  std::uint32_t filled_ = 0;  // bit i: levels_[i] has requests
  std::uint32_t default_priority_;
  std::size_t size_ = 0;
  std::vector<Request*> by_expiry_;  // binary min-heap; only requests that can expire
};

}  // namespace fastserve
