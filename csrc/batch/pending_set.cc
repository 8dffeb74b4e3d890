#include "batch/pending_set.h"

#include <algorithm>
#include <bit>

namespace fastserve {
namespace {

// A list of removed requests in the order of removal.
struct Taken {
  Request* first = nullptr;
  Request* last = nullptr;
  void append(Request* request) {
    request->next_in_intake = nullptr;
    (last == nullptr ? first : last->next_in_intake) = request;
    last = request;
  }
};

}  // namespace

PendingSet::PendingSet(std::uint32_t default_priority)
    : default_priority_(default_priority == 0 ? kMiddlePriority
                                              : std::min(default_priority, kPriorityLevels)) {}

void PendingSet::add(Request& request) {
  const std::uint32_t priority =
      request.priority == 0 ? default_priority_ : std::min(request.priority, kPriorityLevels);
  Waiting& place = request.waiting;
  place.level = priority - 1;
  Level& level = levels_[place.level];
  place.previous = level.tail;
  place.next = nullptr;
  (level.tail == nullptr ? level.head : level.tail->waiting.next) = &request;
  level.tail = &request;
  filled_ |= 1U << place.level;
  ++size_;
  place.heap_at = Waiting::kNotInHeap;
  if (request.expires != kNever) heap_push(request);
}

void PendingSet::remove(Request& request) {
  Waiting& place = request.waiting;
  Level& level = levels_[place.level];
  (place.previous == nullptr ? level.head : place.previous->waiting.next) = place.next;
  (place.next == nullptr ? level.tail : place.next->waiting.previous) = place.previous;
  if (level.head == nullptr) filled_ &= ~(1U << place.level);
  --size_;
  if (place.heap_at != Waiting::kNotInHeap) heap_remove(request);
}

Request* PendingSet::first_from(std::size_t level) const {
  const std::uint32_t filled = level >= kPriorityLevels ? 0 : filled_ >> level << level;
  return filled == 0 ? nullptr : levels_[static_cast<std::size_t>(std::countr_zero(filled))].head;
}

Request* PendingSet::first() const { return first_from(0); }

Request* PendingSet::next(const Request& request) const {
  return request.waiting.next != nullptr ? request.waiting.next : first_from(request.waiting.level + 1);
}

Nanos PendingSet::oldest_enqueued() const {
  Nanos oldest = kNever;
  for (std::uint32_t rest = filled_; rest != 0; rest &= rest - 1) {
    oldest = std::min(oldest, levels_[static_cast<std::size_t>(std::countr_zero(rest))].head->times.enqueued);
  }
  return oldest;
}

Request* PendingSet::take_expired(Nanos now) {
  Taken taken;
  while (earliest_expiry() <= now && !by_expiry_.empty()) {
    Request* request = by_expiry_.front();
    remove(*request);
    taken.append(request);
  }
  return taken.first;
}

Request* PendingSet::take_cancelled() {
  Taken taken;
  for (Request* request = first(); request != nullptr;) {
    Request* following = next(*request);
    if (request->cancelled.load(std::memory_order_acquire)) {
      remove(*request);
      taken.append(request);
    }
    request = following;
  }
  return taken.first;
}

Request* PendingSet::take_all() {
  Taken taken;
  while (Request* request = first()) {
    remove(*request);
    taken.append(request);
  }
  return taken.first;
}

void PendingSet::heap_place(std::size_t at, Request* request) {
  by_expiry_[at] = request;
  request->waiting.heap_at = at;
}

void PendingSet::sift_up(std::size_t at) {
  Request* request = by_expiry_[at];
  while (at > 0 && request->expires < by_expiry_[(at - 1) / 2]->expires) {
    heap_place(at, by_expiry_[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  heap_place(at, request);
}

void PendingSet::sift_down(std::size_t at) {
  Request* request = by_expiry_[at];
  for (;;) {
    std::size_t child = 2 * at + 1;
    if (child >= by_expiry_.size()) break;
    if (child + 1 < by_expiry_.size() && by_expiry_[child + 1]->expires < by_expiry_[child]->expires) ++child;
    if (request->expires <= by_expiry_[child]->expires) break;
    heap_place(at, by_expiry_[child]);
    at = child;
  }
  heap_place(at, request);
}

void PendingSet::heap_push(Request& request) {
  by_expiry_.push_back(&request);
  sift_up(by_expiry_.size() - 1);
}

void PendingSet::heap_remove(Request& request) {
  const std::size_t at = request.waiting.heap_at;
  request.waiting.heap_at = Waiting::kNotInHeap;
  Request* last = by_expiry_.back();
  by_expiry_.pop_back();
  if (last == &request) return;
  heap_place(at, last);
  sift_up(at);
  sift_down(last->waiting.heap_at);
}

}  // namespace fastserve
