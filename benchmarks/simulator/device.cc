#include "simulator/device.h"

#include <algorithm>
#include <cmath>

namespace simulator {

Device::Device(std::string name_in, std::vector<std::pair<std::int64_t, double>> ms_by_rows, bool pads)
    : name(std::move(name_in)), ms_by_rows_(std::move(ms_by_rows)) {
  max_rows = ms_by_rows_.back().first;
  if (!pads) return;
  for (const auto& [rows, ms] : ms_by_rows_) prepared_rows.push_back(rows);
}

std::int64_t Device::run_rows(std::int64_t rows) const {
  const auto at = std::ranges::lower_bound(prepared_rows, rows);
  return at == prepared_rows.end() ? rows : *at;
}

Nanos Device::mean_ns(std::int64_t rows) const {
  const std::int64_t run = run_rows(rows);
  auto above = std::ranges::find_if(ms_by_rows_, [&](const auto& point) { return point.first >= run; });
  if (above == ms_by_rows_.end()) --above;
  if (above->first == run || above == ms_by_rows_.begin()) return static_cast<Nanos>(above->second * 1e6);
  const auto below = above - 1;
  const double share =
      static_cast<double>(run - below->first) / static_cast<double>(above->first - below->first);
  return static_cast<Nanos>((below->second + share * (above->second - below->second)) * 1e6);
}

Nanos Device::run_ns(std::int64_t rows, std::mt19937_64& random) const {
  std::lognormal_distribution<double> noise(0, 0.02);
  double ns = static_cast<double>(mean_ns(rows)) * noise(random);
  if (slow_share > 0 && std::bernoulli_distribution(slow_share)(random)) ns *= slow_factor;
  return static_cast<Nanos>(ns);
}

double Device::best_rows_per_s() const {
  double best = 0;
  for (const auto& [rows, ms] : ms_by_rows_) best = std::max(best, static_cast<double>(rows) / ms * 1e3);
  return best / (1 + slow_share * (slow_factor - 1));
}

Device device(std::string_view name) {
  if (name == "flat") {
    return {"flat", {{1, 2.0}, {2, 2.02}, {4, 2.05}, {8, 2.1}, {16, 2.2}, {32, 2.4}}, true};
  }
  if (name == "resnet") {
    return {"resnet", {{1, 7.5}, {2, 12.3}, {4, 21}, {8, 37.4}, {16, 76}, {32, 160}}, true};
  }
  if (name == "mlp") return {"mlp", {{1, 0.032}, {64, 0.158}}, false};
  Device bimodal{"bimodal", {{1, 4}, {2, 5}, {4, 7}, {8, 11}, {16, 19}}, true};
  bimodal.slow_share = 0.05;
  bimodal.slow_factor = 5;
  return bimodal;
}

}  // namespace simulator
