// A message on its way out: bytes that it owns plus spans of memory that somebody else owns, in wire order.
// Shape: external[i].bytes stand before own[external[i].at]; `at` never falls. One owner, one thread at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "memory/byte_buffer.h"

namespace fastserve {

// From this size on payload is referenced instead of copied: a memcpy of 8 KB (~150 ns) costs about what two more iovecs
// and the count on `keep` do.
inline constexpr std::size_t kReferenceBytes = 8 * 1024;

struct OutMessage {
  struct External {
    std::size_t at = 0;  // offset in `own` that these bytes stand before
    std::span<const std::byte> bytes;
  };

  ByteBuffer own;
  std::vector<External> external;
  // Keeps the memory behind `external` until its last byte was written to the socket. An encoder that fills `external` does
  // not know who owns that memory: its caller sets `keep` (for tensors: a std::make_shared<BatchRef>) when needs_keep().
  std::shared_ptr<const void> keep;

  bool needs_keep() const { return !external.empty() && keep == nullptr; }
  std::size_t bytes() const {
    std::size_t sum = own.size();
    for (const External& e : external) sum += e.bytes.size();
    return sum;
  }
  void add_external(std::span<const std::byte> bytes) { external.push_back({own.size(), bytes}); }
  // Copies what is small, refers to what is large.
  void add_payload(std::span<const std::byte> bytes) {
    if (bytes.size() >= kReferenceBytes) {
      add_external(bytes);
    } else {
      own.append(bytes);
    }
  }
  void clear() {  // keeps capacities
    own.clear();
    external.clear();
    keep.reset();
  }
};

}  // namespace fastserve
