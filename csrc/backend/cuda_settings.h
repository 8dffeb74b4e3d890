// What a model's configuration says about its lanes: parameters of the version, checked.
//
//   lanes            1..8 (default 2; 1 where the model has several instances on the device): batches under way at once
//   graphs           on (default) or off: off runs every batch through the model's own code
//   completion       poll (default): a thread looks; blocking: it sleeps in the driver, for less CPU and more latency
//   watchdog_ms      30000 (default), 0 = off: a batch that takes longer is taken for hung, and the device with it for lost
//   stream_priority  0 (default) ..: steps above the lowest priority of the device's streams, cut off at its highest
// Pure.
#pragma once

#include <map>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace fastserve {

struct CudaSettings {
  enum class Completion : std::uint8_t { kPoll, kBlocking };

  // Far above what any model that answers requests takes: what it ends is not a batch but the process (there is no way to stop a
  // kernel), and by then clients have long given up.
  static constexpr Nanos kDefaultWatchdogNs = 30 * kSecond;

  int lanes = 0;  // 0: not said
  bool graphs = true;
  Completion completion = Completion::kPoll;
  Nanos watchdog_ns = kDefaultWatchdogNs;  // 0: off
  int stream_priority = 0;
};

// Other parameters are the source's. INVALID_ARGUMENT: parameters["lanes"]: got "9", want a whole number from 1 to 8.
Result<CudaSettings> read_cuda_settings(const std::map<std::string, std::string>& parameters);

}  // namespace fastserve
