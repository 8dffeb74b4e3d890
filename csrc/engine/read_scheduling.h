// What the policy of one version believes and what it chose in the last minute: plain data for `fastserve explain`.
// Read without stopping anybody: relaxed counters and learned figures, each consistent with itself.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "batch/policy.h"
#include "batch/scheduling.h"
#include "sched/decision_log.h"

namespace fastserve {

class ModelVersion;

// One size in an instance's learned table.
struct SizeCostView {
  std::int64_t rows = 0;
  Nanos mean_ns = 0;
  Nanos high_ns = 0;          // about the 95th percentile
  std::uint64_t samples = 0;  // > 0
};

struct InstanceView {
  std::string name;
  int depth = 1;                    // batches that it takes before one must have finished
  int in_flight = 0;                // batches now
  std::vector<SizeCostView> costs;  // ascending by rows
};

// One priority level: its policy, and what waits in it.
struct LevelView {
  std::uint32_t priority = 0;
  QueuePolicy policy;
  std::int64_t requests = 0;
  std::int64_t rows = 0;
};

struct SchedulingView {
  std::string model;
  std::int64_t version = 0;
  LatencyTarget target;
  BatchLimits limits;
  std::uint32_t priority_levels = 0;   // that requests may use
  std::uint32_t default_priority = 0;  // 1 .. levels
  bool preserve_ordering = false;
  int overtaking_batches = 0;     // so many in a row may leave the longest-waiting request behind
  std::int64_t waiting = 0;       // requests
  std::vector<LevelView> levels;  // those with a policy of their own or with somebody waiting
  double arrivals_per_s = 0;      // rows; 0: unknown
  double drain_rows_per_s = 0;    // what all instances together are expected to run; 0: unknown
  Nanos next_free_ns = 0;         // until an instance is expected to be free; 0: now
  std::vector<InstanceView> instances;
  DecisionLog::View minute;
  // Of the last minute; reasons as in VersionStatistics::requests_rejected.
  std::vector<std::pair<std::string, std::uint64_t>> refusals;
  std::uint64_t expired_executed = 0;  // requests handed to the device after their deadline, ever: 0
};

// Any thread.
SchedulingView read_scheduling(ModelVersion& version);

}  // namespace fastserve
