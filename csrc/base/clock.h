// Monotonic time in nanoseconds. Pure cores take `Nanos now` as an argument; only owners of threads read a clock.
#pragma once

#include <time.h>

#include <cstdint>

namespace fastserve {

using Nanos = std::int64_t;

inline constexpr Nanos kNever = INT64_MAX;
inline constexpr Nanos kMicrosecond = 1'000;
inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;

// CLOCK_MONOTONIC; comparable with the futex and epoll timeouts of this process.
inline Nanos monotonic_now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + t.tv_nsec;
}

}  // namespace fastserve
