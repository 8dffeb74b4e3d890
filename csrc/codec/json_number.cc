#include "codec/json_number.h"

#include <fast_float/fast_float.h>

#include <limits>

namespace fastserve {
namespace {

// Eisel and Lemire's algorithm on digits that are read already; seldom (halfway cases, more than 19 digits) the text again.
template <class T>
std::optional<T> nearest(const JsonNumber& number) {
  T value{};
  fast_float::adjusted_mantissa parts;
  parts.power2 = -1;
  if (number.exact)
    parts = fast_float::compute_float<fast_float::binary_format<T>>(number.exponent, number.mantissa);
  if (parts.power2 >= 0) {
    fast_float::to_float(number.negative, parts, value);
  } else {
    fast_float::from_chars(number.text.data(), number.text.data() + number.text.size(), value);
  }
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace

std::optional<double> JsonNumber::long_double() const { return nearest<double>(*this); }
std::optional<float> JsonNumber::long_float() const { return nearest<float>(*this); }

std::optional<std::uint64_t> JsonNumber::as_uint64() const {
  if (!integral || (negative && mantissa != 0)) return std::nullopt;
  if (exact) return mantissa;
  // 20 digits may still fit; more never do (the grammar allows no leading zeros).
  if (negative || text.size() != json_digits::kMantissaDigits + 1) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (__builtin_mul_overflow(value, 10U, &value)) return std::nullopt;
    if (__builtin_add_overflow(value, static_cast<std::uint64_t>(c - '0'), &value)) return std::nullopt;
  }
  return value;
}

std::optional<std::int64_t> JsonNumber::as_int64() const {
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  if (!integral || !exact || mantissa > kMax + (negative ? 1 : 0)) return std::nullopt;
  return static_cast<std::int64_t>(negative ? ~mantissa + 1 : mantissa);
}

}  // namespace fastserve
