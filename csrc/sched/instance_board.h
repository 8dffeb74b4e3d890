// What the instances of one version let each other, their queue and `explain` know: who is idle, when the next one is free,
// what batches cost on each. Every instance writes its own line and reads the others' now and then; nobody waits.
//
// Here is also the start of their threads: a model without requests has none, the first ring starts them.
// Thread: add() and `start` by the loader before the first request; the rest from any. Lives in the ModelQueue, longer than
// every instance, so a late reader finds figures that no longer change.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/cache_line.h"
#include "base/clock.h"
#include "batch/latency_table.h"

namespace fastserve {

// One instance's line.
struct alignas(kCacheLine) InstanceLine {
  // Batches beyond `depth` end within this, so that nobody waits long behind them. Much more than a cheap batch takes: with two in
  // flight it pays for a wake each way, and would never look cheap.
  static constexpr Nanos kShortLine = kMillisecond;

  InstanceLine(std::string name_in, int depth_in, int short_depth_in = 0)
      : name(std::move(name_in)), depth(depth_in), short_depth(std::max(depth_in, short_depth_in)) {}

  bool has_room() const {
    return in_flight.load(std::memory_order_seq_cst) < room.load(std::memory_order_relaxed);
  }
  // A batch like those to come takes so long.
  void learn_room(Nanos batch_ns) {
    const Nanos fits = kShortLine / std::max<Nanos>(batch_ns, 1);
    room.store(static_cast<int>(std::clamp<Nanos>(fits, depth, short_depth)), std::memory_order_relaxed);
  }
  // Whether it would take a batch now. An estimate as soon as it is read.
  bool idle() const { return !claimed.load(std::memory_order_relaxed) && has_room(); }
  // When a batch that it takes now is expected to start: `now` when nothing runs, later otherwise.
  Nanos free_at(Nanos now) const {
    const bool resting = in_flight.load(std::memory_order_relaxed) == 0;
    return resting ? now : std::max(now + 1, expected_end.load(std::memory_order_relaxed));
  }

  const std::string name;
  const int depth;                     // batches that it takes before one must have finished
  const int short_depth;               // the same of short ones
  std::atomic<int> room{depth};        // one of the two, or between; relaxed
  std::atomic<bool> claimed{false};    // seq_cst; by whoever pulls for it
  std::atomic<int> in_flight{0};       // seq_cst; batches: raised by the claim holder, lowered by finishers
  std::atomic<Nanos> expected_end{0};  // of the batch that runs now, by the table; relaxed: an estimate
  std::atomic<Nanos> last_end{0};      // of the batch that finished last; relaxed, likewise
  std::atomic<std::int64_t> last_rows{0};  // requests' rows in it
  LatencyTable cost;                       // by rows that the device runs; seeded by the warm-up
};

class InstanceBoard {
 public:
  InstanceLine& add(std::string name, int depth, int short_depth = 0) {
    return *lines_.emplace_back(std::make_unique<InstanceLine>(std::move(name), depth, short_depth));
  }
  const std::vector<std::unique_ptr<InstanceLine>>& lines() const { return lines_; }
  bool empty() const { return lines_.empty(); }

  // Instances that would take a batch now; one that is being pulled for does not count.
  int idle() const {
    return static_cast<int>(std::ranges::count_if(lines_, [](const auto& line) { return line->idle(); }));
  }
  // The others than the one that counts with `asker`: on how many nothing runs, and when the first of them is expected to have
  // room (0: nothing runs on one of them, or there is none). For QueueView.
  struct Others {
    int resting = 0;
    Nanos next_free_at = 0;
  };
  Others others(const CostModel& asker, Nanos now) const {
    Others out{0, kNever};
    for (const auto& line : lines_) {
      if (&line->cost == &asker) continue;
      const bool resting = line->in_flight.load(std::memory_order_relaxed) == 0 && line->idle();
      out.resting += resting ? 1 : 0;
      const Nanos end = std::max(now + 1, line->expected_end.load(std::memory_order_relaxed));
      out.next_free_at = std::min(out.next_free_at, end);
    }
    if (out.resting != 0 || out.next_free_at == kNever) out.next_free_at = 0;
    return out;
  }

  // When the next instance is expected to be free: `now` when one is, and when there is none yet.
  Nanos next_free(Nanos now) const {
    Nanos first = lines_.empty() ? now : kNever;
    for (const auto& line : lines_) first = std::min(first, line->free_at(now));
    return first;
  }

  // --- threads
  // Called by a ring while `running` is false: starts the threads, or answers what waits when there can be none.
  std::function<void()> start;
  std::atomic<bool> running{false};  // release when all run, acquire by the ring

 private:
  std::vector<std::unique_ptr<InstanceLine>> lines_;
};

}  // namespace fastserve
