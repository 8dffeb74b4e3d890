// Memory of a GPU that another process shares with us (CUDA IPC), without a word of CUDA: who opens and copies it is handed in
// (backend/cuda_ipc.h). Addresses are numbers that only the device may follow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"

namespace fastserve {

// One allocation of the other process, mapped into ours as long as this lives. Counted: regions share it.
// Thread: any. The other side may write to it at any time.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  virtual int device() const = 0;             // the driver's ordinal
  virtual std::uint64_t address() const = 0;  // of its first byte
  virtual std::uint64_t bytes() const = 0;    // of the allocation, as the driver says

  // Between it and host memory; return when the bytes are there. `at`: an address inside of it. Errors: UNAVAILABLE (the device is
  // lost), INVALID_ARGUMENT (it is gone).
  virtual Status read(std::byte* to, const std::byte* at, std::size_t bytes) = 0;
  virtual Status write(std::byte* at, const std::byte* from, std::size_t bytes) = 0;
};

class DeviceMemoryOpener {
 public:
  virtual ~DeviceMemoryOpener() = default;
  // `handle`: as cudaIpcGetMemHandle made it in another process. The same handle again is the same object.
  // INVALID_ARGUMENT: the handle or the device is wrong, says which; RESOURCE_EXHAUSTED; UNAVAILABLE: the device is lost.
  virtual Result<std::shared_ptr<DeviceMemory>> open(std::span<const std::byte> handle, int device) = 0;
};

}  // namespace fastserve
