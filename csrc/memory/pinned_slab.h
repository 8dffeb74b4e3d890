// One mapping of the pinned arena and the pieces given out of it: a buddy allocator whose notes stand outside of the memory (which
// the device may be writing). No locking of its own: the arena's mutex.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "memory/pinned_ranges.h"

namespace fastserve {

class PinnedSlab {
 public:
  static constexpr std::size_t kPageBytes = std::size_t{2}
                                            << 20;  // a huge page: slabs are whole ones, aligned
  static constexpr std::size_t kStandardBytes = std::size_t{8} << 20;  // of a slab with many pieces
  static constexpr std::size_t kSmallestPiece = 256;

  // Maps and locks `bytes` (whole huge pages) near memory node `node` (< 0: anywhere). A slab of a power of two is given out
  // in pieces, another one whole. Errors: RESOURCE_EXHAUSTED (no memory), else as PageLock::lock.
  static Result<std::unique_ptr<PinnedSlab>> make(PinnedRanges& ranges, std::size_t bytes, int node);
  ~PinnedSlab();  // no piece is out; unlocks and unmaps
  PinnedSlab(const PinnedSlab&) = delete;
  PinnedSlab& operator=(const PinnedSlab&) = delete;

  // nullptr: no room. A piece is a power of two of bytes, or the slab.
  std::byte* allocate(std::size_t bytes);
  std::size_t free(std::byte* piece);  // bytes of the piece

  std::byte* begin() const { return begin_; }
  std::size_t bytes() const { return bytes_; }
  int node() const { return node_; }
  bool empty() const { return pieces_.empty(); }
  std::size_t piece_bytes(std::byte* piece) const { return pieces_.at(piece); }

 private:
  PinnedSlab(PinnedRanges& ranges, std::byte* begin, std::size_t bytes, int node);

  PinnedRanges& ranges_;
  std::byte* const begin_;
  const std::size_t bytes_;
  const int node_;
  std::map<std::byte*, std::size_t> pieces_;            // that are out, and their bytes
  std::map<std::size_t, std::set<std::byte*>> unused_;  // by bytes: a power of two, or the slab
};

}  // namespace fastserve
