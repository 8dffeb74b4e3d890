// Numbers of JsonReader: the grammar of RFC 8259 section 6, and their nearest float, double and integers.
#include <fast_float/fast_float.h>

#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "codec/json_reader.h"

namespace fastserve {
namespace {

constexpr int kMantissaDigits = 19;  // 10^19 - 1 < 2^64
constexpr std::int32_t kExponentBound = 100'000;

// 10^0 .. 10^22 are exact doubles.
constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// Clinger's case: an exact mantissa and an exact power of ten make one correctly rounded operation.
bool short_double(const JsonNumber& n, double& out) {
  if (!n.exact || n.mantissa > (std::uint64_t{1} << 53) || n.exponent < -22 || n.exponent > 22) return false;
  const double m = static_cast<double>(n.mantissa);
  const double value = n.exponent < 0 ? m / kPowersOfTen[-n.exponent] : m * kPowersOfTen[n.exponent];
  out = n.negative ? -value : value;
  return true;
}

template <class T>
std::optional<T> full_parse(std::string_view text) {
  T value{};
  fast_float::from_chars(text.data(), text.data() + text.size(), value);
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace

std::optional<double> JsonNumber::as_double() const {
  double value = 0;
  if (short_double(*this, value)) return value;
  return full_parse<double>(text);
}

// Rounding a correctly rounded double to float is correct but when the double sits on the midpoint of two floats (then the
// decimal may lie on either side of it) or outside the floats' normal range.
std::optional<float> JsonNumber::as_float() const {
  double value = 0;
  if (short_double(*this, value)) {
    const double size = std::fabs(value);
    const std::uint64_t below = std::bit_cast<std::uint64_t>(value) & 0x1FFF'FFFF;
    if (below != 0x1000'0000 && ((size >= FLT_MIN && size <= FLT_MAX) || size == 0)) return static_cast<float>(value);
  }
  return full_parse<float>(text);
}

std::optional<std::uint64_t> JsonNumber::as_uint64() const {
  if (!integral || (negative && mantissa != 0)) return std::nullopt;
  if (exact) return mantissa;
  // 20 digits may still fit; more never do (the grammar allows no leading zeros).
  if (text.size() != kMantissaDigits + 1 || negative) return std::nullopt;
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

// Reads digits into the mantissa while they are significant and fit; `significant` counts those read.
inline bool JsonReader::scan_digits(JsonNumber& out, int& significant) {
  if (!at_digit()) return fail("expected a digit");
  for (; at_digit(); ++at_) {
    const auto digit = static_cast<unsigned>(*at_ - '0');
    if (significant == 0 && digit == 0) continue;
    if (++significant <= kMantissaDigits) out.mantissa = out.mantissa * 10 + digit;
  }
  return true;
}

bool JsonReader::scan_exponent(JsonNumber& out) {
  ++at_;
  bool minus = false;
  if (at_ != end_ && (*at_ == '+' || *at_ == '-')) minus = *at_++ == '-';
  if (!at_digit()) return fail("expected a digit");
  std::int32_t exponent = 0;
  for (; at_digit(); ++at_) exponent = std::min(exponent * 10 + (*at_ - '0'), kExponentBound);
  out.exponent += minus ? -exponent : exponent;
  out.integral = false;
  return true;
}

bool JsonReader::scan_number(JsonNumber& out) {
  const char* const start = at_;
  out = {};
  if (at_ != end_ && *at_ == '-') {
    out.negative = true;
    ++at_;
  }
  int significant = 0;
  if (at_ != end_ && *at_ == '0') {
    ++at_;
    if (at_digit()) return fail("a number with leading zeros");
  } else if (!scan_digits(out, significant)) {
    return false;
  }
  if (at_ != end_ && *at_ == '.') {
    const char* const fraction = ++at_;
    if (!scan_digits(out, significant)) return false;
    out.exponent = -static_cast<std::int32_t>(at_ - fraction);
    out.integral = false;
  }
  if (at_ != end_ && (*at_ | 0x20) == 'e' && !scan_exponent(out)) return false;
  out.exact = significant <= kMantissaDigits;
  out.text = {start, static_cast<std::size_t>(at_ - start)};
  if (out.text.size() > limits_.number_chars) {
    return fail_at(static_cast<std::size_t>(start - begin_),
                   "a number longer than " + std::to_string(limits_.number_chars) + " characters");
  }
  return true;
}

}  // namespace fastserve
