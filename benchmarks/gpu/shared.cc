// Rows about memory of other processes: page-locked /dev/shm, and device memory by IPC handle.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "base/fd.h"
#include "gpu/calls.h"
#include "gpu/rows.h"

namespace fastserve::gpu_rows {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20U;

// A named shared memory object of this process, mapped. The name is gone when it ends.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes)
      : bytes_(bytes), name_("/fastserve_gpu_rows_" + std::to_string(::getpid())) {
    const UniqueFd file(::shm_open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
    if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) fail();
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (at == MAP_FAILED) fail();
    data_ = static_cast<std::byte*>(at);
  }
  ~SharedMemory() {
    ::munmap(data_, bytes_);
    ::shm_unlink(name_.c_str());
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  void fail() {
    ::shm_unlink(name_.c_str());
    throw std::runtime_error("no shared memory: is /dev/shm large enough?");
  }
  const std::size_t bytes_;
  const std::string name_;
  std::byte* data_ = nullptr;
};

std::byte pattern(std::size_t at) { return static_cast<std::byte>((at * 2654435761U) >> 13U); }

std::string hex(const CUipcMemHandle& handle) {
  std::string text;
  char pair[3];
  for (const char byte : handle.reserved) {
    std::snprintf(pair, sizeof(pair), "%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
    text += pair;
  }
  return text;
}

constexpr std::size_t kIpcBytes = 4 * kMiB;

}  // namespace

Outcome dev_shm_row(const Options& options) {
  Outcome out(options);
  const Context context;
  const std::size_t bytes = (options.simulated ? 1 : 64) * kMiB;
  const SharedMemory memory(bytes);
  for (std::size_t i = 0; i < bytes; ++i) memory.data()[i] = pattern(i);
  double start = wall_seconds();
  must(cuda().mem_host_register(memory.data(), bytes, CU_MEMHOSTREGISTER_PORTABLE), "cuMemHostRegister");
  const double register_ms = (wall_seconds() - start) * 1e3;
  const DeviceBytes device(bytes);
  const Stream stream;
  double best = 1e9;
  for (int i = 0; i < options.repetitions(30); ++i) {
    start = wall_seconds();
    must(cuda().memcpy_htod_async(device.address(), memory.data(), bytes, stream.get()), "cuMemcpyHtoDAsync");
    stream.wait();
    best = std::min(best, wall_seconds() - start);
  }
  std::memset(memory.data(), 0, bytes);
  must(cuda().memcpy_dtoh_async(memory.data(), device.address(), bytes, stream.get()), "cuMemcpyDtoHAsync");
  stream.wait();
  bool equal = true;
  for (std::size_t i = 0; i < bytes; ++i) equal &= memory.data()[i] == pattern(i);
  start = wall_seconds();
  must(cuda().mem_host_unregister(memory.data()), "cuMemHostUnregister");
  out.figures()
      .add("mib", static_cast<std::int64_t>(bytes / kMiB))
      .add("register_ms", register_ms)
      .add("unregister_ms", (wall_seconds() - start) * 1e3)
      .add("h2d_gb_s", static_cast<double>(bytes) / best / 1e9);
  out.gate(equal, "equal data through page-locked /dev/shm, both ways");
  return out;
}

Outcome ipc_row(const Options& options) {
  Outcome out(options);
  std::string text;
  Options exporter = options;
  exporter.argument.clear();
  const int code = run_again(exporter, "ipc-exporter", text);
  out.figures().add("exit_code", code).add("bytes", static_cast<std::int64_t>(kIpcBytes));
  out.gate(code == 0, "a second process reads equal data by IPC handle");
  return out;
}

// Without an argument it allocates and fills, and starts itself with the handle as the argument, to open and read: a handle cannot
// be opened in the process that made it.
int ipc_exporter(const Options& options) {
  const Context context;
  const bool opens = options.argument.size() == 2 * sizeof(CUipcMemHandle);
  std::vector<std::byte> host(kIpcBytes);
  if (opens) {  // the second process
    CUipcMemHandle handle{};
    for (std::size_t i = 0; i < sizeof(handle.reserved); ++i)
      handle.reserved[i] = static_cast<char>(std::stoul(options.argument.substr(2 * i, 2), nullptr, 16));
    CUdeviceptr address = 0;
    must(cuda().ipc_open_mem_handle(&address, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS),
         "cuIpcOpenMemHandle");
    must(cuda().memcpy_dtoh(host.data(), address, kIpcBytes), "cuMemcpyDtoH");
    must(cuda().ipc_close_mem_handle(address), "cuIpcCloseMemHandle");
    for (std::size_t i = 0; i < kIpcBytes; ++i) {
      if (host[i] != pattern(i)) return 3;
    }
    return 0;
  }
  for (std::size_t i = 0; i < kIpcBytes; ++i) host[i] = pattern(i);
  const DeviceBytes device(kIpcBytes);
  must(cuda().memcpy_htod(device.address(), host.data(), kIpcBytes), "cuMemcpyHtoD");
  must(cuda().ctx_synchronize(), "cuCtxSynchronize");
  CUipcMemHandle handle{};
  must(cuda().ipc_get_mem_handle(&handle, device.address()), "cuIpcGetMemHandle");
  Options other = options;
  other.argument = hex(handle);
  std::string text;
  return run_again(other, "ipc-exporter", text);
}

}  // namespace fastserve::gpu_rows
