#include "batch/admission.h"

#include <algorithm>

#include "batch/policy.h"

namespace fastserve {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// A batch of `rows`: on the line between one row and a full batch.
Nanos run_ns(const DrainRate& drain, std::int64_t rows) {
  if (rows >= drain.full_rows || drain.full_rows <= 1) {
    return drain.full_ns * std::max<std::int64_t>(rows, 1) / std::max<std::int64_t>(drain.full_rows, 1);
  }
  return drain.alone_ns + (drain.full_ns - drain.alone_ns) * (rows - 1) / (drain.full_rows - 1);
}

std::string ms_text(Nanos ns) {
  const Nanos tenths = (ns + 50 * kMicrosecond) / (100 * kMicrosecond);
  if (tenths >= 100 || tenths % 10 == 0) return std::to_string((tenths + 5) / 10) + " ms";
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " ms";
}

}  // namespace

void PublishedDrainRate::store(const DrainRate& rate) {
  alone_ns_.store(rate.alone_ns, kRelaxed);
  full_ns_.store(rate.full_ns, kRelaxed);
  full_mean_ns_.store(rate.full_mean_ns, kRelaxed);
  full_rows_.store(static_cast<std::int32_t>(rate.full_rows), kRelaxed);
  instances_.store(rate.instances, kRelaxed);
}

DrainRate PublishedDrainRate::load() const {
  return {alone_ns_.load(kRelaxed), full_ns_.load(kRelaxed), full_mean_ns_.load(kRelaxed),
          full_rows_.load(kRelaxed), instances_.load(kRelaxed)};
}

void ServedShares::served(std::size_t level, std::int64_t rows) {
  constexpr std::int64_t kWindow = 512;  // rows, at most; at least half of it
  level = std::min(level, kLevels - 1);
  rows_[level].store(rows_[level].load(kRelaxed) + rows, kRelaxed);
  const std::uint32_t bit = 1U << level;
  if ((used_.load(kRelaxed) & bit) == 0) used_.store(used_.load(kRelaxed) | bit, kRelaxed);
  total_ += rows;
  if (total_ < kWindow) return;
  total_ = 0;
  for (auto& count : rows_) {
    const std::int64_t half = count.load(kRelaxed) / 2;
    count.store(half, kRelaxed);
    total_ += half;
  }
}

double ServedShares::above(std::size_t level) const {
  const std::uint32_t used = used_.load(kRelaxed);
  if ((used & ((1U << level) - 1)) == 0) return 0;
  std::int64_t before = 0;
  std::int64_t all = 0;
  for (std::size_t i = 0; i < kLevels; ++i) {
    if ((used & (1U << i)) == 0) continue;
    const std::int64_t rows = rows_[i].load(kRelaxed);
    all += rows;
    if (i < level) before += rows;
  }
  return all > 0 ? static_cast<double>(before) / static_cast<double>(all) : 0;
}

DrainRate drain_rate(const BatchLimits& limits, const CostModel& cost, int instances) {
  const std::int64_t full = best_rows(limits, cost);
  return {cost.high_ns(1), cost.high_ns(full), cost.expected_ns(full), full, std::max(instances, 1)};
}

Nanos served_within(const DrainRate& drain, std::int64_t rows) {
  const std::int64_t full = std::max<std::int64_t>(drain.full_rows, 1);
  const std::int64_t batches = (rows + full - 1) / full;
  return batches * drain.full_mean_ns / std::max(drain.instances, 1);
}

Verdict admission(const AdmissionView& view, Nanos now, Nanos deadline, const LatencyTarget& target) {
  Verdict out;
  if (deadline != kNever) {
    out.budget_ns = deadline - now;
  } else if (target.p99_ns != 0) {
    out.budget_ns = target.budget_ns();
  } else {
    return out;
  }
  if (out.budget_ns <= 0) {
    out.admit = false;
    return out;
  }
  const DrainRate& drain = view.drain;
  if (drain.alone_ns == 0) return out;
  // The batch that it will be in takes some of those before it along; the full ones go first.
  const std::int64_t full = std::max<std::int64_t>(drain.full_rows, 1);
  const std::int64_t batches_before = view.rows_before / full;
  // When it must wait for others' batch, later ones will fill its own.
  const std::int64_t with_it = batches_before > 0 ? std::max(full, view.rows) : view.rows_before + view.rows;
  const Nanos until_free = std::max<Nanos>(view.free_at - now, 0);
  constexpr double kMostOvertaken = 0.9;
  // A queue that refuses is at its limit all the time, so an estimate that is a little too good would make half of the admitted
  // late. The target's factor has such slack already.
  constexpr double kDoubt = 1.125;
  const Nanos queued = until_free + batches_before * drain.full_mean_ns / std::max(drain.instances, 1);
  const double left = 1 - std::clamp(view.overtaken, 0.0, kMostOvertaken);
  const double doubt = deadline != kNever ? kDoubt : 1;
  out.expected_ns = static_cast<Nanos>(static_cast<double>(queued) * doubt / left) + run_ns(drain, with_it);
  const bool idle = until_free == 0 && view.requests_before == 0;
  out.admit = idle || out.expected_ns <= out.budget_ns;
  return out;
}

std::string refusal_text(const Verdict& verdict, const AdmissionView& view, bool own_deadline) {
  std::string text = own_deadline
                         ? "would miss its deadline: expected to take " + ms_text(verdict.expected_ns) +
                               ", has " + ms_text(std::max<Nanos>(verdict.budget_ns, 0))
                         : "would miss the latency target: expected to take " + ms_text(verdict.expected_ns) +
                               ", limit " + ms_text(verdict.budget_ns);
  const std::int64_t before = view.requests_before;
  return text + " (" + std::to_string(before) + (before == 1 ? " request waits" : " requests wait") +
         " before it)";
}

}  // namespace fastserve
