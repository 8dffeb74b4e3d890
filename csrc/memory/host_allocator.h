// Where batch buffers come from: page-locked memory on a CUDA machine, plain aligned memory elsewhere, behind one call.
// Thread: any.
#pragma once

#include <cstddef>

namespace fastserve {

class HostAllocator {
 public:
  virtual ~HostAllocator() = default;
  virtual std::byte* allocate(std::size_t bytes) = 0;  // 64-byte aligned; nullptr when there is none
  virtual void free(std::byte* memory, std::size_t bytes) = 0;
};

// aligned_alloc; lives for ever.
HostAllocator& plain_host_allocator();

}  // namespace fastserve
