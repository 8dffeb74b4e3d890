// The part of a loaded version that requests, batches and encoders need: who it is, what it accepts, and the count of
// handles on it. model/version.h derives from it.
// Thread: immutable after load but for the count.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "queue/doorbell.h"
#include "tensor/signature.h"

namespace fastserve {

class ServedVersion {
 public:
  ServedVersion(std::string model_name, std::int64_t number_in)
      : name(std::move(model_name)), number(number_in), number_text(std::to_string(number_in)) {}
  ServedVersion(const ServedVersion&) = delete;
  ServedVersion& operator=(const ServedVersion&) = delete;

  const std::string name;
  const std::int64_t number;
  const std::string number_text;  // "1": what responses carry
  Signature signature;

  // A handle: the right to use the version. A drain waits until the count is back to zero, then destroys on the loader thread.
  // try_retain is for whoever found the version in a published table: false once it drains (look into the new table).
  // seq_cst partners with begin_drain: either the drain sees the handle or the taker sees the drain.
  bool try_retain() {
    if ((handles_.fetch_add(1, std::memory_order_seq_cst) & kDraining) == 0) return true;
    release();
    return false;
  }
  // For whoever holds a handle already.
  void retain() { handles_.fetch_add(1, std::memory_order_relaxed); }
  // Touches nothing of the version after the decrement: the drainer may have destroyed it by then.
  void release() {
    if (handles_.fetch_sub(1, std::memory_order_seq_cst) == (kDraining | 1)) idle.ring_all();
  }
  void begin_drain() { handles_.fetch_or(kDraining, std::memory_order_seq_cst); }
  bool draining() const { return (handles_.load(std::memory_order_seq_cst) & kDraining) != 0; }
  std::int64_t handles() const { return handles_.load(std::memory_order_seq_cst) & ~kDraining; }

  // An owner cancelled a request that may still wait: it is to be answered soon, not when an instance is free.
  virtual void notice_cancel() {}

  // Rung when a draining version's count reaches zero. One for the process, so that it outlives every version.
  static inline Doorbell idle;

 protected:
  ~ServedVersion() = default;

 private:
  static constexpr std::int64_t kDraining = std::int64_t{1} << 62;
  std::atomic<std::int64_t> handles_{0};
};

}  // namespace fastserve
