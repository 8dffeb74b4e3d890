#include "memory/region_quota.h"

namespace fastserve {

Result<RegionQuota::Share> RegionQuota::take(std::uint64_t bytes, const RegionLimits& limits) {
  const std::size_t regions = regions_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (regions > limits.most_regions) {
    regions_.fetch_sub(1, std::memory_order_relaxed);
    return Status(Code::kResourceExhausted, "shared memory: " + std::to_string(limits.most_regions) +
                                                " regions are registered or in use, want that many or fewer");
  }
  std::uint64_t before = bytes_.load(std::memory_order_relaxed);
  for (std::uint64_t sum = 0;;) {
    if (!checked_add(before, bytes, sum) || sum > limits.most_bytes) {
      regions_.fetch_sub(1, std::memory_order_relaxed);
      return Status(Code::kResourceExhausted, "shared memory: byte_size: got " + std::to_string(bytes) +
                                                  " beside " + std::to_string(before) +
                                                  " bytes that are registered or in use, want " +
                                                  std::to_string(limits.most_bytes) + " or fewer together");
    }
    if (bytes_.compare_exchange_weak(before, sum, std::memory_order_relaxed)) break;
  }
  return Share(shared_from_this(), bytes);
}

}  // namespace fastserve
