// The first cost model: a moving average of the run time for every power of two of rows.
// Thread: any. Relaxed cells; two runs that finish at the same moment may lose one of their two samples.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

#include "batch/policy.h"

namespace fastserve {

class LatencyTable final : public CostModel {
 public:
  void record(std::int64_t rows, Nanos took_ns);
  // Of the nearest size with a sample, the larger one first; 0 when there is none at all.
  Nanos expected_ns(std::int64_t rows) const override;

 private:
  static constexpr std::size_t kCells = 33;
  static std::size_t cell_of(std::int64_t rows);
  std::array<std::atomic<Nanos>, kCells> average_ns_{};
};

}  // namespace fastserve
