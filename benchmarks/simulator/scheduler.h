// What a scheduling rule looks like to the simulation: the same for ours and for the re-implemented rivals.
// Virtual time only; everything is deterministic for a seed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"

namespace simulator {

using fastserve::kMicrosecond;
using fastserve::kMillisecond;
using fastserve::kNever;
using fastserve::kSecond;
using fastserve::Nanos;

enum class Outcome : std::uint8_t { kWaiting, kRunning, kServed, kRefused, kDropped };

struct Job {
  Nanos arrived = 0;
  std::int64_t rows = 1;
  Nanos deadline = kNever;
  int priority = 1;  // 0 first
  int client = -1;   // closed loop
  Nanos ended = 0;
  Outcome outcome = Outcome::kWaiting;
};

// Batches are run by `instances` devices, each `depth` batches deep: one runs, the others are bound to follow it.
struct Machine {
  int instances = 1;
  int depth = 1;
  Nanos gap_ns = 50 * kMicrosecond;  // from a batch's end to the next one's start when none was bound
};

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // False: refused at once.
  virtual bool arrive(Job& job, Nanos now) = 0;
  // Instance `instance` has room and asks. Fills `batch`, or leaves it empty and returns when to ask again (kNever: after the
  // next event). What it drops it marks kDropped.
  virtual Nanos pull(int instance, Nanos now, std::vector<Job*>& batch) = 0;
  // `run_ns`: as a server sees it, from the start on the device (or the end of the batch before) to the end.
  virtual void ended(int instance, std::int64_t rows, Nanos run_ns, Nanos now) = 0;
};

}  // namespace simulator
