// How much shared memory may be mapped, counted: what is registered and what was unregistered but is still used by requests.
// Thread: any.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/status.h"

namespace fastserve {

struct RegionLimits {
  std::size_t most_regions = 1024;
  std::uint64_t most_bytes = std::uint64_t{16} << 30;
  // Of the BYTES inputs of a request, which are copied, because their lengths must not change once they were checked.
  std::uint64_t most_copied_bytes = std::uint64_t{64} << 20;
};

// Shared by the table and its regions, which may outlive it.
class RegionQuota : public std::enable_shared_from_this<RegionQuota> {
 public:
  // One region's part of it, given back at its end.
  class Share {
   public:
    Share() = default;
    Share(std::shared_ptr<RegionQuota> quota, std::uint64_t bytes)
        : quota_(std::move(quota)), bytes_(bytes) {}
    Share(Share&& other) noexcept : quota_(std::move(other.quota_)), bytes_(other.bytes_) {}
    Share& operator=(Share&&) = delete;
    ~Share() {
      if (quota_ != nullptr) quota_->give_back(bytes_);
    }

   private:
    std::shared_ptr<RegionQuota> quota_;
    std::uint64_t bytes_ = 0;
  };

  // RESOURCE_EXHAUSTED beyond the limits.
  Result<Share> take(std::uint64_t bytes, const RegionLimits& limits);

  std::size_t regions() const { return regions_.load(std::memory_order_relaxed); }
  std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  void give_back(std::uint64_t bytes) {
    regions_.fetch_sub(1, std::memory_order_relaxed);
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  }

  // Relaxed: they count, and guard nothing.
  std::atomic<std::size_t> regions_{0};
  std::atomic<std::uint64_t> bytes_{0};
};

}  // namespace fastserve
