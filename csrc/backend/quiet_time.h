// A while in which a measurement means something: nobody else measures, no batch runs for anybody, and no other process has the
// CPUs. It says afterwards whether that held.
// Thread: loader; one at a time in the process.
#pragma once

#include <mutex>
#include <optional>

#include "backend/tuning.h"
#include "base/clock.h"
#include "base/cpu_budget.h"
#include "base/cpu_limits.h"

namespace fastserve {

class QuietTime {
 public:
  // Waits at most `most_ns` for another measurement to end; nullopt: it did not, or batches run. `most_ns`: what it may take.
  static std::optional<QuietTime> begin(const TuneSettings& settings, Nanos most_ns);

  // A batch was started for somebody since.
  bool disturbed() const { return CpuBudget::process().runs() != runs_; }
  // Our threads had to wait for CPUs: then a lone request is not faster with more threads, and the figures would say so for ever.
  bool machine_is_busy() const;
  void restart_clock() { began_ = monotonic_now(); }
  Nanos passed() const { return monotonic_now() - began_; }
  Nanos left() const { return most_ns_ - passed(); }

 private:
  QuietTime(std::unique_lock<std::timed_mutex> lock, double most_wait, Nanos most_ns);

  std::unique_lock<std::timed_mutex> lock_;
  double most_wait_;
  Nanos most_ns_;
  Nanos began_;
  CpuBudget::Runs runs_;
  CpuWait wait_;
};

}  // namespace fastserve
