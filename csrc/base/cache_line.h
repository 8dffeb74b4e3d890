// Padding unit that keeps variables written by different threads off each other's cache line. 64 bytes on
// every x86-64 and most arm64 cores; std::hardware_destructive_interference_size warns in headers (gcc 12).
#pragma once

#include <cstddef>

namespace fastserve {
inline constexpr std::size_t kCacheLine = 64;
}  // namespace fastserve
