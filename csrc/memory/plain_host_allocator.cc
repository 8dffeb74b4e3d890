#include <cstdint>
#include <cstdlib>

#include "memory/host_allocator.h"

namespace fastserve {
namespace {

constexpr std::size_t kAlign = 64;  // a cache line, and what AVX-512 likes to load from

class PlainHostAllocator final : public HostAllocator {
 public:
  std::byte* allocate(std::size_t bytes) override {
    if (bytes > SIZE_MAX - kAlign) return nullptr;
    const std::size_t padded = bytes == 0 ? kAlign : (bytes + kAlign - 1) / kAlign * kAlign;
    return static_cast<std::byte*>(std::aligned_alloc(kAlign, padded));
  }
  void free(std::byte* memory, std::size_t /*bytes*/) override { std::free(memory); }
};

}  // namespace

HostAllocator& plain_host_allocator() {
  // Never destroyed: a kept response may give its batch back while the process exits.
  static HostAllocator* const allocator = new PlainHostAllocator;
  return *allocator;
}

}  // namespace fastserve
