// Admission by time: whether the newest request can be answered in time if it joins the queue now. Pure: no clock, no
// lock; tens of ns. The queue limit is somebody else's (ModelQueue::admit).
//
// What it counts with:   until an instance is free  +  the full batches before it  +  the batch that it will be in,
// the first two longer by what the device will do meanwhile for requests of higher priority that come later.
// It refuses only the newest: whoever was admitted stays.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "batch/scheduling.h"

namespace fastserve {

struct BatchLimits;
struct CostModel;

// How fast the model's instances serve a queue. Of a plain copy.
struct DrainRate {
  Nanos alone_ns = 0;          // high quantile of a batch of one row; 0: unknown, everything is admitted
  Nanos full_ns = 0;           // high quantile of a batch of full_rows
  Nanos full_mean_ns = 0;      // its mean
  std::int64_t full_rows = 1;  // the size that a long queue is served in (best_rows)
  int instances = 1;           // that serve the queue, >= 1
};

// The same, written by whoever pulls (after a change, or every so many pulls: it changes slowly) and read by submitters.
// Relaxed: a reader may see a mixture of two states that are close to each other.
class PublishedDrainRate {
 public:
  void store(const DrainRate& rate);
  DrainRate load() const;

 private:
  std::atomic<Nanos> alone_ns_{0}, full_ns_{0}, full_mean_ns_{0};
  std::atomic<std::int32_t> full_rows_{1}, instances_{1};
};

// What share of the rows that were served lately had a higher priority: whoever waits is overtaken by as many in future.
// Written by the holder of the pull token, read by submitters; relaxed.
class ServedShares {
 public:
  void served(std::size_t level, std::int64_t rows);  // level: 0 first
  double above(std::size_t level) const;              // of the levels before it, 0 .. 1

 private:
  static constexpr std::size_t kLevels = 16;
  std::array<std::atomic<std::int64_t>, kLevels> rows_{};
  std::int64_t total_ = 0;
  std::atomic<std::uint32_t> used_{0};  // bit i: rows_[i] was ever raised
};

// When the last of so many waiting rows is expected to be answered, from an idle device on. 0: unknown.
Nanos served_within(const DrainRate& drain, std::int64_t rows);

// From a learned cost: full_rows is the smallest size within 3 % of the best rows per ns (best_rows in policy.h).
DrainRate drain_rate(const BatchLimits& limits, const CostModel& cost, int instances);

// The queue as the newest request finds it.
struct AdmissionView {
  std::int64_t requests_before =
      0;                         // waiting, of its own and of higher priority: what would be served before it
  std::int64_t rows_before = 0;  // theirs
  std::int64_t rows = 1;         // its own
  Nanos free_at = 0;  // absolute: when the next instance is expected to be free; <= now: one is idle
  DrainRate drain = {};
  double overtaken = 0;  // ServedShares::above of its level
};

struct Verdict {
  bool admit = true;
  Nanos expected_ns = 0;  // until its answer; 0: unknown
  Nanos budget_ns = kNever;
};

// Its own deadline (absolute; kNever: none) decides first, else target x LatencyTarget::kAdmitFactor, else nothing.
// A request that finds an idle instance and nothing before it is always admitted while its deadline has not passed:
// nobody gains by its refusal, and a cost that is believed to be too high could else never be learned again.
Verdict admission(const AdmissionView& view, Nanos now, Nanos deadline, const LatencyTarget& target);

// "would miss its deadline: expected to take 41 ms, has 25 ms (12 requests wait before it)"; without a deadline of its own:
// "would miss the latency target: expected to take 41 ms, limit 25 ms (...)".
std::string refusal_text(const Verdict& verdict, const AdmissionView& view, bool own_deadline);

}  // namespace fastserve
