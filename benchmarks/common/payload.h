// Tensor bytes that a request carries: made from (seed, tag) alone, so a reply can be compared byte for byte
// against what its request sent without keeping a copy of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fastserve::bench {

struct TensorSpec {
  std::string name;
  std::string dtype;                // the names of the Open Inference Protocol: FP32, INT64, UINT8, ...
  std::vector<std::int64_t> shape;  // batch dimension included

  // Bytes of one tensor; 0 for an unknown or a variable-length dtype, a negative dimension or an overflow.
  std::size_t byte_size() const;
};

class Payload {
 public:
  // `spec.byte_size()` must not be 0.
  Payload(const TensorSpec& spec, std::uint64_t seed);

  std::size_t size() const { return size_; }
  // Writes size() bytes. Floating-point values are finite and in [0, 1), so a real model accepts them too.
  void fill(std::uint64_t tag, char* out) const;
  // True if `bytes` are exactly what fill(tag) writes. Not thread-safe: it owns a scratch buffer.
  bool matches(std::uint64_t tag, std::string_view bytes);

 private:
  std::size_t size_;
  std::uint64_t seed_;
  int kind_;  // how random words become values: an entry of the table in payload.cc
  std::string scratch_;
};

}  // namespace fastserve::bench
