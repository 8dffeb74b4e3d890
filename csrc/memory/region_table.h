// Registered regions by name: Triton's system and CUDA shared-memory extensions, one name space. Off until allow().
//
// remove() forgets the name at once (status does not show it, the name is free again); requests that use the region finish
// with it, and the last one unmaps it.
// Thread: any. find() is on the path of requests: a shared lock and one lookup; opening and unmapping happen outside the lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "memory/region.h"

namespace fastserve {

struct RegionTotals {
  bool allowed = false;
  std::size_t registered = 0;
  std::size_t broken = 0;     // of the registered
  std::size_t regions = 0;    // mapped: registered, or unregistered and still used
  std::uint64_t bytes = 0;    // of these
  std::size_t on_device = 0;  // of the registered
  std::uint64_t refused = 0;  // calls of add(), for whatever reason
  RegionLimits limits;
};

class RegionTable {
 public:
  RegionTable();

  // Once, before there are requests.
  void allow(const RegionLimits& limits);
  bool allowed() const { return allowed_.load(std::memory_order_acquire); }
  const RegionLimits& limits() const { return limits_; }

  // ALREADY_EXISTS "shared memory region 'x' already in manager"; RESOURCE_EXHAUSTED beyond the limits; else as Region::open.
  Status add(RegionSpec spec);
  // The same for memory of a GPU, spec.device; errors as Region::open_on_device.
  Status add_on_device(RegionSpec spec, std::span<const std::byte> handle, DeviceMemoryOpener& opener);
  void count_refusal() { refused_.fetch_add(1, std::memory_order_relaxed); }  // of a registration, by others
  void remove(std::string_view name);                                         // nothing when there is none
  void remove_all(bool on_device = false);                                    // of one kind

  // nullptr: there is none.
  std::shared_ptr<Region> find(std::string_view name) const;
  std::vector<RegionSpec> list() const;  // by name
  RegionTotals totals() const;

 private:
  template <class Open>
  Status try_add(RegionSpec spec, Open open);
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  std::atomic<bool> allowed_{false};  // release in allow, acquire in allowed
  RegionLimits limits_;
  const std::shared_ptr<RegionQuota> quota_;
  std::atomic<std::uint64_t> refused_{0};  // relaxed: counts
  mutable std::shared_mutex mutex_;        // guards what follows
  std::unordered_map<std::string, std::shared_ptr<Region>, Hash, std::equal_to<>> regions_;
};

}  // namespace fastserve
