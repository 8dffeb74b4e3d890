#include "batch/policy.h"

#include <algorithm>
#include <array>

#include "batch/choice.h"
#include "batch/company.h"

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
  out.full = queue.cut;
  const bool prefers = !limits.preferred_rows.empty();
  for (const std::int64_t rows : queue.rows) {
    if (out.all.requests != 0 && out.all.rows + rows > limits.max_rows) {
      out.full = true;
      break;
    }
    ++out.all.requests;
    out.all.rows += rows;
    if (prefers && std::ranges::binary_search(limits.preferred_rows, out.all.rows)) out.preferred = out.all;
    if (out.all.rows >= limits.max_rows) {
      out.full = true;
      break;
    }
  }
  return out;
}

// The latest start that keeps every promise, and which one it is.
struct Latest {
  Nanos start = kNever;
  Reason reason = Reason::kDeadline;
};

Latest latest_start(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                    std::int64_t rows) {
  Latest out;
  if (const Nanos by = due(limits, queue); by != kNever) {
    out.start = by - cost.high_ns(run_rows(limits, rows));
  }
  if (limits.max_queue_delay_ns <= 0) return out;
  const Nanos by_delay = queue.oldest_enqueued + limits.max_queue_delay_ns;
  if (by_delay <= out.start) out = {by_delay, Reason::kDelayPassed};
  return out;
}

// max_queue_delay without a target: Triton's rules to the letter.
Decision fixed_delay(const BatchLimits& limits, const QueueView& queue, const CostModel& cost,
                     const Fit& front, Nanos now) {
  Decision out = front.preferred;
  if (out.requests != 0) {
    out.reason = Reason::kPreferred;
    return out;
  }
  const Latest latest = latest_start(limits, queue, cost, front.all.rows);
  if (!front.full && limits.max_queue_delay_ns > 0 && now < latest.start) {
    out.wait_until = latest.start;
    out.reason = Reason::kCompany;
    return out;
  }
  out = economical(limits, queue, cost, front.all, !front.full, now);
  if (out.reason == Reason::kNoGain) {
    out.reason = front.full ? Reason::kFull : limits.max_queue_delay_ns > 0 ? latest.reason : Reason::kNoGain;
  }
  return out;
}

}  // namespace

std::string_view reason_name(Reason reason) {
  constexpr std::array<std::string_view, kReasons> kNames{"nothing waits", "full",     "preferred size",
                                                          "delay passed",  "deadline", "no gain",
                                                          "cheapest",      "explore",  "company"};
  return kNames[static_cast<std::size_t>(reason)];
}

std::int64_t best_rows(const BatchLimits& limits, const CostModel& cost) {
  double best = 0;
  for (const std::int64_t rows : limits.prepared_rows) best = std::max(best, rows_per_ns(limits, cost, rows));
  if (best == 0) return limits.max_rows;
  for (const std::int64_t rows : limits.prepared_rows) {
    if (rows_per_ns(limits, cost, rows) >= kGoodEnough * best) return rows;
  }
  return limits.max_rows;
}

Decision decide(const BatchLimits& limits, const QueueView& queue, const CostModel& cost, Nanos now) {
  if (queue.rows.empty()) return {};
  const Fit front = fit(limits, queue);
  const bool adaptive =
      limits.target_p99_ns != 0 || (limits.max_queue_delay_ns <= 0 && limits.preferred_rows.empty());
  if (!adaptive) return fixed_delay(limits, queue, cost, front, now);
  Decision run = economical(limits, queue, cost, front.all, !front.full, now);
  if (front.full) {
    if (run.reason == Reason::kNoGain) run.reason = Reason::kFull;
    return run;
  }
  const Nanos until = wait_for_company(limits, queue, cost, front.all, run, now);
  if (until <= now) return run;
  const Latest latest = latest_start(limits, queue, cost, front.all.rows);
  if (now >= latest.start) {
    if (run.reason == Reason::kNoGain) run.reason = latest.reason;
    return run;
  }
  return {0, 0, std::min(until, latest.start), Reason::kCompany};
}

}  // namespace fastserve
