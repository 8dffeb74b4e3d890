#include "simulator/device.h"

#include <algorithm>
#include <cmath>

namespace simulator {

namespace {

// The same number for the same arguments, about normal: a sum of twelve uniform ones (splitmix64: Steele, Lea, Flood, "Fast
// splittable pseudorandom number generators", OOPSLA 2014).
double fixed_normal(std::uint64_t seed, std::uint64_t which) {
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ULL ^ (which + 1) * 0xd1342543de82ef95ULL;
  double sum = -6;
  for (int i = 0; i < 12; ++i) {
    state += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    sum += static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
  }
  return sum;
}

}  // namespace

Device::Device(std::string name_in, std::vector<std::pair<std::int64_t, double>> ms_by_rows, Sizes sizes)
    : name(std::move(name_in)), pads(sizes == Sizes::kPadded), ms_by_rows_(std::move(ms_by_rows)) {
  max_rows = ms_by_rows_.back().first;
  if (sizes == Sizes::kAnyAlike) return;
  for (const auto& [rows, ms] : ms_by_rows_) prepared_rows.push_back(rows);
}

std::int64_t Device::run_rows(std::int64_t rows) const {
  if (!pads) return rows;
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

Nanos Device::warm_up_ns(std::int64_t rows) const {
  const double swing =
      weather == 0 ? 0 : weather * fixed_normal(weather_seed + 1, static_cast<std::uint64_t>(rows));
  return static_cast<Nanos>(static_cast<double>(mean_ns(rows)) * std::exp(swing));
}

Nanos Device::run_ns(std::int64_t rows, Nanos now, std::mt19937_64& random) const {
  std::lognormal_distribution<double> noise(0, 0.02);
  double ns = static_cast<double>(mean_ns(rows)) * noise(random);
  if (weather > 0) {
    constexpr Nanos kSpell = 500 * kMillisecond;
    const auto spell = static_cast<std::uint64_t>(now / kSpell);
    const double share = static_cast<double>(now % kSpell) / static_cast<double>(kSpell);
    ns *= std::exp(weather * ((1 - share) * fixed_normal(weather_seed, spell) +
                              share * fixed_normal(weather_seed, spell + 1)));
  }
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
    return {"flat", {{1, 2.0}, {2, 2.02}, {4, 2.05}, {8, 2.1}, {16, 2.2}, {32, 2.4}}, Device::Sizes::kPadded};
  }
  if (name == "resnet") {
    return {"resnet", {{1, 7.5}, {2, 12.3}, {4, 21}, {8, 37.4}, {16, 76}, {32, 160}}, Device::Sizes::kPadded};
  }
  if (name == "mlp") return {"mlp", {{1, 0.032}, {64, 0.158}}, Device::Sizes::kAnyAlike};
  if (name == "shared") {
    Device shared{"shared",
                  {{1, 21.7}, {2, 40.6}, {4, 79.7}, {8, 160}, {16, 328}, {32, 660}},
                  Device::Sizes::kPrepared};
    shared.weather = 0.1;
    return shared;
  }
  Device bimodal{"bimodal", {{1, 4}, {2, 5}, {4, 7}, {8, 11}, {16, 19}}, Device::Sizes::kPadded};
  bimodal.slow_share = 0.05;
  bimodal.slow_factor = 5;
  return bimodal;
}

}  // namespace simulator
