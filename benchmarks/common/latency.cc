#include "common/latency.h"

#include <algorithm>
#include <numeric>

namespace fastserve::bench {

double Latencies::quantile_us(double q) {
  const auto rank = static_cast<std::size_t>(q * static_cast<double>(ns_.size() - 1) + 0.5);
  const auto at = ns_.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(ns_.begin(), at, ns_.end());
  return static_cast<double>(*at) / 1e3;
}

void Latencies::report(JsonObject& out) {
  if (ns_.empty()) {
    for (const char* key : {"p50_us", "p90_us", "p99_us", "max_us", "mean_us"}) out.add_null(key);
    return;
  }
  const double sum = std::accumulate(ns_.begin(), ns_.end(), 0.0);
  out.add("p50_us", quantile_us(0.5));
  out.add("p90_us", quantile_us(0.9));
  out.add("p99_us", quantile_us(0.99));
  out.add("max_us", quantile_us(1.0));
  out.add("mean_us", sum / static_cast<double>(ns_.size()) / 1e3);
}

}  // namespace fastserve::bench
