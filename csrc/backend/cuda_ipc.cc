#include "backend/cuda_ipc.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "backend/cuda_context.h"
#include "backend/cuda_fault.h"

namespace fastserve {
namespace {

static_assert(sizeof(CUipcMemHandle) == kIpcHandleBytes);

// What the driver says about a handle that a client sent is the client's mistake, unless the device itself is gone or full.
Status refusal(CUresult result) {
  Status status = to_status(result, "cuIpcOpenMemHandle");
  if (status.code() == Code::kUnavailable || status.code() == Code::kResourceExhausted) return status;
  return invalid_argument(
      "raw_handle: got one that does not open: " + status.message() +
      "; want memory of cudaMalloc that another process of this host exported and still holds");
}

class IpcMemory final : public DeviceMemory {
 public:
  IpcMemory(CudaContext& context, CUdeviceptr address, std::uint64_t bytes)
      : context_(context), address_(address), bytes_(bytes) {}
  ~IpcMemory() override {
    if (any_device_fault()) return;  // a dead context is not called any more
    const CudaContext::Current current(context_);
    if (current.status().is_ok()) static_cast<void>(context_.driver().ipc_close_mem_handle(address_));
  }
  IpcMemory(const IpcMemory&) = delete;
  IpcMemory& operator=(const IpcMemory&) = delete;

  int device() const override { return context_.ordinal(); }
  std::uint64_t address() const override { return address_; }
  std::uint64_t bytes() const override { return bytes_; }

  Status read(std::byte* to, const std::byte* at, std::size_t bytes) override {
    const auto from = reinterpret_cast<CUdeviceptr>(at);
    return copy(bytes, [&](const DriverTable& driver, CUstream stream) {
      return driver.memcpy_dtoh_async(to, from, bytes, stream);
    });
  }
  Status write(std::byte* at, const std::byte* from, std::size_t bytes) override {
    const auto to = reinterpret_cast<CUdeviceptr>(at);
    return copy(bytes, [&](const DriverTable& driver, CUstream stream) {
      return driver.memcpy_htod_async(to, from, bytes, stream);
    });
  }

 private:
  template <class Copy>
  Status copy(std::size_t bytes, Copy start) {
    if (bytes == 0) return Status::ok();
    const CudaContext::Current current(context_);
    FS_RETURN_IF_ERROR(current.status());
    FS_ASSIGN_OR_RETURN(CUstream stream, context_.copy_stream());
    CUresult result = start(context_.driver(), stream);
    if (result == CUDA_ERROR_INVALID_HANDLE ||
        result == CUDA_ERROR_CONTEXT_IS_DESTROYED) {  // it went with a reset
      FS_ASSIGN_OR_RETURN(stream, context_.new_copy_stream());
      result = start(context_.driver(), stream);
    }
    FS_RETURN_IF_ERROR(to_status(result, "a copy of shared GPU memory"));
    return to_status(context_.driver().stream_synchronize(stream), "cuStreamSynchronize");
  }

  CudaContext& context_;
  const CUdeviceptr address_;
  const std::uint64_t bytes_;
};

class IpcOpener final : public DeviceMemoryOpener {
 public:
  Result<std::shared_ptr<DeviceMemory>> open(std::span<const std::byte> handle, int device) override {
    if (handle.size() != kIpcHandleBytes) {
      return invalid_argument("raw_handle: got " + std::to_string(handle.size()) + " bytes, want " +
                              std::to_string(kIpcHandleBytes) + ", a cudaIpcMemHandle_t");
    }
    FS_ASSIGN_OR_RETURN(CudaContext * context, CudaContext::of(device));
    Key key{device, {}};
    std::ranges::copy(handle, key.second.begin());
    // Held while the driver works: nobody opens what is just being closed or opened. Registrations are rare.
    const std::lock_guard lock(mutex_);
    if (!opened_.contains(key)) {
      FS_ASSIGN_OR_RETURN(std::unique_ptr<IpcMemory> fresh, open_new(*context, handle));
      opened_[key].memory = std::move(fresh);
    }
    Opened& opened = opened_.at(key);
    ++opened.references;
    return std::shared_ptr<DeviceMemory>(opened.memory.get(), [this, key](DeviceMemory*) { let_go(key); });
  }

 private:
  using Key = std::pair<int, std::array<std::byte, kIpcHandleBytes>>;

  struct Opened {
    std::unique_ptr<IpcMemory> memory;
    std::size_t references = 0;
  };

  void let_go(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto opened = opened_.find(key);
    if (--opened->second.references == 0) opened_.erase(opened);
  }

  static Result<std::unique_ptr<IpcMemory>> open_new(CudaContext& context,
                                                     std::span<const std::byte> handle) {
    const CudaContext::Current current(context);
    FS_RETURN_IF_ERROR(current.status());
    CUipcMemHandle raw;
    std::memcpy(&raw, handle.data(), sizeof raw);
    CUdeviceptr address = 0;
    const DriverTable& driver = context.driver();
    if (const CUresult result = driver.ipc_open_mem_handle(&address, raw, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
        result != CUDA_SUCCESS) {
      return refusal(result);
    }
    std::size_t bytes = 0;
    const CUresult sized = driver.pointer_get_attribute(&bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address);
    // From here on whoever leaves closes it.
    auto memory = std::make_unique<IpcMemory>(context, address, bytes);
    FS_RETURN_IF_ERROR(to_status(sized, "cuPointerGetAttribute"));
    return memory;
  }

  std::mutex mutex_;  // guards what follows
  std::map<Key, Opened> opened_;
};

}  // namespace

Result<DeviceMemoryOpener*> cuda_ipc_opener() {
  if (const Result<const DriverTable*>& driver = cuda_driver(); !driver.is_ok()) return driver.status();
  static auto* const opener = new IpcOpener;
  return static_cast<DeviceMemoryOpener*>(opener);
}

}  // namespace fastserve
