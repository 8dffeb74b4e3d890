#include "common/payload.h"

#include <array>
#include <cstring>

namespace fastserve::bench {
namespace {

// A 64-bit random word becomes values by (word & keep): sign and top exponent bits go, so that floats are
// finite and small. FP32: 0x3f7fffff keeps exponents up to 126, that is values below 1.
struct Kind {
  std::string_view dtype;
  std::size_t bytes;
  std::uint64_t keep;
};
constexpr std::array<Kind, 13> kKinds{{
    {"BOOL", 1, 0x0101010101010101},
    {"UINT8", 1, ~0ULL},
    {"INT8", 1, ~0ULL},
    {"UINT16", 2, ~0ULL},
    {"INT16", 2, ~0ULL},
    {"UINT32", 4, ~0ULL},
    {"INT32", 4, ~0ULL},
    {"UINT64", 8, ~0ULL},
    {"INT64", 8, ~0ULL},
    {"FP16", 2, 0x3bff3bff3bff3bff},
    {"BF16", 2, 0x3f7f3f7f3f7f3f7f},
    {"FP32", 4, 0x3f7fffff3f7fffff},
    {"FP64", 8, 0x3fefffffffffffff},
}};

int kind_of(std::string_view dtype) {
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i].dtype == dtype) return static_cast<int>(i);
  }
  return -1;
}

// splitmix64: the state is a counter, every output differs, and two tags share no run of words.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

std::size_t TensorSpec::byte_size() const {
  const int kind = kind_of(dtype);
  if (kind < 0) return 0;
  std::size_t bytes = kKinds[static_cast<std::size_t>(kind)].bytes;
  for (const std::int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(dim), &bytes)) return 0;
  }
  return bytes;
}

Payload::Payload(const TensorSpec& spec, std::uint64_t seed)
    : size_(spec.byte_size()), seed_(seed), kind_(kind_of(spec.dtype)), scratch_(size_, '\0') {}

void Payload::fill(std::uint64_t tag, char* out) const {
  const std::uint64_t keep = kKinds[static_cast<std::size_t>(kind_)].keep;
  std::uint64_t state = mix(mix(seed_ + 1) ^ (tag + 0x9e3779b97f4a7c15ULL));
  std::size_t at = 0;
  for (; at + 8 <= size_; at += 8) {
    const std::uint64_t word = mix(state += 0x9e3779b97f4a7c15ULL) & keep;
    std::memcpy(out + at, &word, 8);
  }
  const std::uint64_t word = mix(state + 0x9e3779b97f4a7c15ULL) & keep;
  std::memcpy(out + at, &word, size_ - at);
}

bool Payload::matches(std::uint64_t tag, std::string_view bytes) {
  if (bytes.size() != size_) return false;
  fill(tag, scratch_.data());
  return std::memcmp(scratch_.data(), bytes.data(), size_) == 0;
}

}  // namespace fastserve::bench
