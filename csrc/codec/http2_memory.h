// Where nghttp2 gets its memory: six small objects a request (stream, frames to send, copies of header lists), taken and given
// back in a rhythm for which malloc does too much. Blocks that were given back wait in lists by size, up to a bound.
// Included by codec/http2_*.cc only.
// Thread: one per object. The sessions made on a thread share that thread's, and keep it alive.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace fastserve {

class Http2Memory {
 public:
  static std::shared_ptr<Http2Memory> of_this_thread();

  Http2Memory() = default;
  ~Http2Memory();  // all that was taken was given back
  Http2Memory(const Http2Memory&) = delete;
  Http2Memory& operator=(const Http2Memory&) = delete;

  // As malloc and its kin, for any sizes: nullptr when there is none.
  void* take(std::size_t bytes);
  void* take_zeroed(std::size_t count, std::size_t bytes);
  void* resize(void* block, std::size_t bytes);
  void give_back(void* block);

  nghttp2_mem for_session();  // refers to this object

  std::size_t waiting_blocks() const;  // given back and kept

 private:
  static constexpr std::size_t kStep = 64;
  static constexpr std::size_t kClasses = 16;  // up to 1 KiB; larger ones come from malloc each time
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::uint32_t kKept = 0;  // so that AddressSanitizer sees each use after the end
#else
  static constexpr std::uint32_t kKept = 128;  // of each size: 1.1 MB a thread at most
#endif
  struct alignas(std::max_align_t) Head {  // in front of each block
    std::size_t size_class;                // its size / kStep - 1; kClasses: malloc's
    Head* next;
  };
  struct List {
    Head* first = nullptr;
    std::uint32_t count = 0;
  };
  static Head* head_of(void* block) { return static_cast<Head*>(block) - 1; }

  std::array<List, kClasses> waiting_;
};

}  // namespace fastserve
