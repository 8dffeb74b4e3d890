// The lock-free queue: many producers, one taker at a time, no allocation, no capacity of its own (admission counts
// elsewhere). A linked stack that producers push onto with one compare-and-swap and that the taker empties with one
// exchange; the taker reverses it, so the order is the order of the pushes. ABA cannot occur: nobody pops one node.
// (R. K. Treiber, "Systems Programming: Coping with Parallelism", IBM RJ 5118, 1986, with take-all in place of pop.)
//
// T derives from IntakeNode<T>. Thread: push from any thread; take_all from any thread, the taken list belongs to the caller.
#pragma once

#include <atomic>

#include "base/cache_line.h"

namespace fastserve {

template <class T>
struct IntakeNode {
  T* next_in_intake = nullptr;
};

template <class T>
class Intake {
 public:
  // True when the queue was empty: the one pusher who gets `true` wakes the taker, so that a burst costs one wake.
  // seq_cst partners with take_all and with the sleeper count of a Doorbell (push, then look for sleepers).
  bool push(T* node) { return push_chain(node, node); }

  // The same for several at once: linked from `newest` to `oldest` by next_in_intake; the chain enters as one burst.
  bool push_chain(T* newest, T* oldest) {
    T* head = head_.load(std::memory_order_relaxed);
    do {
      oldest->next_in_intake = head;
    } while (
        !head_.compare_exchange_weak(head, newest, std::memory_order_seq_cst, std::memory_order_relaxed));
    return head == nullptr;
  }

  // Everything pushed so far, oldest first, linked by next_in_intake; nullptr when there is nothing.
  T* take_all() {
    if (head_.load(std::memory_order_seq_cst) == nullptr) return nullptr;
    T* newest_first = head_.exchange(nullptr, std::memory_order_seq_cst);
    T* oldest_first = nullptr;
    while (newest_first != nullptr) {
      T* next = newest_first->next_in_intake;
      newest_first->next_in_intake = oldest_first;
      oldest_first = newest_first;
      newest_first = next;
    }
    return oldest_first;
  }

  bool empty() const { return head_.load(std::memory_order_seq_cst) == nullptr; }

 private:
  alignas(kCacheLine) std::atomic<T*> head_{nullptr};
};

}  // namespace fastserve
