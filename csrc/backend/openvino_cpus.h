// How many CPUs a model may use.
// Thread: any.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fastserve {

// CPUs that this process may use: its affinity, and its cgroup's quota rounded up. >= 1.
int usable_cpus();

// The content of cgroup v2's cpu.max ("150000 100000", "max 100000"; microseconds of quota and period) as CPUs.
// nullopt: no limit, or not understood. Here and not in the plug-in's .cc because it is pure and tested as such.
inline std::optional<double> parse_cpu_max(std::string_view text) {
  std::int64_t quota_us = 0;
  std::int64_t period_us = 0;
  const char* const end = text.data() + text.size();
  const auto quota = std::from_chars(text.data(), end, quota_us);
  if (quota.ec != std::errc() || quota.ptr == end || *quota.ptr != ' ') return std::nullopt;
  const auto period = std::from_chars(quota.ptr + 1, end, period_us);
  if (period.ec != std::errc() || quota_us <= 0 || period_us <= 0) return std::nullopt;
  return static_cast<double>(quota_us) / static_cast<double>(period_us);
}

}  // namespace fastserve
