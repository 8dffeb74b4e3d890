// Whether to wait for company instead of running what is there. Internal to the batch policy.
//
// Three cases, and in all others the answer is no:
//   - several clients are about to come back, or a burst is under way: one batch of all costs less device time than two
//   - another batch runs before this one (depth > 1): waiting until shortly before its end costs nothing
//   - several instances are all needed, and the other one just started: starts that are apart leave less waiting for the next
#pragma once

#include "batch/policy.h"

namespace fastserve {

// `all`: what waits and fits; `chosen`: what would run now. Until when to look again; `now`: run it.
Nanos wait_for_company(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                       const Decision& all, const Decision& chosen, Nanos now);

}  // namespace fastserve
