#include "batch/arrival_rate.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fastserve {
namespace {

constexpr double kGapGain = ArrivalRate::kGapGain;
constexpr double kCycleGain = 1.0 / 32;
constexpr double kEarly = 0.25;            // of a cycle
constexpr float kForget = 1 + 1.0F / 128;  // per gap
constexpr float kDoubt = 2;                // standard deviations
constexpr float kRescaleAt = 1e20F;
constexpr std::uint32_t kEnoughGaps = 8;  // fewer are no forecast

}  // namespace

std::size_t ArrivalRate::Gaps::cell_of(Nanos gap) {
  if (gap < kFirst) return 0;
  const auto octave = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(gap / kFirst)));
  return std::min(octave, kCells - 1);
}

void ArrivalRate::Gaps::add(Nanos gap) {
  weight_[cell_of(gap)] += next_weight_;
  advance();
}

void ArrivalRate::Gaps::add_endless() {
  endless_ += next_weight_;
  advance();
}

void ArrivalRate::Gaps::advance() {
  next_weight_ *= kForget;
  if (count_ < kEnoughGaps) ++count_;
  if (next_weight_ < kRescaleAt) return;
  for (float& weight : weight_) weight /= next_weight_;
  endless_ /= next_weight_;
  next_weight_ = 1;
}

// Gaps are taken as uniform within a cell. A cell's worth of luck is not a forecast: of h gaps seen only h - 2 sqrt(h) count as
// hits, and one more gap counts that never ended.
ArrivalRate::Forecast ArrivalRate::Gaps::at(Nanos age) const {
  if (count_ < kEnoughGaps) return {};
  const std::size_t first = cell_of(age);
  const auto end_of = [](std::size_t cell) { return static_cast<float>(begin_of(cell + 1)); };
  const auto from = static_cast<float>(age);
  const float first_share =
      std::clamp((end_of(first) - from) / (end_of(first) - static_cast<float>(begin_of(first))), 0.0F, 1.0F);
  float alive = weight_[first] * first_share + endless_ + next_weight_;
  for (std::size_t cell = first + 1; cell < kCells; ++cell) alive += weight_[cell];
  Forecast best;
  float ended = 0;
  float ended_time = 0;
  for (std::size_t cell = first; cell < kCells; ++cell) {
    const float mass = cell == first ? weight_[cell] * first_share : weight_[cell];
    if (mass == 0) continue;
    const float begin = std::max(static_cast<float>(begin_of(cell)), from) - from;
    const float end = end_of(cell) - from;
    ended += mass;
    ended_time += mass * (begin + end) / 2;
    const float waited = ended_time + (alive - ended) * end;
    const float hits = ended / next_weight_;
    const float sure = (hits - kDoubt * std::sqrt(hits)) * next_weight_;
    const double rate = sure > 0 ? static_cast<double>(sure) / static_cast<double>(waited) : 0;
    if (rate > best.per_ns) best = {rate, static_cast<Nanos>(end)};
  }
  return best;
}

void ArrivalRate::arrived(std::int64_t rows, Nanos enqueued_ns) {
  rows_ += (static_cast<double>(rows) - rows_) * (arrivals_ == 0 ? 1 : kGapGain);
  if (arrivals_ != 0) {
    const Nanos gap = std::max<Nanos>(enqueued_ns - last_arrival_, 0);
    const double gain = std::max(kGapGain, 1.0 / arrivals_);
    gap_ns_ += (static_cast<double>(gap) - gap_ns_) * gain;
    if (last_answer_ != 0 && enqueued_ns >= last_answer_) {
      after_answer_.add(enqueued_ns - last_answer_);
      last_answer_ = 0;
    } else if (last_answer_ == 0) {
      present().add(gap);
    }
  }
  last_arrival_ = std::max(last_arrival_, enqueued_ns);
  returning_ = std::max<std::int64_t>(returning_ - rows, 0);
  if (static_cast<double>(enqueued_ns - cycle_began_) > cycle_ns_ * kEarly) late_now_ += rows;
  arrivals_ = std::min<std::uint32_t>(arrivals_ + 1, 1U << 20);
  published_.store(rows_per_ns(enqueued_ns), std::memory_order_relaxed);
}

void ArrivalRate::answered(std::int64_t rows, Nanos ended_ns) {
  if (arrivals_ != 0) present().add_endless();
  close_cycle(ended_ns);
  last_answer_ = ended_ns;
  returning_ = rows;
}

void ArrivalRate::close_cycle(Nanos ended_ns) {
  if (cycle_began_ != 0) {
    const auto length = static_cast<double>(std::max<Nanos>(ended_ns - cycle_began_, 0));
    const double gain = std::max(kCycleGain, 1.0 / (cycles_ + 1));
    late_rows_ += (static_cast<double>(late_now_) - late_rows_) * gain;
    late_ns_ += (std::max(length - cycle_ns_ * kEarly, 0.0) - late_ns_) * gain;
    cycle_ns_ += (length - cycle_ns_) * gain;
    cycles_ = std::min<std::uint32_t>(cycles_ + 1, 1U << 20);
  }
  cycle_began_ = ended_ns;
  late_now_ = 0;
}

// As if a gap of the present length ended now, once that is longer than the mean.
double ArrivalRate::rows_per_ns(Nanos now) const {
  if (arrivals_ < 2) return 0;
  const double excess = static_cast<double>(now - last_arrival_) - gap_ns_;
  const double gap = gap_ns_ + std::max(excess, 0.0) * kGapGain;
  return rows_ / std::max(gap, 1.0);
}

void ArrivalRate::describe(QueueView& view, Nanos now) const {
  view.arrivals_per_ns = rows_per_ns(now);
  const Nanos age = std::max<Nanos>(now - (last_answer_ != 0 ? last_answer_ : last_arrival_), 0);
  const Forecast soon = present().at(age);
  view.soon_per_ns = soon.per_ns * rows_;
  view.soon_until = now + soon.wait_ns;
  view.then_per_ns = expecting_.at(0).per_ns * rows_;
  view.late_per_ns = cycles_ < kEnoughGaps || late_ns_ <= 0
                         ? view.arrivals_per_ns
                         : std::min(late_rows_ / late_ns_, view.arrivals_per_ns);
  view.returning_rows = returning_;
  view.return_per_ns = after_answer_.at(0).per_ns * rows_;
}

}  // namespace fastserve
