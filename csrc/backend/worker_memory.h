// The memory that the workers of one model share with the server: segments of sealed memory in which the server alone
// hands out blocks, for batches' inputs and for what workers answer. A worker only maps it, so whatever it does or however
// it ends, the accounts are right; a response that points here stays valid for as long as it is kept.
//
// Block sizes are powers of two from 64 bytes; a freed block is kept for the next of its size, the last one first (its pages
// are warm). Segments are never given back before the whole: 4 MiB first, then doubling up to 1 GiB; pages that nobody wrote cost nothing.
// The workers of a model can write each other's blocks: they run the same code.
// Thread: any.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "local/sealed_memory.h"
#include "memory/host_allocator.h"

namespace fastserve {

class WorkerMemory final : public HostAllocator {
 public:
  static constexpr std::size_t kMostSegments = 64;
  static constexpr std::size_t kMostBlockBytes = std::size_t{1} << 34;  // 16 GiB

  struct Place {
    std::uint32_t segment = 0;
    std::uint64_t offset = 0;
  };

  std::byte* allocate(std::size_t bytes) override;  // nullptr: no memory, or too large
  void free(std::byte* memory, std::size_t bytes) override;

  // Where a block is, as workers name it; nullopt for memory that is not from here.
  std::optional<Place> place_of(const std::byte* memory) const;
  // Segments so far; each is complete once it is counted.
  std::size_t segments() const { return count_.load(std::memory_order_acquire); }  // partner: grow
  int fd(std::size_t segment) const { return segments_[segment].fd(); }

 private:
  bool grow(std::size_t block_bytes);

  std::array<SealedMemory, kMostSegments> segments_;
  std::atomic<std::size_t> count_{0};
  std::mutex mutex_;                              // guards what follows
  std::size_t used_ = 0;                          // of the last segment
  std::array<std::vector<std::byte*>, 40> idle_;  // by the block's size, as a power of two
};

// One block, given back with the object.
class WorkerBlock {
 public:
  // nullptr: no memory.
  static std::shared_ptr<WorkerBlock> make(std::shared_ptr<WorkerMemory> memory, std::size_t bytes);
  WorkerBlock(std::shared_ptr<WorkerMemory> memory, std::byte* data, std::size_t bytes);
  WorkerBlock(const WorkerBlock&) = delete;
  WorkerBlock& operator=(const WorkerBlock&) = delete;
  ~WorkerBlock() { memory_->free(data_, bytes_); }

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  WorkerMemory::Place place() const { return place_; }
  // A strings' output, copied out before its lengths were believed: kept as long as the block.
  std::vector<std::vector<std::byte>> copies;

 private:
  const std::shared_ptr<WorkerMemory> memory_;
  std::byte* const data_;
  const std::size_t bytes_;
  const WorkerMemory::Place place_;
};

}  // namespace fastserve
