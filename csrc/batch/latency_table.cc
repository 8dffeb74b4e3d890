#include "batch/latency_table.h"

#include <algorithm>
#include <bit>

namespace fastserve {

// 1 -> 0, 2 -> 1, 3..4 -> 2, 5..8 -> 3 ...
std::size_t LatencyTable::cell_of(std::int64_t rows) {
  if (rows <= 1) return 0;
  return std::min(static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(rows - 1))), kCells - 1);
}

void LatencyTable::record(std::int64_t rows, Nanos took_ns) {
  std::atomic<Nanos>& cell = average_ns_[cell_of(rows)];
  const Nanos old = cell.load(std::memory_order_relaxed);
  const Nanos next = old == 0 ? took_ns : old + (took_ns - old) / 8;
  cell.store(std::max<Nanos>(next, 1), std::memory_order_relaxed);
}

Nanos LatencyTable::expected_ns(std::int64_t rows) const {
  const std::size_t at = cell_of(rows);
  for (std::size_t i = at; i < kCells; ++i) {
    if (const Nanos ns = average_ns_[i].load(std::memory_order_relaxed); ns != 0) return ns;
  }
  for (std::size_t i = at; i-- > 0;) {
    if (const Nanos ns = average_ns_[i].load(std::memory_order_relaxed); ns != 0) return ns;
  }
  return 0;
}

}  // namespace fastserve
