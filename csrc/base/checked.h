// Arithmetic on sizes that come from outside: false instead of wrap-around.
#pragma once

#include <concepts>

namespace fastserve {

template <std::integral T>
[[nodiscard]] bool checked_mul(T a, T b, T& out) {
  return !__builtin_mul_overflow(a, b, &out);
}

template <std::integral T>
[[nodiscard]] bool checked_add(T a, T b, T& out) {
  return !__builtin_add_overflow(a, b, &out);
}

}  // namespace fastserve
