#include "simulator/arrivals.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>
#include <numeric>
#include <random>
#include <stdexcept>

namespace simulator {
namespace {

using Random = std::mt19937_64;

double exponential(Random& random, double per_s) {
  return std::exponential_distribution<double>(per_s)(random);
}

std::vector<double> bursty(double per_s, std::size_t count, Random& random) {
  // Time shares p and 1 - p of the states: 5 p + 0.2 (1 - p) = 1.
  constexpr double kHigh = 5;
  constexpr double kLow = 0.2;
  constexpr double kShare = (1 - kLow) / (kHigh - kLow);
  constexpr double kBurstArrivals = 20;
  const double high_s = kBurstArrivals / (kHigh * per_s);
  const double low_s = high_s * (1 - kShare) / kShare;
  std::vector<double> out;
  double now = 0;
  bool high = false;
  double state_ends = exponential(random, 1 / low_s);
  while (out.size() < count) {
    const double next = now + exponential(random, per_s * (high ? kHigh : kLow));
    if (next < state_ends) {
      out.push_back(now = next);
      continue;
    }
    now = state_ends;
    high = !high;
    state_ends = now + exponential(random, 1 / (high ? high_s : low_s));
  }
  return out;
}

std::vector<double> diurnal(double per_s, std::size_t count, Random& random) {
  constexpr double kSwing = 0.6;
  constexpr double kPeriods = 5;
  const double period_s = static_cast<double>(count) / per_s / kPeriods;
  std::vector<double> out;
  double now = 0;
  while (out.size() < count) {  // thinning
    now += exponential(random, per_s * (1 + kSwing));
    const double rate = 1 + kSwing * std::sin(2 * std::numbers::pi * now / period_s);
    if (std::uniform_real_distribution<double>(0, 1 + kSwing)(random) < rate) out.push_back(now);
  }
  return out;
}

std::vector<double> repeated(double per_s, std::size_t count, const std::vector<Nanos>& gaps) {
  if (gaps.empty()) throw std::runtime_error("there is no recorded trace");
  const double mean = static_cast<double>(std::accumulate(gaps.begin(), gaps.end(), Nanos{0})) /
                      static_cast<double>(gaps.size());
  std::vector<double> out;
  double now = 0;
  for (std::size_t i = 0; i < count; ++i) {
    now += static_cast<double>(gaps[i % gaps.size()]) / mean / per_s;
    out.push_back(now);
  }
  return out;
}

}  // namespace

std::vector<Nanos> arrivals(std::string_view kind, double per_s, std::size_t count, std::uint64_t seed,
                            const std::vector<Nanos>& recorded) {
  Random random(seed);
  std::vector<double> seconds;
  if (kind == "bursty") {
    seconds = bursty(per_s, count, random);
  } else if (kind == "diurnal") {
    seconds = diurnal(per_s, count, random);
  } else if (kind == "recorded") {
    seconds = repeated(per_s, count, recorded);
  } else {
    double now = 0;
    for (std::size_t i = 0; i < count; ++i) seconds.push_back(now += exponential(random, per_s));
  }
  std::vector<Nanos> out;
  out.reserve(seconds.size());
  for (const double s : seconds) out.push_back(static_cast<Nanos>(s * 1e9));
  return out;
}

std::vector<Nanos> read_recorded(const std::string& path) {
  std::ifstream file(path);
  std::vector<Nanos> gaps;
  Nanos last = -1;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const Nanos at = std::stoll(line) * kMicrosecond;
    if (last >= 0) gaps.push_back(std::max<Nanos>(at - last, 0));
    last = at;
  }
  return gaps;
}

}  // namespace simulator
