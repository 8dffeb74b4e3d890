// The three parameters of an input or requested output that stands in shared memory: shared_memory_region,
// shared_memory_byte_size, shared_memory_offset (0 when it is not given). The same for gRPC and REST. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "batch/request.h"

namespace fastserve {

inline constexpr std::string_view kSharedRegion = "shared_memory_region";
inline constexpr std::string_view kSharedBytes = "shared_memory_byte_size";
inline constexpr std::string_view kSharedOffset = "shared_memory_offset";

struct SharedPlaceDraft {
  std::optional<std::string_view> region;
  std::optional<std::uint64_t> bytes, offset;

  bool given() const { return region || bytes || offset; }

  // INVALID_ARGUMENT unless both region and size are given, or nothing (then `out` stays as it is). `owner` returns the path
  // for messages, "inputs[2]".
  template <class Owner>
  Status complete(Owner owner, SharedPlace& out) const {
    if (!given()) return Status::ok();
    if (!region || region->empty()) return missing(owner(), kSharedRegion);
    if (!bytes) return missing(owner(), kSharedBytes);
    out = {*region, offset.value_or(0), *bytes};
    return Status::ok();
  }

 private:
  static Status missing(const std::string& owner, std::string_view name) {
    return invalid_argument(owner + ".parameters[\"" + std::string(name) +
                            "\"]: missing, want both shared_memory_region and shared_memory_byte_size");
  }
};

// Triton's words; its classes are texts, made by the front end.
inline Status classified_and_shared(const std::string& owner) {
  return invalid_argument("output can't set both 'shared_memory_region' and 'classification'. " + owner +
                          ".parameters: got both");
}

}  // namespace fastserve
