#include "memory/pinned_arena.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>

#include "base/log.h"
#include "memory/pinned_slab.h"

namespace fastserve {
namespace {

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// A slab for a piece of `bytes` when `left` of the budget is left; 0: none fits.
std::size_t slab_bytes_for(std::size_t bytes, std::uint64_t left) {
  const std::size_t standard = PinnedSlab::kStandardBytes;
  if (bytes > standard / 2) {
    const std::size_t own = round_up(bytes, PinnedSlab::kPageBytes);
    return own <= left ? own : 0;
  }
  const std::uint64_t most = std::min<std::uint64_t>(standard, left == 0 ? 0 : std::bit_floor(left));
  return most >= PinnedSlab::kPageBytes && most >= bytes ? static_cast<std::size_t>(most) : 0;
}

}  // namespace

class PinnedArena::ModelAllocator final : public HostAllocator {
 public:
  ModelAllocator(std::shared_ptr<PinnedArena> arena, int node) : arena_(std::move(arena)), node_(node) {}
  ~ModelAllocator() override { arena_->trim(); }
  ModelAllocator(const ModelAllocator&) = delete;
  ModelAllocator& operator=(const ModelAllocator&) = delete;

  std::byte* allocate(std::size_t bytes) override { return arena_->allocate(bytes, node_); }
  void free(std::byte* memory, std::size_t /*bytes*/) override { arena_->free(memory); }

 private:
  const std::shared_ptr<PinnedArena> arena_;
  const int node_;
};

std::shared_ptr<PinnedArena> PinnedArena::make(PinnedRanges& ranges, std::uint64_t budget_bytes) {
  return std::shared_ptr<PinnedArena>(new PinnedArena(ranges, budget_bytes));
}

PinnedArena::PinnedArena(PinnedRanges& ranges, std::uint64_t budget_bytes) : ranges_(ranges) {
  totals_.budget = budget_bytes;
}

PinnedArena::~PinnedArena() = default;

std::shared_ptr<HostAllocator> PinnedArena::allocator(int node) {
  return std::make_shared<ModelAllocator>(shared_from_this(), node);
}

void PinnedArena::set_budget(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  totals_.budget = bytes;
}

PinnedTotals PinnedArena::totals() const {
  const std::lock_guard lock(mutex_);
  PinnedTotals out = totals_;
  out.slabs = slabs_.size();
  return out;
}

void PinnedArena::trim() {
  const std::lock_guard lock(mutex_);
  give_back_empty();
}

std::byte* PinnedArena::allocate(std::size_t bytes, int node) {
  if (bytes > SIZE_MAX - PinnedSlab::kPageBytes) return nullptr;
  const std::lock_guard lock(mutex_);
  try {
    std::byte* const piece = allocate_pinned(bytes, node);
    return piece != nullptr ? piece : allocate_pageable(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

std::byte* PinnedArena::allocate_pinned(std::size_t bytes, int node) {
  const bool own_slab = bytes > PinnedSlab::kStandardBytes / 2;
  for (const auto& [begin, slab] : slabs_) {
    const bool whole = !std::has_single_bit(slab->bytes());
    // Large pieces only where little is wasted; small ones not out of a slab that stands for one piece.
    if (slab->node() != node || (own_slab ? slab->bytes() / 2 > bytes : whole)) continue;
    std::byte* const piece = slab->allocate(bytes);
    if (piece == nullptr) continue;
    totals_.used_bytes += slab->piece_bytes(piece);
    return piece;
  }
  PinnedSlab* const slab = add_slab(bytes, node);
  if (slab == nullptr) return nullptr;
  std::byte* const piece = slab->allocate(bytes);
  totals_.used_bytes += slab->piece_bytes(piece);
  return piece;
}

PinnedSlab* PinnedArena::add_slab(std::size_t bytes, int node) {
  const auto size = [&] {
    return slab_bytes_for(bytes, totals_.budget - std::min(totals_.budget, totals_.slab_bytes));
  };
  std::size_t slab_bytes = size();
  if (slab_bytes == 0) {
    give_back_empty();  // spares that do not suit
    slab_bytes = size();
  }
  if (slab_bytes == 0) {
    ++totals_.over_budget;
    warn("the budget of " + std::to_string(totals_.budget) +
         " bytes is used up (--pinned-memory-pool-byte-size)");
    return nullptr;
  }
  auto made = PinnedSlab::make(ranges_, slab_bytes, node);
  if (!made.is_ok()) {
    ++totals_.refused;
    warn(made.status().message());
    return nullptr;
  }
  totals_.slab_bytes += slab_bytes;
  PinnedSlab* const slab = made->get();
  slabs_[slab->begin()] = std::move(*made);
  return slab;
}

std::byte* PinnedArena::allocate_pageable(std::size_t bytes) {
  const std::size_t padded = round_up(std::max(bytes, kAlign), kAlign);
  auto* const piece = static_cast<std::byte*>(std::aligned_alloc(kAlign, padded));
  if (piece == nullptr) return nullptr;
  pageable_[piece] = padded;
  totals_.pageable_bytes += padded;
  return piece;
}

void PinnedArena::free(std::byte* memory) {
  const std::lock_guard lock(mutex_);
  if (const auto pageable = pageable_.find(memory); pageable != pageable_.end()) {
    totals_.pageable_bytes -= pageable->second;
    pageable_.erase(pageable);
    return std::free(memory);
  }
  const auto at = std::prev(slabs_.upper_bound(memory));
  PinnedSlab& slab = *at->second;
  totals_.used_bytes -= slab.free(memory);
  if (!slab.empty()) return;
  // One spare of each node is kept: locking takes milliseconds, and batches come and go.
  const auto spares = std::ranges::count_if(
      slabs_, [&](const auto& each) { return each.second->node() == slab.node() && each.second->empty(); });
  if (spares > 1) give_back(at);
}

PinnedArena::Slabs::iterator PinnedArena::give_back(Slabs::iterator slab) {
  totals_.slab_bytes -= slab->second->bytes();
  return slabs_.erase(slab);
}

void PinnedArena::give_back_empty() {
  for (auto at = slabs_.begin(); at != slabs_.end();)
    at = at->second->empty() ? give_back(at) : std::next(at);
}

void PinnedArena::warn(const std::string& why) {
  if (std::exchange(warned_, true)) return;
  log(LogLevel::kWarning,
      "page-locked memory: batches use pageable memory, whose copies to the GPU are synchronous: " + why +
          " (said once; see fastserve_pinned_memory_fallbacks_total)");
}

PinnedArena& pinned_arena() {
  static auto* const arena = new std::shared_ptr<PinnedArena>(PinnedArena::make(pinned_ranges()));
  return **arena;
}

}  // namespace fastserve
