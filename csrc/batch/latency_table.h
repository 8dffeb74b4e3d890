// The learned cost of a batch by its rows: mean and a high quantile (about the 95th percentile), for every size up to 16
// exactly, above that in steps of a quarter octave (17..20, 21..24, ... 33..40, ...). About 1.6 KB.
//
// Mean: what is typical of the size x how much longer runs take than is typical, over all sizes. Typical: exponentially
// weighted (1/16; plain average of the first 8), a sample beyond 1.25 x or 1 / 1.25 x counts as that: one hiccup in
// fifty runs must not make a size look dear next to the others. The fifth such in a row on the same side is believed, and
// quickly (1/4): the machine has changed.
// High quantile: stochastic approximation with steps in units of the mean deviation (L. Tierney, "A space-efficient
// recursive procedure for estimating a quantile of an unknown distribution", SIAM J. Sci. Stat. Comput. 4(4), 1983), kept
// between the mean and the mean + 8 deviations so that it follows a machine that became faster.
//
// Thread: any. Relaxed cells; two runs that finish at the same moment may lose one of their two samples.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "batch/policy.h"

namespace fastserve {

class LatencyTable final : public CostModel {
 public:
  // What is known about one size; `rows` is the average of the samples' where a cell covers several sizes.
  struct Entry {
    double rows = 0;
    Nanos mean_ns = 0;
    Nanos high_ns = 0;
    std::uint32_t samples = 0;
  };

  // A run of `rows` rows (those the device computed, padding included) took so long. The warm-up seeds it with the same call.
  void record(std::int64_t rows, Nanos took_ns);

  // Between two known sizes: on the line through them; below the smallest: as that; above the largest: in proportion to the
  // rows. 0 when nothing is known at all.
  Nanos expected_ns(std::int64_t rows) const override;  // the mean
  Nanos high_ns(std::int64_t rows) const override;

  // Ascending by rows: the sizes with samples. Any thread, for `explain`.
  std::vector<Entry> snapshot() const;

 private:
  static constexpr std::size_t kExact = 16;
  static constexpr std::size_t kSteps = 64;  // four an octave: up to 2^20 rows; what is above shares the last
  static constexpr std::size_t kCells = kExact + kSteps;

  struct Cell {
    std::atomic<float> rows{0};
    std::atomic<float> typical_ns{0};
    std::atomic<float> deviation_ns{0};  // mean absolute
    std::atomic<float> high_ns{0};
    std::atomic<std::uint32_t> samples{0};  // the top bits: whether the last ones were far off
  };
  static std::size_t cell_of(std::int64_t rows);
  std::size_t known_from(std::size_t cell) const;     // the first known cell at or above; kCells: none
  std::size_t known_down_to(std::size_t cell) const;  // the last known cell at or below; kCells: none
  float read(std::int64_t rows, std::atomic<float> Cell::*what) const;

  std::array<Cell, kCells> cells_{};
  std::atomic<float> overrun_{1};                                       // mean of sample / typical
  std::array<std::atomic<std::uint64_t>, (kCells + 63) / 64> known_{};  // bit per cell with samples
};

}  // namespace fastserve
