// What copies, fills, kernels and host functions do when their time has come.
#include <algorithm>
#include <cstring>
#include <utility>

#include "simulated_cuda/world.h"

namespace simulated_cuda {

namespace {

thread_local bool inside_host_function = false;

// The address must be inside one allocation now, when the device touches it, not only when the call was made.
std::byte* touched(std::uint64_t address, std::size_t bytes) {
  World& all = world();
  const Lock lock(all.mutex);
  std::byte* found = device_bytes(all, address, bytes);
  if (found == nullptr) count(all, "out_of_bounds");
  return found;
}

bool still_pinned(const void* address, std::size_t bytes) {
  World& all = world();
  const Lock lock(all.mutex);
  if (is_pinned(all, address, bytes)) return true;
  count(all, "unpinned_during_copy");
  return false;
}

std::int64_t copy_us(std::int64_t fixed_us, std::size_t bytes) {
  const std::int64_t rate = world().settings.bytes_per_us;
  return fixed_us + (rate > 0 ? static_cast<std::int64_t>(bytes) / rate : 0);
}

Step step(int engine, const char* name, std::uint64_t address, std::size_t bytes, CUgraphNodeType type) {
  Step made;
  made.engine = engine;
  made.name = name;
  made.address = address;
  made.bytes = bytes;
  made.type = type;
  return made;
}

void* kernel_memory(const SimulatedKernel* kernel, uint64_t address, size_t bytes) {
  std::byte* found = touched(address, bytes);
  if (found == nullptr) *static_cast<bool*>(kernel->state) = true;
  return found;
}

}  // namespace

bool in_host_function() { return inside_host_function; }

Step copy_in(Device& device, std::uint64_t destination, const void* source, std::size_t bytes) {
  (void)device;
  Step made = step(SIMULATED_H2D, "h2d", destination, bytes, CU_GRAPH_NODE_TYPE_MEMCPY);
  made.cost_us = copy_us(world().settings.h2d_us, bytes);
  const bool pinned = is_pinned(world(), source, bytes);
  made.work = [=] {
    if (pinned && !still_pinned(source, bytes)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    std::byte* to = touched(destination, bytes);
    if (to == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
    std::memcpy(to, source, bytes);
    return CUDA_SUCCESS;
  };
  return made;
}

Step copy_out(Device& device, void* destination, std::uint64_t source, std::size_t bytes) {
  (void)device;
  Step made = step(SIMULATED_D2H, "d2h", source, bytes, CU_GRAPH_NODE_TYPE_MEMCPY);
  made.cost_us = copy_us(world().settings.d2h_us, bytes);
  const bool pinned = is_pinned(world(), destination, bytes);
  made.work = [=] {
    if (pinned && !still_pinned(destination, bytes)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    const std::byte* from = touched(source, bytes);
    if (from == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
    std::memcpy(destination, from, bytes);
    return CUDA_SUCCESS;
  };
  return made;
}

Step copy_device(Device& device, std::uint64_t destination, std::uint64_t source, std::size_t bytes) {
  (void)device;
  Step made = step(SIMULATED_COMPUTE, "d2d", destination, bytes, CU_GRAPH_NODE_TYPE_MEMCPY);
  made.work = [=] {
    const std::byte* from = touched(source, bytes);
    std::byte* to = touched(destination, bytes);
    if (from == nullptr || to == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
    std::memmove(to, from, bytes);
    return CUDA_SUCCESS;
  };
  return made;
}

Step fill(Device& device, std::uint64_t address, std::uint64_t value, unsigned element_bytes,
          std::size_t elements) {
  (void)device;
  const std::size_t bytes = elements * element_bytes;
  Step made = step(SIMULATED_COMPUTE, "memset", address, bytes, CU_GRAPH_NODE_TYPE_MEMSET);
  made.work = [=] {
    std::byte* to = touched(address, bytes);
    if (to == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
    for (std::size_t i = 0; i < elements; ++i) std::memcpy(to + i * element_bytes, &value, element_bytes);
    return CUDA_SUCCESS;
  };
  return made;
}

Step host_function(CUhostFn function, void* argument) {
  Step made = step(SIMULATED_HOST, "host", 0, 0, CU_GRAPH_NODE_TYPE_HOST);
  made.work = [=] {
    inside_host_function = true;
    function(argument);
    inside_host_function = false;
    return CUDA_SUCCESS;
  };
  return made;
}

Step kernel(Device& device, const CUfunc_st& function, std::vector<std::uint64_t> words) {
  Step made = step(SIMULATED_COMPUTE, function.name.c_str(), 0, 0, CU_GRAPH_NODE_TYPE_KERNEL);
  made.cost_us = function.cost_us >= 0 ? function.cost_us : world().settings.kernel_us;
  made.work = [words = std::move(words), run = function.function, ordinal = device.ordinal] {
    bool outside = false;
    const SimulatedKernel kernel{words.data(), static_cast<unsigned>(words.size()), ordinal, kernel_memory,
                                 &outside};
    const int result = run(&kernel);
    return outside ? CUDA_ERROR_ILLEGAL_ADDRESS : static_cast<CUresult>(result);
  };
  return made;
}

}  // namespace simulated_cuda
