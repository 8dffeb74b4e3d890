// The part of a loaded version that requests, batches and encoders need: who it is, what it accepts, and the count of
// handles on it. model/version.h derives from it.
// Thread: immutable after load but for the count.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/cache_line.h"
#include "base/histogram.h"
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
  // Output -> names of its classes, by index: what the classification extension adds to an answer.
  std::map<std::string, std::vector<std::string>> labels;

  // Hand-over of a response until its bytes were offered to the socket; written by front ends. Shared, because they count after
  // the request was recycled, when the version may be gone.
  const std::shared_ptr<DurationHistogram> encode_times = std::make_shared<DurationHistogram>();

  // A handle: the right to use the version. A drain waits until the count is back to zero, then destroys on the loader thread.
  // The word also counts requests that are begun and not yet answered, so that a drain reads one consistent number.
  //
  // try_*: for whoever found the version in a published table; false once it drains (look into the new table). seq_cst
  // partners with begin_drain: either the drain sees the handle or the taker sees the drain.
  bool try_retain() { return try_add(kHandle); }
  // For whoever holds a handle already.
  void retain() { word_.fetch_add(kHandle, std::memory_order_relaxed); }
  void release() { subtract(kHandle); }

  // A request's handle, and one answer owed. Given back by abandon (it was refused), or by answered and release.
  bool try_begin_request() { return try_add(kHandle + kUnanswered); }
  void abandon_request() { subtract(kHandle + kUnanswered); }
  // So many answers more are owed, by whoever owes one already: the parts of one request.
  void begin_parts(std::int64_t more) { word_.fetch_add(more * kUnanswered, std::memory_order_relaxed); }
  // Final responses of `requests` requests were delivered.
  void answered(std::int64_t requests) { subtract(requests * kUnanswered); }
  // The same, and gives the caller's own handles back.
  void answered_and_release(std::int64_t requests, std::int64_t handles) {
    subtract(requests * kUnanswered + handles * kHandle);
  }

  void begin_drain() { word_.fetch_or(kDraining, std::memory_order_seq_cst); }
  bool draining() const { return (word_.load(std::memory_order_seq_cst) & kDraining) != 0; }
  std::int64_t handles() const { return word_.load(std::memory_order_seq_cst) & (kUnanswered - 1); }
  std::int64_t unanswered() const {
    return (word_.load(std::memory_order_seq_cst) & (kDraining - 1)) / kUnanswered;
  }

  // An owner cancelled a request that may still wait: it is to be answered soon, not when an instance is free.
  virtual void notice_cancel() {}

  // Rung when a draining version's counts fall. One for the process, so that it outlives every version.
  static inline Doorbell idle;

 protected:
  ~ServedVersion() = default;

 private:
  static constexpr std::int64_t kHandle = 1;                          // bits 0..30
  static constexpr std::int64_t kUnanswered = std::int64_t{1} << 31;  // bits 31..61
  static constexpr std::int64_t kDraining = std::int64_t{1} << 62;

  // A compare-and-swap and not an addition that is taken back: after begin_drain the counts only fall.
  bool try_add(std::int64_t what) {
    std::int64_t word = word_.load(std::memory_order_seq_cst);
    do {
      if ((word & kDraining) != 0) return false;
    } while (!word_.compare_exchange_weak(word, word + what, std::memory_order_seq_cst));
    return true;
  }
  // Touches nothing of the version after the subtraction: the drainer may have destroyed it by then.
  void subtract(std::int64_t what) {
    if ((word_.fetch_sub(what, std::memory_order_seq_cst) & kDraining) != 0) idle.ring_all();
  }

  alignas(kCacheLine) std::atomic<std::int64_t> word_{0};
};

}  // namespace fastserve
