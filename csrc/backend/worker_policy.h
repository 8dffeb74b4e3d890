// When a worker that died is started again, and its limits in time. Pure: time is an argument.
#pragma once

#include <map>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace fastserve {

// From the model's parameters, in seconds; 0 = no limit.
struct WorkerLimits {
  Nanos initialize_ns = 600 * kSecond;  // initialize_timeout_s: from the start to the description
  Nanos execute_ns = 60 * kSecond;      // execute_timeout_s: one batch
  Nanos finalize_ns = 10 * kSecond;     // finalize_timeout_s: from the order to stop to the end
};
// INVALID_ARGUMENT names the parameter and the value. Others are not looked at: they are the model's.
Result<WorkerLimits> read_worker_limits(const std::map<std::string, std::string>& parameters);

// At once after the first death; then 0.1 s, doubling to 30 s, until it was healthy again: it answered something and lived for a
// second at least.
class RestartPolicy {
 public:
  static constexpr Nanos kFirstDelay = 100 * kMillisecond;
  static constexpr Nanos kMostDelay = 30 * kSecond;
  static constexpr Nanos kHealthy = kSecond;

  // A process that served from `up_since` (0: never) and answered or not is gone. How long to wait.
  Nanos died(Nanos up_since, bool answered, Nanos now);
  int deaths_in_a_row() const { return deaths_; }

 private:
  int deaths_ = 0;
};

// "status 3", "signal 11 (Segmentation fault)": of what waitid(2) says (si_code, si_status).
std::string death_text(int code, int number);

}  // namespace fastserve
