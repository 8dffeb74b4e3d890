// A ring of fixed cells in memory that two processes share: one producer, one consumer, neither trusts the other. Each keeps its
// own cursor to itself and reads the other's from the shared memory, where only the difference of the two can be wrong: more
// cells than there are means that the other side is broken or hostile (corrupt()), and nothing else is believed. What stands
// in a cell must be copied out before it is checked.
//
// Park and wake. The consumer says how it sleeps and looks once more; the producer publishes and takes that word away. Both
// are seq_cst read-modify-writes of the same word, so one of them sees the other: either the consumer sees the cell or the
// producer sees the sleeper. No eventfd: its flags belong to both processes, so a peer could make the other side's write
// block. A futex in shared memory and a datagram that is dropped when there is no room cannot.
//
// Layout: RingHead, then `cells` cells of `cell_bytes`. Both are powers of two; the memory is 64-byte aligned and zero at first.
// Thread: one on each side.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cache_line.h"

namespace fastserve {

// How a consumer sleeps, and so how it is to be woken.
enum class Asleep : std::uint32_t {
  kNo = 0,
  kFutex = 1,   // in futex_wait on RingHead::asleep
  kSocket = 2,  // in a poller that watches its socket
};

struct RingHead {
  alignas(kCacheLine) std::atomic<std::uint32_t> published;  // cells so far, modulo 2^32; the producer writes
  alignas(kCacheLine) std::atomic<std::uint32_t> consumed;   // likewise; the consumer writes
  alignas(kCacheLine) std::atomic<std::uint32_t> asleep;     // Asleep; both write
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

struct RingLayout {
  std::uint32_t cells = 0;
  std::uint32_t cell_bytes = 0;
  constexpr std::size_t bytes() const { return sizeof(RingHead) + std::size_t{cells} * cell_bytes; }
};

class RingProducer {
 public:
  RingProducer() = default;
  RingProducer(std::byte* memory, RingLayout layout)
      : head_(reinterpret_cast<RingHead*>(memory)), cells_(memory + sizeof(RingHead)), layout_(layout) {}

  // The next cell to fill; empty when the ring is full (or corrupt). Again before publish(): the same.
  std::span<std::byte> claim() {
    const std::uint32_t used = published_ - head_->consumed.load(std::memory_order_acquire);  // partner: pop
    corrupt_ = corrupt_ || used > layout_.cells;
    if (corrupt_ || used == layout_.cells) return {};
    return {cells_ + std::size_t{published_ % layout_.cells} * layout_.cell_bytes, layout_.cell_bytes};
  }
  // Free cells.
  std::uint32_t room() const {
    const std::uint32_t used = published_ - head_->consumed.load(std::memory_order_acquire);
    return used > layout_.cells ? 0 : layout_.cells - used;
  }
  void publish() { head_->published.store(++published_, std::memory_order_release); }
  // After the last publish of a burst: how the consumer sleeps, and from now on it counts as woken.
  Asleep take_sleeper() {
    return static_cast<Asleep>(head_->asleep.exchange(0, std::memory_order_seq_cst));  // partner: fall_asleep
  }
  bool corrupt() const { return corrupt_; }

 private:
  RingHead* head_ = nullptr;
  std::byte* cells_ = nullptr;
  RingLayout layout_;
  std::uint32_t published_ = 0;
  bool corrupt_ = false;
};

class RingConsumer {
 public:
  RingConsumer() = default;
  RingConsumer(std::byte* memory, RingLayout layout)
      : head_(reinterpret_cast<RingHead*>(memory)), cells_(memory + sizeof(RingHead)), layout_(layout) {}

  // The oldest cell that was not popped; empty when there is none (or the ring is corrupt).
  std::span<std::byte> front() {
    const std::uint32_t there =
        head_->published.load(std::memory_order_acquire) - consumed_;  // partner: publish
    corrupt_ = corrupt_ || there > layout_.cells;
    if (corrupt_ || there == 0) return {};
    return {cells_ + std::size_t{consumed_ % layout_.cells} * layout_.cell_bytes, layout_.cell_bytes};
  }
  void pop() { head_->consumed.store(++consumed_, std::memory_order_release); }
  // True: nothing is there and the producer knows that it must wake. False: there is something, stay awake.
  bool fall_asleep(Asleep how) {
    head_->asleep.exchange(static_cast<std::uint32_t>(how),
                           std::memory_order_seq_cst);  // partner: take_sleeper
    if (head_->published.load(std::memory_order_seq_cst) == consumed_) return true;
    wake_up();
    return false;
  }
  void wake_up() { head_->asleep.exchange(0, std::memory_order_seq_cst); }
  std::atomic<std::uint32_t>& asleep() { return head_->asleep; }  // for futex_wait
  bool corrupt() const { return corrupt_; }

 private:
  RingHead* head_ = nullptr;
  std::byte* cells_ = nullptr;
  RingLayout layout_;
  std::uint32_t consumed_ = 0;
  bool corrupt_ = false;
};

}  // namespace fastserve
