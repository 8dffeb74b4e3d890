// Which part of what waits runs now: the pure arithmetic of sizes behind decide(). Internal to the batch policy.
#pragma once

#include "batch/policy.h"

namespace fastserve {

inline constexpr double kGoodEnough = 0.97;  // of the best rows per ns

// The rows that the device computes for a batch of `rows`.
std::int64_t run_rows(const BatchLimits& limits, std::int64_t rows);
double rows_per_ns(const BatchLimits& limits, const CostModel& cost, std::int64_t rows);  // 0: unknown

// By when the requests in front should have their answer: the first deadline, or the oldest's target. kNever: no promise.
Nanos due(const BatchLimits& limits, const QueueView& queue);

// Of `most` (all that fits, requests > 0) the part to run now, with its reason: kNoGain for all of it. `whole`: nothing
// waits beyond it.
Decision economical(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                    const Decision& most, bool whole, Nanos now);

}  // namespace fastserve
