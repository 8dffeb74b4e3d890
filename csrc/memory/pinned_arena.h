// Page-locked host memory for the batches of GPU models: slabs that are locked once and given out in pieces.
//
// A slab is mapped 2 MiB-aligned on the wanted memory node (huge pages where the system has them) and page-locked whole; a piece is a
// power of two of at least 256 bytes and aligned to its own size up to 2 MiB; more than half a slab gets a slab of its own. The
// budget bounds the bytes of all slabs. When it is used up, or the driver or the system refuses to lock (RLIMIT_MEMLOCK), the
// piece comes from pageable memory: it works, copies of it are synchronous; counted, and said once in the log.
// Slabs without pieces go back when the allocator of a model goes (its last batch is gone), and beyond one spare per node at once.
// Thread: any; a mutex, as batches keep their buffers and ask seldom.
// Source: CUDA Driver API, "cuMemHostRegister"; mbind(2), madvise(2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "memory/host_allocator.h"
#include "memory/pinned_ranges.h"

namespace fastserve {

struct PinnedTotals {
  std::uint64_t budget = 0;      // bytes
  std::uint64_t slab_bytes = 0;  // page-locked now
  std::uint64_t used_bytes = 0;  // given out of it, in whole pieces
  std::size_t slabs = 0;
  std::uint64_t pageable_bytes = 0;  // given out beside it, because there was no more
  std::uint64_t over_budget = 0;     // pieces that were made pageable for want of budget, ever
  std::uint64_t refused = 0;         // ... because the driver or the system refused
};

class PinnedSlab;  // pinned_slab.h

class PinnedArena : public std::enable_shared_from_this<PinnedArena> {
 public:
  static constexpr std::uint64_t kDefaultBudget = std::uint64_t{512} << 20;
  static constexpr std::size_t kAlign = 256;  // of every piece, pageable ones too
  static constexpr int kAnyNode = -1;

  // `ranges` outlives it.
  static std::shared_ptr<PinnedArena> make(PinnedRanges& ranges, std::uint64_t budget_bytes = kDefaultBudget);
  ~PinnedArena();
  PinnedArena(const PinnedArena&) = delete;
  PinnedArena& operator=(const PinnedArena&) = delete;

  // For one model (or instance) whose memory is to be on `node`; kAnyNode: wherever. Keeps the arena. 256-byte aligned memory.
  std::shared_ptr<HostAllocator> allocator(int node);

  void set_budget(
      std::uint64_t bytes);  // 0: no page-locked memory. Slabs that are there stay until they are empty
  PinnedTotals totals() const;
  void trim();  // gives back slabs without pieces

 private:
  class ModelAllocator;
  using Slabs = std::map<std::byte*, std::unique_ptr<PinnedSlab>>;

  PinnedArena(PinnedRanges& ranges, std::uint64_t budget_bytes);
  std::byte* allocate(std::size_t bytes, int node);
  void free(std::byte* memory);
  std::byte* allocate_pinned(std::size_t bytes, int node);
  std::byte* allocate_pageable(std::size_t bytes);
  PinnedSlab* add_slab(std::size_t bytes, int node);
  Slabs::iterator give_back(Slabs::iterator slab);
  void give_back_empty();
  void warn(const std::string& why);

  PinnedRanges& ranges_;
  mutable std::mutex mutex_;  // guards what follows
  Slabs slabs_;               // by first byte
  std::unordered_map<std::byte*, std::size_t> pageable_;
  PinnedTotals totals_;
  bool warned_ = false;
};

// The process's; never destroyed.
PinnedArena& pinned_arena();

}  // namespace fastserve
