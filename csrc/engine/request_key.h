// What makes two requests to one version ask for the same answer: the inputs given (which, shapes, bytes), the outputs asked
// for in their order, and the client's own parameters. Not: id, priority, deadline, timeout, classification, and how the
// outputs are to be encoded.
//
// A key is compared byte for byte, so two different requests never share an answer; the fingerprint only finds the candidate.
// Thread: any; needs a request that passed validate (input_order, output_order).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "batch/request.h"

namespace fastserve {

// False: the answer depends on more than the key. So with sequences (`sequence_id` other than 0, `sequence_start` ...).
bool cacheable(const Request& request);

class RequestKey {
 public:
  // Looks at the request, which must stay; its small parts are in memory of the calling thread, good until the next RequestKey
  // on it. Throws std::bad_alloc.
  explicit RequestKey(const Request& request);

  std::uint64_t fingerprint(std::uint64_t seed) const;
  std::size_t bytes() const { return bytes_; }
  void copy_to(std::byte* to) const;  // bytes() of them
  bool equals(std::span<const std::byte> copied) const;

 private:
  const Request& request_;
  const std::vector<std::byte>& head_;
  std::size_t bytes_ = 0;
};

}  // namespace fastserve
