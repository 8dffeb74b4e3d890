#include "batch/policy.h"

#include <algorithm>

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
Nanos latest_start(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, std::int64_t rows) {
  const Nanos by_delay = queue.oldest_enqueued + limits.max_queue_delay_ns;
  if (queue.earliest_deadline == kNever) return by_delay;
  return std::min(by_delay, queue.earliest_deadline - cost.expected_ns(rows));
}

}  // namespace

Decision decide(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, Nanos now) {
  if (queue.rows.empty()) return {};
  const Fit front = fit(limits, queue);
  if (front.full || limits.max_queue_delay_ns <= 0) return front.all;
  if (front.preferred.requests != 0) return front.preferred;
  const Nanos start = latest_start(limits, queue, cost, front.all.rows);
  if (now >= start) return front.all;
  Decision wait;
  wait.wait_until = start;
  return wait;
}

}  // namespace fastserve
