// The GPUs that this process sees (CUDA_VISIBLE_DEVICES), by ordinal and UUID.
// Thread: any; asks the driver, not for hot paths.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fastserve {

struct CudaDeviceFacts {
  int ordinal = 0;
  std::string name;  // "NVIDIA H200"
  std::string uuid;  // "GPU-..." or "MIG-..."
  std::string pci;   // "0000:3b:00.0"
  int sm = 0;        // compute capability: 90 for 9.0; kernels and plans are made for one
  std::uint64_t total_bytes = 0;
  int memory_node = -1;  // next to it; -1: the system does not say (virtual machines)
};

// FAILED_PRECONDITION: no driver, no GPU, or none with this ordinal: gpu: got 3, want 0 to 1.
Result<CudaDeviceFacts> read_cuda_device(int ordinal);
Result<std::vector<CudaDeviceFacts>> list_cuda_devices();  // at least one

// By ordinal ("0") or UUID, of which the beginning is enough when only one has it. nullopt: none, or more than one.
std::optional<int> find_cuda_device(std::span<const CudaDeviceFacts> devices, std::string_view asked);
// What to tell whoever asked for another one: "0 (GPU-...), 1 (GPU-...)".
std::string known_cuda_devices(std::span<const CudaDeviceFacts> devices);

}  // namespace fastserve
