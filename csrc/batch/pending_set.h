// The waiting requests of one model, ordered: by level, within one by arrival; and a heap by expiry. A request whose time in
// the queue is over while its level's policy says DELAY stays: behind everything of its level that has not timed out.
// Nothing here allocates in steady state: the lists run through the requests, the heap keeps its capacity.
// Thread: whoever holds the model's pull token. Borrows the requests. Pure: time comes in as an argument.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "batch/queue_rules.h"
#include "batch/request.h"

namespace fastserve {

class PendingSet {
 public:
  explicit PendingSet(const QueueRules& rules) : rules_(rules) {}  // borrowed

  void add(Request& request);
  void remove(Request& request);

  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  // The order in which requests are served: first(), then next() of each. nullptr at the end.
  Request* first() const;
  Request* next(const Request& request) const;
  Request* oldest() const;        // that waited longest, whatever its level; nullptr when empty
  Nanos oldest_enqueued() const;  // kNever when empty
  static std::size_t level_of(const Request& request) { return request.waiting.list / 2; }
  Nanos earliest_expiry() const { return by_expiry_.empty() ? kNever : by_expiry_.front()->expires; }

  // Removes what expired (expires <= now), earliest first, or was cancelled; linked by next_in_intake. What its level only
  // delays stays, with its deadline as the next expiry.
  Request* take_expired(Nanos now);
  Request* take_cancelled();
  Request* take_all();

 private:
  struct List {
    Request* head = nullptr;
    Request* tail = nullptr;
  };
  void append(Request& request, std::size_t list);
  void unlink(Request& request);
  Request* first_from(std::size_t list) const;
  void heap_push(Request& request);
  void heap_remove(Request& request);
  void heap_place(std::size_t at, Request* request);
  void sift_up(std::size_t at);
  void sift_down(std::size_t at);

  const QueueRules& rules_;
  // Of level i: list 2 i what is in time, list 2 i + 1 what was delayed; each by the order in which it came there.
  static constexpr std::size_t kLists = std::size_t{2} * kPriorityLevels;
  std::array<List, kLists> lists_{};
  std::uint32_t filled_ = 0;  // bit i: lists_[i] has requests
  std::size_t size_ = 0;
  std::vector<Request*> by_expiry_;  // binary min-heap; only requests that can expire
};

}  // namespace fastserve
