// Latencies of one measuring window: kept whole, because a histogram's buckets would blur a 5 % comparison.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/json.h"

namespace fastserve::bench {

class Latencies {
 public:
  Latencies() { ns_.reserve(std::size_t{1} << 20); }
  void add(std::int64_t ns) { ns_.push_back(ns < kMaxNs ? static_cast<std::uint32_t>(ns) : kMaxNs); }
  void clear() { ns_.clear(); }
  std::size_t count() const { return ns_.size(); }
  // Adds p50_us, p90_us, p99_us, max_us and mean_us (null without samples). Reorders the samples.
  void report(JsonObject& out);

 private:
  static constexpr std::uint32_t kMaxNs = UINT32_MAX;  // 4.3 s; longer ones are counted as that
  double quantile_us(double q);
  std::vector<std::uint32_t> ns_;
};

}  // namespace fastserve::bench
