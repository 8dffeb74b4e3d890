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

void PendingSet::append(Request& request, std::size_t list) {
  Waiting& place = request.waiting;
  place.list = list;
  List& to = lists_[list];
  place.previous = to.tail;
  place.next = nullptr;
  (to.tail == nullptr ? to.head : to.tail->waiting.next) = &request;
  to.tail = &request;
  filled_ |= 1U << list;
}

void PendingSet::unlink(Request& request) {
  const Waiting& place = request.waiting;
  List& from = lists_[place.list];
  (place.previous == nullptr ? from.head : place.previous->waiting.next) = place.next;
  (place.next == nullptr ? from.tail : place.next->waiting.previous) = place.previous;
  if (from.head == nullptr) filled_ &= ~(1U << place.list);
}

void PendingSet::add(Request& request) {
  append(request, 2 * rules_.level_of(request.priority));
  ++size_;
  request.waiting.heap_at = Waiting::kNotInHeap;
  if (request.expires != kNever) heap_push(request);
}

void PendingSet::remove(Request& request) {
  unlink(request);
  --size_;
  if (request.waiting.heap_at != Waiting::kNotInHeap) heap_remove(request);
}

Request* PendingSet::first_from(std::size_t list) const {
  const std::uint32_t filled = list >= kLists ? 0 : filled_ >> list << list;
  return filled == 0 ? nullptr : lists_[static_cast<std::size_t>(std::countr_zero(filled))].head;
}

Request* PendingSet::first() const { return first_from(0); }

Request* PendingSet::next(const Request& request) const {
  return request.waiting.next != nullptr ? request.waiting.next : first_from(request.waiting.list + 1);
}

Request* PendingSet::oldest() const {
  Request* oldest = nullptr;
  for (std::uint32_t rest = filled_; rest != 0; rest &= rest - 1) {
    Request* head = lists_[static_cast<std::size_t>(std::countr_zero(rest))].head;
    if (oldest == nullptr || head->times.enqueued < oldest->times.enqueued) oldest = head;
  }
  return oldest;
}

Nanos PendingSet::oldest_enqueued() const {
  const Request* request = oldest();
  return request == nullptr ? kNever : request->times.enqueued;
}

Request* PendingSet::take_expired(Nanos now) {
  Taken taken;
  while (!by_expiry_.empty() && earliest_expiry() <= now) {
    Request* request = by_expiry_.front();
    const std::size_t level = level_of(*request);
    const bool delayed = request->deadline > now &&
                         rules_.policy_of_level(level).on_timeout == QueuePolicy::OnTimeout::kDelay &&
                         !request->cancelled.load(std::memory_order_acquire);
    if (!delayed) {
      remove(*request);
      taken.append(request);
      continue;
    }
    heap_remove(*request);
    unlink(*request);
    append(*request, 2 * level + 1);
    request->expires = request->deadline;
    if (request->expires != kNever) heap_push(*request);
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
