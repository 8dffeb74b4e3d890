// The event loop in virtual time, and what came of it.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "simulator/device.h"
#include "simulator/scheduler.h"

namespace simulator {

struct Load {
  std::vector<Nanos> arrivals;  // open loop: ascending
  int clients = 0;  // closed loop when > 0: each asks again `turnaround_ns` (on average) after its answer
  Nanos turnaround_ns = 200 * kMicrosecond;
  std::size_t count = 0;           // closed loop: requests in all
  Nanos deadline_ns = 0;           // of every request; 0: none
  double high_priority_share = 0;  // of the requests
  std::uint64_t seed = 1;
};

struct Result {
  double offered_per_s = 0;
  double served_per_s = 0;  // of the measured part
  double mean_ms = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double mean_batch = 0;
  double busy = 0;     // share of the time that a device computed, of all devices
  double refused = 0;  // share of the requests: refused at once
  double dropped = 0;  // share: admitted, and never run
  double late = 0;     // share of the admitted that were served after their deadline
  double high_admitted = 1;
};

// The first tenth of the requests is not counted.
Result simulate(const Device& device, const Machine& machine, const Load& load, Scheduler& scheduler);

}  // namespace simulator
