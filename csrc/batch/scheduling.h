// What a model's configuration says about scheduling beyond batch sizes (batch/policy.h): plain data, checked by whoever
// read it. Words and meaning are Triton's (model_config.proto) unless a line says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tensor/tensor.h"

namespace fastserve {

// ModelQueuePolicy. Holds with and without dynamic batching.
struct QueuePolicy {
  enum class OnTimeout : std::uint8_t {
    kReject,  // UNAVAILABLE "Request timeout expired"
    kDelay,   // served after everything of its level that has not timed out
  };
  OnTimeout on_timeout = OnTimeout::kReject;
  Nanos timeout_ns = 0;  // default_timeout_microseconds; 0 = none
  // allow_timeout_override: a request's own `timeout` may lower timeout_ns. True also where no policy is written at all:
  // there the parameter holds by itself.
  bool request_may_lower = true;
  std::int64_t max_requests =
      0;  // max_queue_size: waiting requests of this level; 0 = only the model's limit
};

// Priorities and waiting.
struct QueueLimits {
  std::uint32_t priority_levels = 0;  // 1 (first) .. levels; 0: not said, requests may use 1..16
  std::uint32_t default_priority =
      0;  // of a request that names none or one beyond the levels; 0 = the middle one
  QueuePolicy default_policy;
  std::map<std::uint32_t, QueuePolicy> by_priority;
  // Responses leave in the order in which their requests left the queue, also with several instances.
  bool preserve_ordering = false;

  const QueuePolicy& policy_of(std::uint32_t priority) const {
    const auto own = by_priority.find(priority);
    return own == by_priority.end() ? default_policy : own->second;
  }
};

// The one knob. A p99_ns of 0: best throughput without making anyone wait for nothing, no admission by time.
struct LatencyTarget {
  // A request that names no deadline is refused when it is expected to take longer than target x this. Above 1, because the
  // target is a percentile: the slowest one in a hundred may be above it.
  static constexpr double kAdmitFactor = 1.5;
  Nanos p99_ns = 0;
  Nanos budget_ns() const {
    return p99_ns == 0 ? kNever : static_cast<Nanos>(static_cast<double>(p99_ns) * kAdmitFactor);
  }
};

// ModelRateLimiter: what an instance of the group holds while it runs a batch.
struct ResourceNeed {
  std::string name;
  bool global = false;  // counted once for the process, not per device
  std::int64_t count = 1;
};

// ModelInstanceGroup: of kind CPU, or of kind GPU on one device (a group with several `gpus` is that many of these).
struct InstanceGroup {
  std::string name;
  int count = 1;
  std::string gpu;  // kind GPU: ordinal ("0") or UUID ("GPU-...", "MIG-..."); empty: the backend decides
  std::vector<int> cpus;  // host policy: the instance's threads stay there; empty = anywhere
  std::vector<ResourceNeed> resources;
  std::uint32_t rate_priority = 0;  // scaled weight: 2 gets half the turns of 1; 0 = 1
};

// ModelWarmup: one more run before READY, with given data.
struct WarmUpInput {
  enum class Fill : std::uint8_t { kZero, kRandom, kData };
  std::string name;
  DType dtype = DType::kFp32;
  Shape shape;  // of one row when the model batches (no batch dimension)
  Fill fill = Fill::kZero;
  std::vector<std::byte> data;  // kData: one row's wire bytes (BYTES with length prefixes)
};
struct WarmUpSample {
  std::string name;
  std::int64_t rows = 1;   // batch_size; 0: the model does not batch
  std::int64_t count = 1;  // runs on every instance
  std::vector<WarmUpInput> inputs;
};

}  // namespace fastserve
