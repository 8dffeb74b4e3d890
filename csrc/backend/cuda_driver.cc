#include "backend/cuda_driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <type_traits>
#include <utility>

namespace fastserve {

namespace {

// NOLINTBEGIN(cppcoreguidelines-macro-usage): strings out of names
#define FASTSERVE_TEXT_INNER(x) #x
#define FASTSERVE_TEXT(x) FASTSERVE_TEXT_INNER(x)

// What cuda.h maps a name to, against what the driver gives out for it at kDriverVersionWanted.
constexpr bool same_abi(std::string_view mapped, std::string_view wanted) {
  // Its second ABI (12.8) has the signature of the first; older headers know only that.
  return mapped == wanted || (wanted == "cuEventElapsedTime" && mapped == "cuEventElapsedTime_v2");
}
#define FASTSERVE_CUDA_CHECK(member, name, suffix)              \
  static_assert(same_abi(FASTSERVE_TEXT(name), #name #suffix),  \
                "this cuda.h has a newer ABI of " #name #suffix \
                ": look at its signature, then at the table");
FASTSERVE_CUDA_FUNCTIONS(FASTSERVE_CUDA_CHECK)
#undef FASTSERVE_CUDA_CHECK
static_assert(std::is_same_v<decltype(&::cuEventElapsedTime), CUresult(CUDAAPI*)(float*, CUevent, CUevent)>);

// The table of this process once there is one, for texts of errors.
std::atomic<const DriverTable*> opened_table{nullptr};

Status not_usable(std::string message) { return {Code::kFailedPrecondition, std::move(message)}; }

// "13.1" for 13010; "12.0" for 12000.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string too_old(const std::string& library, int version, std::string_view missing) {
  std::string text = "the NVIDIA driver is too old: " + library;
  if (version > 0) text += " (CUDA " + version_text(version) + ")";
  text += " has no ";
  text += missing;
  return text + "; wanted is CUDA " + version_text(kDriverVersionWanted) + " or newer (driver 525)";
}

using GetProcAddress = decltype(&::cuGetProcAddress);
static_assert(same_abi(FASTSERVE_TEXT(cuGetProcAddress), "cuGetProcAddress_v2"));

// The function, or nullptr where the driver has none of that version.
template <class Function>
Function find(GetProcAddress get, const char* name, int version) {
  void* found = nullptr;
  CUdriverProcAddressQueryResult reason{};
  if (get(name, &found, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &reason) != CUDA_SUCCESS) return nullptr;
  return reinterpret_cast<Function>(found);
}

// Fills the table; the name of the first function that is missing, or nullptr.
const char* fill(DriverTable& table, GetProcAddress get) {
#define FASTSERVE_CUDA_FIND(member, name, suffix)                                \
  table.member = find<decltype(table.member)>(get, #name, kDriverVersionWanted); \
  if (table.member == nullptr) return #name;
  FASTSERVE_CUDA_FUNCTIONS(FASTSERVE_CUDA_FIND)
#undef FASTSERVE_CUDA_FIND
#if CUDA_VERSION >= 13000
  static_assert(same_abi(FASTSERVE_TEXT(cuMemcpyBatchAsync), "cuMemcpyBatchAsync_v2"));
  table.memcpy_batch_async = find<decltype(table.memcpy_batch_async)>(get, "cuMemcpyBatchAsync", 13000);
#endif
  return nullptr;
}

std::string described(const DriverTable* table, CUresult result) {
  const char* text = nullptr;
  if (table != nullptr && table->get_error_string(result, &text) != CUDA_SUCCESS) text = nullptr;
  const std::string name = error_name(result);
  return text == nullptr ? name : std::string(text) + " (" + name + ")";
}

Status initialise(const DriverTable& table, const std::string& library) {
  const CUresult result = table.init(0);
  if (result == CUDA_ERROR_NO_DEVICE)
    return not_usable("no GPU: the NVIDIA driver (" + library + ") finds no device");
  if (result == CUDA_ERROR_STUB_LIBRARY) {
    return not_usable("no NVIDIA driver: " + library +
                      " is the stub of a CUDA toolkit, meant for linking only");
  }
  if (result != CUDA_SUCCESS) {
    return not_usable("the NVIDIA driver (" + library + ") does not start: " + described(&table, result));
  }
  int count = 0;
  if (const CUresult counted = table.device_get_count(&count); counted != CUDA_SUCCESS) {
    return not_usable("the NVIDIA driver (" + library +
                      ") does not count its devices: " + described(&table, counted));
  }
  if (count == 0) {
    return not_usable("no GPU: the NVIDIA driver (" + library +
                      ") shows no device (CUDA_VISIBLE_DEVICES may hide it)");
  }
  return Status::ok();
}

}  // namespace

Result<DriverTable> open_driver(const std::string& library) {
  // Not RTLD_GLOBAL: a program that embeds us may have its own ideas about what cuInit is.
  void* handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = ::dlerror();
    return not_usable("no NVIDIA driver: " + std::string(reason == nullptr ? library : reason));
  }
  DriverTable table;
  // Straight from the library: it is to be told of a driver that is too old for everything else.
  auto ask = reinterpret_cast<decltype(&::cuDriverGetVersion)>(::dlsym(handle, "cuDriverGetVersion"));
  if (ask == nullptr || ask(&table.driver_version) != CUDA_SUCCESS) table.driver_version = 0;
  auto get = reinterpret_cast<GetProcAddress>(::dlsym(handle, "cuGetProcAddress_v2"));
  const char* missing = get == nullptr ? "cuGetProcAddress_v2" : fill(table, get);
  if (missing != nullptr) return not_usable(too_old(library, table.driver_version, missing));
  FS_RETURN_IF_ERROR(initialise(table, library));
  return table;
}

const Result<const DriverTable*>& cuda_driver() {
  static const Result<DriverTable> kept = open_driver("libcuda.so.1");
  static const Result<const DriverTable*> driver = [] {
    if (!kept.is_ok()) return Result<const DriverTable*>(kept.status());
    opened_table.store(&*kept, std::memory_order_release);
    return Result<const DriverTable*>(&*kept);
  }();
  return driver;
}

bool is_sticky(CUresult result) {
  // By number: cuda.h of 12.0 lacks some of the names. Source: the comments on these codes in cuda.h 13, "the process must be
  // terminated and relaunched".
  static constexpr std::array<int, 17> kSticky = {
      214,                           // ECC_UNCORRECTABLE
      220,                           // NVLINK_UNCORRECTABLE
      226,                           // CONTAINED
      700, 702, 709, 710,            // ILLEGAL_ADDRESS, LAUNCH_TIMEOUT, CONTEXT_IS_DESTROYED, ASSERT
      714, 715, 716, 717, 718, 719,  // HARDWARE_STACK_ERROR .. LAUNCH_FAILED
      721,                           // TENSOR_MEMORY_LEAK
      810,                           // MPS_CLIENT_TERMINATED
      806,                           // MPS_RPC_FAILURE
      999,                           // UNKNOWN: nothing is certain any more
  };
  return std::find(kSticky.begin(), kSticky.end(), static_cast<int>(result)) != kSticky.end();
}

Status to_status(CUresult result, std::string_view what) {
  if (result == CUDA_SUCCESS) return Status::ok();
  std::string message(what);
  message += ": ";
  message += described(opened_table.load(std::memory_order_acquire), result);
  if (is_sticky(result)) return unavailable(std::move(message));
  switch (static_cast<int>(result)) {
    case CUDA_ERROR_OUT_OF_MEMORY:
      return {Code::kResourceExhausted, std::move(message)};
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_SYSTEM_NOT_READY:
    case CUDA_ERROR_MPS_CONNECTION_FAILED:
    case CUDA_ERROR_MPS_SERVER_NOT_READY:
    case CUDA_ERROR_DEINITIALIZED:
      return unavailable(std::move(message));
    case CUDA_ERROR_NOT_INITIALIZED:
    case CUDA_ERROR_STUB_LIBRARY:
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_DEVICE_NOT_LICENSED:
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
    case CUDA_ERROR_NOT_SUPPORTED:
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
      return not_usable(std::move(message));
    default:
      return internal_error(std::move(message));
  }
}

std::string error_name(CUresult result) {
#define FASTSERVE_CUDA_ERROR(name) \
  case name:                       \
    return #name;
  switch (result) {
    FASTSERVE_CUDA_ERROR(CUDA_SUCCESS)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_VALUE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_OUT_OF_MEMORY)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NOT_INITIALIZED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_DEINITIALIZED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_STUB_LIBRARY)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_DEVICE_UNAVAILABLE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NO_DEVICE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_DEVICE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_IMAGE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_CONTEXT)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_ECC_UNCORRECTABLE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NVLINK_UNCORRECTABLE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_OPERATING_SYSTEM)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_HANDLE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NOT_FOUND)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NOT_READY)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_LAUNCH_TIMEOUT)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_ASSERT)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_HARDWARE_STACK_ERROR)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_ILLEGAL_INSTRUCTION)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_MISALIGNED_ADDRESS)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_ADDRESS_SPACE)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_INVALID_PC)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_LAUNCH_FAILED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NOT_PERMITTED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_NOT_SUPPORTED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_SYSTEM_NOT_READY)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)
    FASTSERVE_CUDA_ERROR(CUDA_ERROR_UNKNOWN)
    default:
      return "CUDA_ERROR_" + std::to_string(static_cast<int>(result));
  }
#undef FASTSERVE_CUDA_ERROR
}
// NOLINTEND(cppcoreguidelines-macro-usage)

}  // namespace fastserve
