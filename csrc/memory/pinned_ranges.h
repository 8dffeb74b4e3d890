// Host memory that is page-locked for the GPUs, known by address: slabs of the pinned arena and regions of clients.
//
// A copy between host and device is asynchronous only when the driver knows its host pages. Page-locking takes milliseconds, so
// it is done once for a range that lives long, never for a request.
//   Client regions are locked when they are registered and a GPU is in use. Those that were there before wait, and are locked when
//   the first GPU comes up (start()), on that loader's thread. A lock that the driver or the budget refuses is no failure: the
//   region works, copies of it are staged; it is counted.
// csrc/memory knows no CUDA: the locking itself is handed in (PageLock, backend/cuda_page_lock.h).
// Thread: any. holds() is on the path of batches: one atomic look while there is none, else a shared lock and a binary search.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "base/status.h"

namespace fastserve {

// Locks pages of this process for all GPUs. Any thread; may take milliseconds.
class PageLock {
 public:
  virtual ~PageLock() = default;
  virtual Status lock(std::byte* begin,
                      std::size_t bytes) = 0;  // whole pages, mapped for reading and writing
  virtual void unlock(std::byte* begin) = 0;   // as locked; nobody uses it any more
};

struct PinnedRangeTotals {
  bool active = false;        // a GPU is in use
  std::size_t ranges = 0;     // of clients, locked
  std::uint64_t bytes = 0;    // of these
  std::size_t waiting = 0;    // not locked, because no GPU is in use yet
  std::uint64_t refused = 0;  // by the driver or the budget, for good
  std::uint64_t budget = 0;
};

class PinnedRange;

class PinnedRanges {
 public:
  static constexpr std::uint64_t kDefaultClientBytes = std::uint64_t{4} << 30;

  PinnedRanges() = default;
  PinnedRanges(const PinnedRanges&) = delete;
  PinnedRanges& operator=(const PinnedRanges&) = delete;
  ~PinnedRanges() = default;  // no range is left

  // A GPU is in use: from here on ranges are locked with `lock`, which lives for ever; waiting ones now. A second call with the
  // same lock does nothing.
  void start(PageLock& lock);
  bool active() const { return lock_.load(std::memory_order_acquire) != nullptr; }
  // Most bytes of clients that may be locked at once; 0: none. Before there are ranges.
  void limit_clients(std::uint64_t bytes) { budget_.store(bytes, std::memory_order_relaxed); }

  // Whether all of [at, at + bytes) is in one locked range. False for no bytes.
  bool holds(const void* at, std::size_t bytes) const;

  // For slabs, which have a budget of their own: locks now or says why not. FAILED_PRECONDITION without a GPU.
  Status lock_slab(std::byte* begin, std::size_t bytes);
  void unlock_slab(std::byte* begin);

  PinnedRangeTotals totals() const;

 private:
  friend class PinnedRange;
  enum class State : std::uint8_t { kWaiting, kLocking, kLocked, kRefused };
  struct Entry {
    std::size_t bytes = 0;
    State state = State::kWaiting;
    bool slab = false;
  };

  void add(std::byte* begin, std::size_t bytes);
  void remove(std::byte* begin);
  void lock_entry(std::byte* begin, std::unique_lock<std::shared_mutex>& held);

  std::atomic<PageLock*> lock_{nullptr};  // release in start, acquire by readers
  std::atomic<std::uint64_t> budget_{kDefaultClientBytes};
  std::atomic<std::size_t> locked_{
      0};                            // entries that are locked; release when one becomes so, acquire in holds
  mutable std::shared_mutex mutex_;  // guards what follows; not held while the driver works
  std::condition_variable_any settled_;  // an entry is not kLocking any more
  std::map<std::byte*, Entry> entries_;  // by first byte; they do not overlap
  std::uint64_t client_bytes_ = 0;       // locked or being locked
  std::uint64_t refused_ = 0;
};

// One client's region: locked while this lives, where that is possible. Make it after the mapping, destroy it before: the region is
// reference counted, so that is after its last request.
class PinnedRange {
 public:
  PinnedRange() = default;
  PinnedRange(PinnedRanges& ranges, std::byte* begin,
              std::size_t bytes);  // whole pages; throws std::bad_alloc
  ~PinnedRange();
  PinnedRange(PinnedRange&& other) noexcept;
  PinnedRange& operator=(PinnedRange&& other) noexcept;
  PinnedRange(const PinnedRange&) = delete;
  PinnedRange& operator=(const PinnedRange&) = delete;

 private:
  PinnedRanges* ranges_ = nullptr;
  std::byte* begin_ = nullptr;
};

// The process's, as page-locking is; never destroyed.
PinnedRanges& pinned_ranges();

}  // namespace fastserve
