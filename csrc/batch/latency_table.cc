#include "batch/latency_table.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fastserve {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr float kGain = 1.0F / 16;
constexpr float kFirstGain = 1.0F / 8;  // at least so much for the first few
constexpr float kChangeGain = 1.0F / 4;
constexpr float kFar = 1.25F;  // times or over the typical
constexpr float kOverrunGain = 1.0F / 64;
constexpr float kMostOverrun = 16;       // of one sample
constexpr float kHigh = 0.95F;           // the quantile
constexpr float kStep = 2;               // deviations
constexpr float kMostDeviations = 8;     // of the quantile above the mean
constexpr float kFirstDeviation = 0.1F;  // of the mean, when there is one sample
// Above the count of samples: three bits that say how many far ones in a row there were, and one for the side.
constexpr std::uint32_t kAbove = 1U << 31;
constexpr std::uint32_t kOneFar = 1U << 28;
constexpr std::uint32_t kBelieved = 5;  // in a row
constexpr std::uint32_t kSampleMask = kOneFar - 1;

std::uint32_t far_in_a_row(std::uint32_t flagged) { return (flagged & ~kAbove) / kOneFar; }

Nanos whole(float ns) { return std::llround(static_cast<double>(ns)); }

}  // namespace

// 1..16 -> 0..15; 17..20 -> 16, 21..24 -> 17, ..., 29..32 -> 19, 33..40 -> 20, ...
std::size_t LatencyTable::cell_of(std::int64_t rows) {
  if (rows <= 1) return 0;
  const auto below = static_cast<std::uint64_t>(rows - 1);
  if (below < kExact) return static_cast<std::size_t>(below);
  const auto octave = static_cast<std::size_t>(std::bit_width(below)) - 5;  // 16..31 -> 0
  const auto quarter = static_cast<std::size_t>(below >> (octave + 2)) & 3;
  return std::min(kExact + octave * 4 + quarter, kCells - 1);
}

void LatencyTable::record(std::int64_t rows, Nanos took_ns) {
  const std::size_t at = cell_of(rows);
  Cell& cell = cells_[at];
  const auto sample = static_cast<float>(std::max<Nanos>(took_ns, 1));
  const std::uint32_t flagged = cell.samples.load(kRelaxed);
  const std::uint32_t count = flagged & kSampleMask;
  const auto next_count = std::min(count + 1, kSampleMask);
  if (count == 0) {
    cell.rows.store(static_cast<float>(rows), kRelaxed);
    cell.typical_ns.store(sample, kRelaxed);
    cell.deviation_ns.store(sample * kFirstDeviation, kRelaxed);
    cell.high_ns.store(sample * (1 + kStep * kFirstDeviation), kRelaxed);
    cell.samples.store(next_count, kRelaxed);
    known_[at / 64].fetch_or(std::uint64_t{1} << (at % 64), kRelaxed);
    return;
  }
  float typical = cell.typical_ns.load(kRelaxed);
  const float ratio = sample / typical;
  const bool above = ratio > kFar;
  const bool far = above || ratio < 1 / kFar;
  const bool same_side = above == ((flagged & kAbove) != 0);
  const std::uint32_t row = !far ? 0 : same_side ? std::min(far_in_a_row(flagged) + 1, kBelieved) : 1;
  const bool changed = row == kBelieved;
  float gain = count < 8 ? std::max(kFirstGain, 1 / static_cast<float>(count + 1)) : kGain;
  if (changed) gain = std::max(gain, kChangeGain);
  const float counted = changed ? sample : typical * std::clamp(ratio, 1 / kFar, kFar);
  typical += gain * (counted - typical);
  float overrun = overrun_.load(kRelaxed);
  overrun += kOverrunGain * (changed ? 1 - overrun : std::min(ratio, kMostOverrun) - overrun);
  overrun = std::max(overrun, 1.0F);
  const float mean = typical * overrun;
  float deviation = cell.deviation_ns.load(kRelaxed);
  // One hiccup is no spread either, but it counts for more: a promise must hold for those as well.
  deviation += std::max(kGain, gain) * (std::min(std::abs(sample - mean), 4 * mean) - deviation);
  const float step = kStep * std::max(deviation, mean / 256);
  float high = cell.high_ns.load(kRelaxed);
  high += sample > high ? step * kHigh : step * (kHigh - 1);
  high = std::clamp(high, mean, mean + kMostDeviations * deviation);
  const float known_rows = cell.rows.load(kRelaxed);
  cell.rows.store(known_rows + gain * (static_cast<float>(rows) - known_rows), kRelaxed);
  cell.typical_ns.store(typical, kRelaxed);
  cell.deviation_ns.store(deviation, kRelaxed);
  cell.high_ns.store(high, kRelaxed);
  cell.samples.store(next_count | row * kOneFar | (above ? kAbove : 0), kRelaxed);
  overrun_.store(overrun, kRelaxed);
}

