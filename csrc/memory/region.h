// A registered region of shared memory: a range of a POSIX shared memory object that a client made (shm_open), mapped; or memory of a
// GPU that it shares with us (CUDA IPC). Contract: Triton's system and CUDA shared-memory extensions, contracts.md section 2.5.
//
// Counted: the table holds one reference while the name is registered, every request that reads it or is answered into it
// another; the last one unmaps. Its owner may write to it at any time, so nothing that was checked in it stays true; and may cut
// it off, which the guard of sigbus_guard.h makes harmless: the region is then broken, for good.
// Page-locked while a GPU is in use (memory/pinned_ranges.h), as long as it lives: until its last request is done.
// Thread: any; the object itself does not change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "memory/device_memory.h"
#include "memory/pinned_ranges.h"
#include "memory/region_quota.h"
#include "memory/sigbus_guard.h"

namespace fastserve {

inline constexpr std::size_t kMaxRegionNameBytes = 256;
inline constexpr std::size_t kMaxRegionKeyBytes = 255;  // NAME_MAX, with the slash

struct RegionSpec {
  std::string name;          // what requests call it
  std::string key;           // of the object: one slash in front at most
  std::uint64_t offset = 0;  // bytes from the start of the object to the region; any
  std::uint64_t bytes = 0;
  int device = kHost;  // of the GPU whose memory it is (then key and offset say nothing)

  static constexpr int kHost = -1;
  bool on_device() const { return device != kHost; }
};

class Region {
 public:
  // Opens, checks and maps. INVALID_ARGUMENT: name or key that may not be, no such object (or not ours to write: the words are
  // the same), the object is smaller. RESOURCE_EXHAUSTED: no memory or descriptors.
  static Result<std::shared_ptr<Region>> open(RegionSpec spec, RegionQuota::Share share);
  // Memory of the GPU spec.device by its handle. INVALID_ARGUMENT: the name, the handle, or more bytes than there are.
  static Result<std::shared_ptr<Region>> open_on_device(RegionSpec spec, std::span<const std::byte> handle,
                                                        DeviceMemoryOpener& opener, RegionQuota::Share share);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  const RegionSpec& spec() const { return spec_; }
  DeviceMemory* on_device() const { return device_.get(); }  // nullptr: memory of the host
  bool broken() const { return range_.broken(); }
  // INVALID_ARGUMENT in the words of the contract.
  Status refusal() const;

  // [offset, offset + bytes) of it; addresses of the GPU where on_device() is set. Errors: INVALID_ARGUMENT in Triton's words, and what was got and wanted.
  Result<std::span<std::byte>> at(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  Region(RegionSpec spec, RegionQuota::Share share) : spec_(std::move(spec)), share_(std::move(share)) {}
  Status map();

  const RegionSpec spec_;
  const RegionQuota::Share share_;
  std::byte* mapped_ = nullptr;  // whole pages
  std::size_t mapped_bytes_ = 0;
  std::byte* begin_ = nullptr;  // of the region
  GuardedRange range_;
  PinnedRange pinned_;  // goes before the mapping
  std::shared_ptr<DeviceMemory> device_;
};

// INVALID_ARGUMENT that says what is wrong with it.
Status check_region_name(std::string_view name);
// The key confines a client to objects directly in /dev/shm, without those that semaphores and servers have for themselves.
Status check_region_key(std::string_view name, std::string_view key);

// What errors repeat of a client's text: at most 128 bytes, control characters as '?'.
std::string shown(std::string_view text);

}  // namespace fastserve
