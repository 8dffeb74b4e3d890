#include "batch/policy.h"

#include <algorithm>
#include <array>

namespace fastserve {
namespace {

// How much of the queue's front goes together: all that fits, and the largest preferred size on the way.
struct Fit {
  Decision all;
  Decision preferred;  // requests == 0: none was reached
  bool full = false;   // nothing more can join
};

Fit fit(const BatchLimits& limits, const QueueView& queue) {
  Fit out;
  for (const std::int64_t rows : queue.rows) {
    if (out.all.requests != 0 && out.all.rows + rows > limits.max_rows) {
      out.full = true;
      return out;
    }
    ++out.all.requests;
    out.all.rows += rows;
    if (std::ranges::binary_search(limits.preferred_rows, out.all.rows)) out.preferred = out.all;
    if (out.all.rows >= limits.max_rows) {
      out.full = true;
      return out;
    }
  }
  out.full = queue.cut;
  return out;
}

// The latest start that neither exceeds the queue delay nor, as far as the cost is known, misses the first deadline.
Nanos latest_start(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                   std::int64_t rows) {
  const Nanos by_delay = queue.oldest_enqueued + limits.max_queue_delay_ns;
  if (queue.earliest_deadline == kNever) return by_delay;
  return std::min(by_delay, queue.earliest_deadline - cost.expected_ns(rows));
}

// A size that could run now: the first `requests` of the queue.
struct Candidate {
  Decision size;
  double rows_per_ns = 0;
};

// What the queue's first `size` cost per row. 0: unknown.
double rows_per_ns(const BatchLimits& limits, const CostModel& cost, std::int64_t rows) {
  const auto bucket = std::ranges::lower_bound(limits.prepared_rows, rows);
  const bool pad = limits.pads && bucket != limits.prepared_rows.end();
  const Nanos ns = cost.expected_ns(pad ? *bucket : rows);
  return ns > 0 ? static_cast<double>(rows) / static_cast<double>(ns) : 0;
}

// Calls `each` with every size up to `most` that is worth a look: all when the device pads anyway, else the prepared ones
// (a size that was never run costs the device its preparation), and the first request alone, which may be anything.
template <class Each>
void for_candidates(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                    const Decision& most, Each each) {
  Decision size;
  for (std::size_t i = 0; i < most.requests; ++i) {
    ++size.requests;
    size.rows += queue.rows[i];
    const bool prepared = limits.pads || std::ranges::binary_search(limits.prepared_rows, size.rows);
    if (!prepared && size.requests != 1) continue;
    if (!each(Candidate{size, rows_per_ns(limits, cost, size.rows)})) return;
  }
}

Decision economical(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                    const Decision& most) {
  constexpr double kGoodEnough = 0.97;
  if (limits.prepared_rows.empty() || most.requests <= 1) return most;
  double best = 0;
  for_candidates(limits, queue, cost, most, [&](const Candidate& candidate) {
    best = std::max(best, candidate.rows_per_ns);
    return true;
  });
  if (best == 0) return most;  // nothing is known yet
  Decision chosen;
  bool one_more = queue.explore;
  for_candidates(limits, queue, cost, most, [&](const Candidate& candidate) {
    if (chosen.requests == 0 && candidate.rows_per_ns < kGoodEnough * best) return true;
    const bool first = chosen.requests == 0;
    chosen = candidate.size;
    if (!first) one_more = false;
    return one_more;
  });
  return chosen;
}

}  // namespace

std::string_view reason_name(Reason reason) {
  constexpr std::array<std::string_view, kReasons> kNames{
      "nothing waits", "full",     "preferred size", "delay passed", "deadline",
      "no gain",       "cheapest", "explore",        "company"};
  return kNames[static_cast<std::size_t>(reason)];
}

Decision decide(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, Nanos now) {
  if (queue.rows.empty()) return {};
  const Fit front = fit(limits, queue);
  if (front.full || limits.max_queue_delay_ns <= 0) return economical(limits, queue, cost, front.all);
  if (front.preferred.requests != 0) return front.preferred;
  const Nanos start = latest_start(limits, queue, cost, front.all.rows);
  if (now >= start) return economical(limits, queue, cost, front.all);
  Decision wait;
  wait.wait_until = start;
  return wait;
}

}  // namespace fastserve