std::size_t LatencyTable::known_from(std::size_t cell) const {
  for (std::size_t word = cell / 64; word < known_.size(); ++word) {
    std::uint64_t bits = known_[word].load(kRelaxed);
    if (word == cell / 64) bits &= ~std::uint64_t{0} << (cell % 64);
    if (bits != 0) return word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
  }
  return kCells;
}

std::size_t LatencyTable::known_down_to(std::size_t cell) const {
  for (std::size_t word = cell / 64 + 1; word-- > 0;) {
    std::uint64_t bits = known_[word].load(kRelaxed);
    if (word == cell / 64) bits &= ~std::uint64_t{0} >> (63 - cell % 64);
    if (bits != 0) return word * 64 + 63 - static_cast<std::size_t>(std::countl_zero(bits));
  }
  return kCells;
}

float LatencyTable::read(std::int64_t rows, std::atomic<float> Cell::*what) const {
  const std::size_t cell = cell_of(rows);
  // The usual case: a small size with samples of its own.
  if (cell < kExact && (known_[0].load(kRelaxed) >> cell & 1) != 0)
    return (cells_[cell].*what).load(kRelaxed);
  const auto wanted = static_cast<float>(std::max<std::int64_t>(rows, 1));
  std::size_t above = known_from(cell);
  std::size_t below = above == cell ? cell : known_down_to(cell);
  if (above == cell && cells_[cell].rows.load(kRelaxed) != wanted) {
    // The samples of this cell are of other sizes on average: the line goes on to the neighbour on that side.
    if (cells_[cell].rows.load(kRelaxed) < wanted) {
      above = cell + 1 < kCells ? known_from(cell + 1) : kCells;
    } else {
      below = cell > 0 ? known_down_to(cell - 1) : kCells;
    }
  }
  if (above == kCells && below == kCells) return 0;
  const auto value = [&](std::size_t at) { return (cells_[at].*what).load(kRelaxed); };
  float out = 0;
  if (below == kCells) {
    out = value(above);
  } else if (above == kCells) {
    out = value(below) * wanted / std::max(cells_[below].rows.load(kRelaxed), 1.0F);
  } else {
    const float from = cells_[below].rows.load(kRelaxed);
    const float width = cells_[above].rows.load(kRelaxed) - from;
    const float share = width > 0 ? std::clamp((wanted - from) / width, 0.0F, 1.0F) : 0;
    out = value(below) + share * (value(above) - value(below));
  }
  return out;
}

Nanos LatencyTable::expected_ns(std::int64_t rows) const {
  return whole(read(rows, &Cell::typical_ns) * overrun_.load(kRelaxed));
}

// Not below the mean, which other sizes' overruns may have raised since.
Nanos LatencyTable::high_ns(std::int64_t rows) const {
  return std::max(whole(read(rows, &Cell::high_ns)), expected_ns(rows));
}

std::vector<LatencyTable::Entry> LatencyTable::snapshot() const {
  std::vector<Entry> out;
  for (const Cell& cell : cells_) {
    const std::uint32_t samples = cell.samples.load(kRelaxed) & kSampleMask;
    if (samples == 0) continue;
    const Nanos mean_ns = whole(cell.typical_ns.load(kRelaxed) * overrun_.load(kRelaxed));
    out.push_back({static_cast<double>(cell.rows.load(kRelaxed)), mean_ns,
                   std::max(whole(cell.high_ns.load(kRelaxed)), mean_ns), samples});
  }
  return out;
}

}  // namespace fastserve
