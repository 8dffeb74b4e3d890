#include "memory/pinned_slab.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>

namespace fastserve {
namespace {

constexpr int kPreferNode = 1;  // MPOL_PREFERRED of mbind(2): other nodes when that one is full
constexpr int kMostNodes = 1024;
#ifndef MAP_HUGE_2MB
constexpr int MAP_HUGE_2MB = 21 << 26;
#endif

std::byte* map(std::size_t bytes, int flags) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
}

// Ordinary pages, aligned so that the kernel can use huge ones, which it is asked for.
std::byte* map_aligned(std::size_t bytes) {
  std::byte* const at = map(bytes + PinnedSlab::kPageBytes, MAP_NORESERVE);
  if (at == nullptr) return nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  const std::size_t before =
      (PinnedSlab::kPageBytes - address % PinnedSlab::kPageBytes) % PinnedSlab::kPageBytes;
  if (before != 0) ::munmap(at, before);
  ::munmap(at + before + bytes, PinnedSlab::kPageBytes - before);
  ::madvise(at + before, bytes, MADV_HUGEPAGE);  // a help only
  return at + before;
}

// Before the first touch, which locking is. A node that is not there, or a kernel without NUMA: wherever.
void prefer_node(std::byte* at, std::size_t bytes, int node) {
  if (node < 0 || node >= kMostNodes) return;
  constexpr std::size_t kBits = 8 * sizeof(unsigned long);
  std::array<unsigned long, kMostNodes / kBits> mask{};
  mask[static_cast<std::size_t>(node) / kBits] = 1UL << (static_cast<std::size_t>(node) % kBits);
  ::syscall(SYS_mbind, at, bytes, kPreferNode, mask.data(), kMostNodes, 0);
}

Status lock(PinnedRanges& ranges, std::byte* at, std::size_t bytes, int node) {
  prefer_node(at, bytes, node);
  // A child that is forked would turn our pages into copies while the device writes to the originals.
  ::madvise(at, bytes, MADV_DONTFORK);
  Status status = ranges.lock_slab(at, bytes);
  if (!status.is_ok()) ::munmap(at, bytes);
  return status;
}

}  // namespace

Result<std::unique_ptr<PinnedSlab>> PinnedSlab::make(PinnedRanges& ranges, std::size_t bytes, int node) {
  const auto made = [&](std::byte* at) {
    return std::unique_ptr<PinnedSlab>(new PinnedSlab(ranges, at, bytes, node));
  };
  // Reserved huge pages may still be refused at the touch (a container's limit), which locking then reports.
  if (std::byte* at = map(bytes, MAP_HUGETLB | MAP_HUGE_2MB); at != nullptr) {
    if (lock(ranges, at, bytes, node).is_ok()) return made(at);
  }
  std::byte* const at = map_aligned(bytes);
  if (at == nullptr) {
    return Status(Code::kResourceExhausted, "no memory for a slab of " + std::to_string(bytes) + " bytes");
  }
  FS_RETURN_IF_ERROR(lock(ranges, at, bytes, node));
  return made(at);
}

PinnedSlab::PinnedSlab(PinnedRanges& ranges, std::byte* begin, std::size_t bytes, int node)
    : ranges_(ranges), begin_(begin), bytes_(bytes), node_(node) {
  unused_[bytes].insert(begin);
}

PinnedSlab::~PinnedSlab() {
  ranges_.unlock_slab(begin_);
  ::munmap(begin_, bytes_);
}

std::byte* PinnedSlab::allocate(std::size_t bytes) {
  const bool in_pieces = std::has_single_bit(bytes_);
  if (bytes > bytes_) return nullptr;
  const std::size_t wanted = in_pieces ? std::bit_ceil(std::max(bytes, kSmallestPiece)) : bytes_;
  const auto from = unused_.lower_bound(wanted);  // the smallest that is large enough
  if (from == unused_.end()) return nullptr;
  std::size_t size = from->first;
  std::byte* const piece = *from->second.begin();
  from->second.erase(from->second.begin());
  if (from->second.empty()) unused_.erase(from);
  for (; size > wanted; size /= 2) unused_[size / 2].insert(piece + size / 2);
  pieces_[piece] = wanted;
  return piece;
}

std::size_t PinnedSlab::free(std::byte* piece) {
  const auto found = pieces_.find(piece);
  const std::size_t bytes = found->second;
  pieces_.erase(found);
  // Joins with the other half as long as that is unused.
  std::size_t size = bytes;
  for (; size < bytes_; size *= 2) {
    std::byte* const other = begin_ + (static_cast<std::size_t>(piece - begin_) ^ size);
    const auto same_size = unused_.find(size);
    if (same_size == unused_.end() || same_size->second.erase(other) == 0) break;
    if (same_size->second.empty()) unused_.erase(same_size);
    piece = std::min(piece, other);
  }
  unused_[size].insert(piece);
  return bytes;
}

}  // namespace fastserve
