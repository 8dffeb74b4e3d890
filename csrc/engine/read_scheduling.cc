#include "engine/read_scheduling.h"

#include <algorithm>
#include <cmath>

#include "model/model_version.h"

namespace fastserve {
namespace {

std::vector<InstanceView> instances_of(const InstanceBoard& board) {
  std::vector<InstanceView> out;
  for (const auto& line : board.lines()) {
    InstanceView& view = out.emplace_back();
    view.name = line->name;
    view.depth = line->depth;
    view.in_flight = line->in_flight.load(std::memory_order_relaxed);
    for (const LatencyTable::Entry& entry : line->cost.snapshot()) {
      view.costs.push_back({std::llround(entry.rows), entry.mean_ns, entry.high_ns, entry.samples});
    }
  }
  return out;
}

std::vector<LevelView> levels_of(const ModelQueue& queue) {
  std::vector<LevelView> out;
  const QueueRules& rules = queue.rules();
  for (std::uint32_t priority = 1; priority <= rules.levels(); ++priority) {
    const ModelQueue::Load waiting = queue.waiting_of(priority - 1);
    if (waiting.requests == 0 && !rules.has_policy(priority - 1)) continue;
    out.push_back({priority, rules.policy_of_level(priority - 1), waiting.requests, waiting.rows});
  }
  return out;
}

double drain_rows_per_s(const DrainRate& drain) {
  if (drain.full_mean_ns <= 0) return 0;
  return static_cast<double>(drain.full_rows * drain.instances) * static_cast<double>(kSecond) /
         static_cast<double>(drain.full_mean_ns);
}

// The rate is as of the last arrival. While nothing waits or runs it fades as the policy's own would (batch/arrival_rate.h): as
// if a gap of the time since then ended now.
double arrivals_per_s(const ModelQueue& queue, Nanos now) {
  const double per_ns = queue.arrivals_per_ns();
  Nanos last = 0;
  bool busy = per_ns <= 0 || queue.waiting() != 0;
  for (const auto& line : queue.instances.lines()) {
    busy = busy || line->in_flight.load(std::memory_order_relaxed) != 0;
    last = std::max(last, line->last_end.load(std::memory_order_relaxed));
  }
  if (busy || last == 0) return per_ns * static_cast<double>(kSecond);
  const double gap = 1 / per_ns;
  const double excess = std::max(static_cast<double>(now - last) - gap, 0.0);
  return static_cast<double>(kSecond) / (gap + excess * ArrivalRate::kGapGain);
}

}  // namespace

SchedulingView read_scheduling(ModelVersion& version) {
  const ModelQueue& queue = version.queue();
  const Nanos now = monotonic_now();
  SchedulingView out;
  out.model = version.name;
  out.version = version.number;
  out.limits = queue.limits();
  out.target.p99_ns = out.limits.target_p99_ns;
  out.priority_levels = queue.rules().levels();
  out.default_priority = queue.rules().default_priority();
  out.preserve_ordering = queue.queue_limits().preserve_ordering;
  out.overtaking_batches = ModelQueue::kOvertakingBatches;
  out.waiting = queue.waiting();
  out.levels = levels_of(queue);
  out.arrivals_per_s = arrivals_per_s(queue, now);
  out.drain_rows_per_s = drain_rows_per_s(queue.drain());
  out.next_free_ns = queue.instances.next_free(now) - now;
  out.instances = instances_of(queue.instances);
  out.minute = queue.log().read(now);
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    if (outcome == Outcome::kBackend || out.minute.outcomes[i] == 0) continue;
    out.refusals.emplace_back(outcome_name(outcome), out.minute.outcomes[i]);
  }
  out.expired_executed = read(queue.statistics.expired_executed);
  return out;
}

}  // namespace fastserve
