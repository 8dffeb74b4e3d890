// Device memory, page-locked memory, IPC handles, questions about pointers.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "simulated_cuda/world.h"

namespace simulated_cuda {

namespace {

constexpr std::uint64_t kAlignment = 512;
constexpr std::uint64_t kGap = 1U << 16U;  // between allocations: what runs over an end hits nothing
constexpr std::size_t kPoisoned = std::size_t{64}
                                  << 20U;  // fresh memory is not zero; of large blocks only the front
constexpr int kPoison = 0xCD;

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }
void* pointer_of(std::uint64_t address) {
  return reinterpret_cast<void*>(address);
}  // NOLINT(performance-no-int-to-ptr)

// In the 64 bytes of a CUipcMemHandle.
struct Handle {
  std::uint64_t magic;
  std::uint64_t process;
  std::uint64_t bytes;
  std::int32_t fd;
  std::int32_t device;
};
constexpr std::uint64_t kMagic = 0x5349'4d43'5544'4131;
static_assert(sizeof(Handle) <= CU_IPC_HANDLE_SIZE);

Allocation& add_allocation(Device& device, std::size_t bytes, int fd, void* host) {
  Allocation allocation;
  allocation.base = device.next_address;
  allocation.bytes = bytes;
  allocation.fd = fd;
  allocation.host = static_cast<std::byte*>(host);
  device.next_address += (bytes + kGap + kAlignment - 1) / kAlignment * kAlignment;
  return device.allocations[allocation.base] = allocation;
}

Allocation* allocation_at(Device& device, std::uint64_t address) {
  auto after = device.allocations.upper_bound(address);
  if (after == device.allocations.begin()) return nullptr;
  Allocation& found = std::prev(after)->second;
  return address - found.base < found.bytes ? &found : nullptr;
}

Allocation* allocation_at(World& world, std::uint64_t address, Device** owner) {
  for (Device& device : world.devices) {
    if (Allocation* found = allocation_at(device, address)) {
      if (owner != nullptr) *owner = &device;
      return found;
    }
  }
  return nullptr;
}

// The page-locked range that holds an address; end() where there is none.
std::map<std::uint64_t, PinnedRange>::const_iterator pinned_at(const World& world, std::uint64_t address) {
  auto after = world.pinned.upper_bound(address);
  if (after == world.pinned.begin()) return world.pinned.end();
  const auto found = std::prev(after);
  return address - found->first < found->second.bytes ? found : world.pinned.end();
}

bool pinning_fits(const World& world, std::size_t bytes) {
  return world.pinned_bytes + bytes <= static_cast<std::size_t>(world.settings.pinned_mb) << 20U;
}

}  // namespace

std::byte* device_bytes(Device& device, std::uint64_t address, std::size_t bytes) {
  Allocation* found = allocation_at(device, address);
  if (found == nullptr || bytes > found->bytes - (address - found->base)) return nullptr;
  return found->host + (address - found->base);
}

std::byte* device_bytes(World& world, std::uint64_t address, std::size_t bytes) {
  for (Device& device : world.devices) {
    if (std::byte* found = device_bytes(device, address, bytes)) return found;
  }
  return nullptr;
}

bool is_pinned(const World& world, const void* address, std::size_t bytes) {
  const auto found = pinned_at(world, address_of(address));
  return found != world.pinned.end() && bytes <= found->second.bytes - (address_of(address) - found->first);
}

void free_allocation(Device& device, std::uint64_t base) {
  const auto found = device.allocations.find(base);
  const Allocation& allocation = found->second;
  ::munmap(allocation.host, allocation.bytes);
  ::close(allocation.fd);
  if (!allocation.imported) device.used_bytes -= allocation.bytes;
  device.allocations.erase(found);
}

}  // namespace simulated_cuda

using namespace simulated_cuda;  // NOLINT: the functions below are C

