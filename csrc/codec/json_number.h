// A JSON number (RFC 8259 section 6): its scan and its nearest float, double and integers. In a header because a tensor of
// 150,000 numbers calls it 150,000 times.
#pragma once

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace fastserve {

// A number as it stands in the text, with its digits read: value = ±mantissa x 10^exponent when exact.
struct JsonNumber {
  std::string_view text;
  std::uint64_t mantissa = 0;
  std::int32_t exponent = 0;
  bool negative = false;
  bool integral = true;  // written without fraction and exponent
  bool exact = true;     // all digits fit into mantissa (19 significant ones at most)

  // The nearest double / float (round to even, no double rounding); nullopt when that is infinite.
  std::optional<double> as_double() const {
    double value = 0;
    return short_double(value) ? value : long_double();
  }
  // Rounding a correctly rounded double to float is correct but when the double sits on the midpoint of two floats (then the
  // decimal may lie on either side of it) or outside the floats' normal range.
  std::optional<float> as_float() const {
    double value = 0;
    if (short_double(value)) {
      const double size = std::fabs(value);
      const std::uint64_t below = std::bit_cast<std::uint64_t>(value) & 0x1FFF'FFFF;
      if (below != 0x1000'0000 && ((size >= FLT_MIN && size <= FLT_MAX) || size == 0))
        return static_cast<float>(value);
    }
    return long_float();
  }
  // Integral numbers within the type; nullopt otherwise. -0 is 0.
  std::optional<std::int64_t> as_int64() const;
  std::optional<std::uint64_t> as_uint64() const;

  // 10^0 .. 10^22 are exact doubles.
  static constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                            1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                            1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

 private:
  // Clinger's case: an exact mantissa and an exact power of ten make one correctly rounded operation.
  bool short_double(double& out) const {
    if (!exact || mantissa > (std::uint64_t{1} << 53) || exponent < -22 || exponent > 22) return false;
    const double m = static_cast<double>(mantissa);
    const double value = exponent < 0 ? m / kPowersOfTen[-exponent] : m * kPowersOfTen[exponent];
    out = negative ? -value : value;
    return true;
  }
  std::optional<double> long_double() const;  // by fast_float
  std::optional<float> long_float() const;
};

namespace json_digits {

inline constexpr std::ptrdiff_t kMantissaDigits = 19;  // 10^19 - 1 < 2^64
inline constexpr std::int32_t kExponentBound = 100'000;

inline bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// Eight ASCII digits at once (little-endian load): false when one is none.
inline bool eight(const char* p, std::uint64_t& value) {
  std::uint64_t v = 0;
  std::memcpy(&v, p, 8);
  if (((v & 0xF0F0F0F0F0F0F0F0) | (((v + 0x0606060606060606) & 0xF0F0F0F0F0F0F0F0) >> 4)) !=
      0x3333333333333333)
    return false;
  v = (v & 0x0F0F0F0F0F0F0F0F) * 2561 >> 8;
  v = (v & 0x00FF00FF00FF00FF) * 6553601 >> 16;
  value = (v & 0x0000FFFF0000FFFF) * 42949672960001 >> 32;
  return true;
}

// Digits from p on into the mantissa, which may wrap; returns behind the last.
inline const char* read(const char* p, const char* end, std::uint64_t& mantissa) {
  for (std::uint64_t block = 0; end - p >= 8 && eight(p, block); p += 8)
    mantissa = mantissa * 100'000'000 + block;
  for (; p != end && is_digit(*p); ++p) mantissa = mantissa * 10 + static_cast<unsigned>(*p - '0');
  return p;
}

// Reads a number at p. On success returns behind it; else nullptr, with `bad` at the fault and `what` wrong.
inline const char* scan(const char* p, const char* end, JsonNumber& out, const char*& bad,
                        const char*& what) {
  const char* const start = p;
  const auto fault = [&](const char* at, const char* words) {
    bad = at;
    what = words;
    return nullptr;
  };
  const bool negative = p != end && *p == '-';
  p += negative;
  const char* const digits = p;
  std::uint64_t mantissa = 0;
  p = read(p, end, mantissa);
  std::ptrdiff_t count = p - digits;
  if (count == 0) return fault(p, "expected a digit");
  if (count > 1 && *digits == '0') return fault(digits + 1, "a number with leading zeros");
  std::int32_t exponent = 0;
  bool integral = true;
  if (p != end && *p == '.') {
    const char* const fraction = ++p;
    p = read(p, end, mantissa);
    if (p == fraction) return fault(p, "expected a digit");
    count += p - fraction;
    exponent = static_cast<std::int32_t>(-(p - fraction));
    integral = false;
  }
  const char* const digits_end = p;
  if (p != end && (*p | 0x20) == 'e') {
    ++p;
    const bool minus = p != end && *p == '-';
    p += p != end && (*p == '+' || *p == '-');
    const char* const power = p;
    std::int32_t value = 0;
    for (; p != end && is_digit(*p); ++p) value = std::min(value * 10 + (*p - '0'), kExponentBound);
    if (p == power) return fault(p, "expected a digit");
    exponent += minus ? -value : value;
    integral = false;
  }
  bool exact = count <= kMantissaDigits;
  if (!exact) {  // leading zeros (0.000...) do not count
    const char* first = digits;
    while (first != digits_end && (*first == '0' || *first == '.')) ++first;
    const bool point_behind =
        std::memchr(first, '.', static_cast<std::size_t>(digits_end - first)) != nullptr;
    exact = digits_end - first - (point_behind ? 1 : 0) <= kMantissaDigits;
  }
  out.text = {start, static_cast<std::size_t>(p - start)};
  out.mantissa = mantissa;
  out.exponent = exponent;
  out.negative = negative;
  out.integral = integral;
  out.exact = exact;
  return p;
}

}  // namespace json_digits
}  // namespace fastserve
