// fastserve's policy as ModelQueue and Instance use it: the real decide(), LatencyTable, ArrivalRate and admission().
#pragma once

#include <array>
#include <deque>

#include "batch/admission.h"
#include "batch/arrival_rate.h"
#include "batch/latency_table.h"
#include "batch/policy.h"
#include "simulator/device.h"
#include "simulator/scheduler.h"

namespace simulator {

class Ours final : public Scheduler {
 public:
  struct Options {
    Nanos target_p99_ns = 0;
    std::int64_t max_queue_requests = 100'000;
    bool hears_answers = true;  // ArrivalRate::answered is called
    bool forecasts = true;      // ArrivalRate::describe is called: without, it never waits
    bool binds_late = true;     // decide() is told when a batch would start
  };
  Ours(const Device& device, const Machine& machine, Options options);

  bool arrive(Job& job, Nanos now) override;
  Nanos pull(int instance, Nanos now, std::vector<Job*>& batch) override;
  void ended(int instance, std::int64_t rows, Nanos run_ns, Nanos now) override;

  std::array<std::int64_t, fastserve::kReasons> reasons{};

 private:
  struct Instance {
    fastserve::LatencyTable cost;
    std::deque<Nanos> expected;  // of the batches in flight
    Nanos started = 0;           // of the first of them
  };
  static constexpr int kLevels = 2;
  Nanos free_at(const Instance& instance, Nanos now) const;
  void warm_up();
  bool drop_expired(Nanos now);

  const Device& device_;
  const int depth_;
  const Options options_;
  fastserve::BatchLimits limits_;
  fastserve::ArrivalRate rate_;
  fastserve::PublishedDrainRate drain_;
  fastserve::ServedShares shares_;
  std::vector<Instance> instances_;
  std::array<std::deque<Job*>, kLevels> waiting_;
  std::vector<std::int64_t> view_rows_;
  std::uint32_t looks_ = 0;
};

}  // namespace simulator
