// A bump allocator for what a codec must materialise (JSON numbers, typed protobuf contents): addresses stay valid until
// reset(), which keeps the first block. One owner, one thread at a time.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace fastserve {

class Scratch {
 public:
  // 64-byte aligned, uninitialised.
  std::span<std::byte> allocate(std::size_t bytes) {
    const std::size_t padded = (bytes + kAlign - 1) / kAlign * kAlign;
    if (blocks_.empty() || used_ + padded > blocks_.back().size) add_block(padded);
    std::byte* at = blocks_.back().data.get() + used_;
    used_ += padded;
    return {at, bytes};
  }
  void reset() {
    if (blocks_.size() > 1 || (!blocks_.empty() && blocks_.front().size > kKeepBytes)) blocks_.clear();
    used_ = 0;
  }

 private:
  static constexpr std::size_t kAlign = 64;
  static constexpr std::size_t kBlockBytes = 4096;
  static constexpr std::size_t kKeepBytes = 64 * 1024;
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    std::size_t size;
  };
  void add_block(std::size_t bytes) {
    const std::size_t size = bytes > kBlockBytes ? bytes : kBlockBytes;
    void* p = std::aligned_alloc(kAlign, size);
    if (p == nullptr) throw std::bad_alloc();
    blocks_.push_back({std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(p)), size});
    used_ = 0;
  }

  std::vector<Block> blocks_;
  std::size_t used_ = 0;
};

}  // namespace fastserve