extern "C" {

CUresult CUDAAPI cuMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  Call call("cuMemGetInfo", Needs::kContext);
  if (call.failed()) return call.result;
  *total_bytes = static_cast<std::size_t>(call.world.settings.memory_mb) << 20U;
  *free_bytes = *total_bytes - std::min(*total_bytes, call.device->used_bytes);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  Call call("cuMemAlloc", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const std::size_t total = static_cast<std::size_t>(call.world.settings.memory_mb) << 20U;
  if (bytes > total || call.device->used_bytes > total - bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  const int fd = ::memfd_create("simulated-cuda", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return CUDA_ERROR_OPERATING_SYSTEM;
  void* host = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (host == MAP_FAILED) return CUDA_ERROR_OPERATING_SYSTEM;
  std::memset(host, kPoison, std::min(bytes, kPoisoned));
  *address = add_allocation(*call.device, bytes, fd, host).base;
  call.device->used_bytes += bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree(CUdeviceptr address) {
  Call call("cuMemFree", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (address == 0) return CUDA_SUCCESS;
  Device* owner = nullptr;
  const Allocation* found = allocation_at(call.world, address, &owner);
  if (found == nullptr || found->base != address || found->imported) return CUDA_ERROR_INVALID_VALUE;
  if (!all_idle(call.world, *owner)) count(call.world, "frees_while_busy");
  // The driver waits for the device before it takes memory away.
  const CUresult waited = wait(call.lock, call.world, *owner, [&] { return all_idle(call.world, *owner); });
  if (waited != CUDA_SUCCESS) return waited;
  free_allocation(*owner, address);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  Call call("cuMemGetAddressRange", Needs::kContext);
  if (call.failed()) return call.result;
  const Allocation* found = allocation_at(call.world, address, nullptr);
  if (found == nullptr) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = found->base;
  if (bytes != nullptr) *bytes = found->bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  Call call("cuMemHostAlloc", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (!pinning_fits(call.world, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
  *pointer = std::aligned_alloc(4096, rounded);
  if (*pointer == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  call.world.pinned[address_of(*pointer)] = {bytes, flags, false};
  call.world.pinned_bytes += bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void* pointer) {
  Call call("cuMemFreeHost", Needs::kContext, true);
  if (call.failed()) return call.result;
  const auto found = call.world.pinned.find(address_of(pointer));
  if (found == call.world.pinned.end() || found->second.registered) return CUDA_ERROR_INVALID_VALUE;
  const CUresult waited =
      wait(call.lock, call.world, *call.device, [&] { return all_idle(call.world, *call.device); });
  if (waited != CUDA_SUCCESS) return waited;
  call.world.pinned_bytes -= found->second.bytes;
  call.world.pinned.erase(found);
  std::free(pointer);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostRegister(void* pointer, size_t bytes, unsigned int flags) {
  Call call("cuMemHostRegister", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const std::uint64_t begin = address_of(pointer);
  for (const auto& [address, range] : call.world.pinned) {
    if (begin < address + range.bytes && address < begin + bytes)
      return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  }
  if (!pinning_fits(call.world, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  // What is not mapped cannot be locked.
  unsigned char resident = 0;
  const std::uint64_t page = begin / 4096 * 4096;
  if (::mincore(pointer_of(page), 1, &resident) != 0) return CUDA_ERROR_INVALID_VALUE;
  call.world.pinned[begin] = {bytes, flags, true};
  call.world.pinned_bytes += bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostUnregister(void* pointer) {
  Call call("cuMemHostUnregister", Needs::kContext, true);
  if (call.failed()) return call.result;
  const auto found = call.world.pinned.find(address_of(pointer));
  if (found == call.world.pinned.end() || !found->second.registered)
    return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  call.world.pinned_bytes -= found->second.bytes;
  call.world.pinned.erase(found);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  Call call("cuPointerGetAttribute", Needs::kInit);
  if (call.failed()) return call.result;
  Device* owner = nullptr;
  const Allocation* found = allocation_at(call.world, address, &owner);
  const auto pinned = pinned_at(call.world, address);
  if (found == nullptr && pinned == call.world.pinned.end()) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(data) = owner != nullptr ? &owner->context : nullptr;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) = found != nullptr ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *static_cast<CUdeviceptr*>(data) = address;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (found != nullptr) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<void**>(data) = pointer_of(address);
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<unsigned*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = owner != nullptr ? owner->ordinal : 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      *static_cast<unsigned*>(data) = found != nullptr && !found->imported ? 1 : 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *static_cast<CUdeviceptr*>(data) = found != nullptr ? found->base : pinned->first;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<std::size_t*>(data) = found != nullptr ? found->bytes : pinned->second.bytes;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult CUDAAPI cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr address) {
  Call call("cuIpcGetMemHandle", Needs::kContext, true);
  if (call.failed()) return call.result;
  Device* owner = nullptr;
  const Allocation* found = allocation_at(call.world, address, &owner);
  if (handle == nullptr || found == nullptr || found->imported) return CUDA_ERROR_INVALID_VALUE;
  const Handle content{kMagic, static_cast<std::uint64_t>(::getpid()), found->bytes, found->fd,
                       owner->ordinal};
  std::memset(handle, 0, sizeof(*handle));
  std::memcpy(handle, &content, sizeof(content));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuIpcOpenMemHandle(CUdeviceptr* address, CUipcMemHandle handle, unsigned int flags) {
  Call call("cuIpcOpenMemHandle", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (address == nullptr || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) return CUDA_ERROR_INVALID_VALUE;
  Handle content{};
  std::memcpy(&content, handle.reserved, sizeof(content));
  if (content.magic != kMagic) return CUDA_ERROR_INVALID_VALUE;
  // As the real one: not in the process that exported it.
  if (content.process == static_cast<std::uint64_t>(::getpid())) return CUDA_ERROR_INVALID_CONTEXT;
  const std::uint64_t exporter = content.process << 32U | static_cast<std::uint32_t>(content.fd);
  for (auto& [base, allocation] : call.device->allocations) {
    if (!allocation.imported || allocation.exporter != exporter) continue;
    ++allocation.opened;  // the driver gives out one address and counts
    *address = base;
    return CUDA_SUCCESS;
  }
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%llu/fd/%d", static_cast<unsigned long long>(content.process),
                content.fd);
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return CUDA_ERROR_INVALID_VALUE;
  void* host = ::mmap(nullptr, content.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (host == MAP_FAILED) {
    ::close(fd);
    return CUDA_ERROR_MAP_FAILED;
  }
  Allocation& allocation = add_allocation(*call.device, content.bytes, fd, host);
  allocation.imported = true;
  allocation.opened = 1;
  allocation.exporter = exporter;
  *address = allocation.base;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuIpcCloseMemHandle(CUdeviceptr address) {
  Call call("cuIpcCloseMemHandle", Needs::kContext, true);
  if (call.failed()) return call.result;
  Device* owner = nullptr;
  Allocation* found = allocation_at(call.world, address, &owner);
  if (found == nullptr || !found->imported || found->base != address) return CUDA_ERROR_INVALID_VALUE;
  if (--found->opened == 0) free_allocation(*owner, address);
  return CUDA_SUCCESS;
}

}  // extern "C"
