// Start, devices, contexts, texts of errors, the table of entry points.
#include <cstdio>
#include <cstring>
#include <string_view>

#include "backend/cuda_driver.h"
#include "simulated_cuda/world.h"

using namespace simulated_cuda;  // NOLINT: the functions below are C

namespace {

Device* device_at(World& world, CUdevice ordinal) {
  return ordinal >= 0 && ordinal < world.settings.devices && ordinal < kMaxDevices
             ? &world.devices[static_cast<std::size_t>(ordinal)]
             : nullptr;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuInit(unsigned int flags) {
  Call call("cuInit", Needs::kNothing);
  if (call.failed()) return call.result;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (call.world.settings.init_result != 0) return static_cast<CUresult>(call.world.settings.init_result);
  if (call.world.settings.devices == 0) return CUDA_ERROR_NO_DEVICE;
  call.world.initialised = true;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  Call call("cuDriverGetVersion", Needs::kNothing);
  if (call.failed()) return call.result;
  *version = static_cast<int>(call.world.settings.version);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorName(CUresult error, const char** text) {
  // No Call: it is asked while calls fail.
  static const std::map<int, const char*> kNames = {
      {0, "CUDA_SUCCESS"},
      {1, "CUDA_ERROR_INVALID_VALUE"},
      {2, "CUDA_ERROR_OUT_OF_MEMORY"},
      {3, "CUDA_ERROR_NOT_INITIALIZED"},
      {100, "CUDA_ERROR_NO_DEVICE"},
      {600, "CUDA_ERROR_NOT_READY"},
      {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {719, "CUDA_ERROR_LAUNCH_FAILED"},
      {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
  };
  const auto found = kNames.find(static_cast<int>(error));
  *text = found == kNames.end() ? nullptr : found->second;
  return found == kNames.end() ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
  static const std::map<int, const char*> kTexts = {
      {0, "no error (simulated)"},
      {1, "invalid argument (simulated)"},
      {2, "out of memory (simulated)"},
      {3, "initialization error (simulated)"},
      {700, "an illegal memory access was encountered (simulated)"},
      {719, "unspecified launch failure (simulated)"},
  };
  const auto found = kTexts.find(static_cast<int>(error));
  *text = found == kTexts.end() ? "error (simulated)" : found->second;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int* devices) {
  Call call("cuDeviceGetCount", Needs::kInit);
  if (call.failed()) return call.result;
  *devices = static_cast<int>(call.world.settings.devices);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  Call call("cuDeviceGet", Needs::kInit);
  if (call.failed()) return call.result;
  if (device_at(call.world, ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
  Call call("cuDeviceGetName", Needs::kInit);
  if (call.failed()) return call.result;
  if (device_at(call.world, device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<std::size_t>(length), "%s",
                call.world.settings.mig != 0 ? "Simulated GPU MIG 1g.18gb" : "Simulated GPU");
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  Call call("cuDeviceGetUuid", Needs::kInit);
  if (call.failed()) return call.result;
  if (device_at(call.world, device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  for (unsigned i = 0; i < sizeof(uuid->bytes); ++i) uuid->bytes[i] = static_cast<char>(0xA0 + i);
  uuid->bytes[15] = static_cast<char>(device);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  Call call("cuDeviceGetAttribute", Needs::kInit);
  if (call.failed()) return call.result;
  if (device_at(call.world, device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  static const std::map<CUdevice_attribute, int> kValues = {
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
      {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
      {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},
      {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 2},
      {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
      {CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1},
      {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
  };
  const auto found = kValues.find(attribute);
  *value = found == kValues.end() ? 0 : found->second;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  Call call("cuDeviceTotalMem", Needs::kInit);
  if (call.failed()) return call.result;
  if (device_at(call.world, device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = static_cast<std::size_t>(call.world.settings.memory_mb) << 20U;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char* text, int length, CUdevice device) {
  Call call("cuDeviceGetPCIBusId", Needs::kInit);
  if (call.failed()) return call.result;
  if (device_at(call.world, device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(text, static_cast<std::size_t>(length), "F00D:%02X:00.0", static_cast<unsigned>(device));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  Call call("cuDevicePrimaryCtxRetain", Needs::kInit);
  if (call.failed()) return call.result;
  Device* found = device_at(call.world, device);
  if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (found->dead != CUDA_SUCCESS) return found->dead;
  ++found->retained;
  start_workers(call.world, *found);
  *context = &found->context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
  Call call("cuDevicePrimaryCtxRelease", Needs::kInit);
  if (call.failed()) return call.result;
  Device* found = device_at(call.world, device);
  if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (found->dead != CUDA_SUCCESS) count(call.world, "dead:cuDevicePrimaryCtxRelease");
  if (found->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  --found->retained;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext context) {
  Call call("cuCtxSetCurrent", Needs::kInit);
  if (call.failed()) return call.result;
  if (context != nullptr && context->device->retained == 0) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  set_current_device(context == nullptr ? nullptr : context->device);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
  Call call("cuCtxGetCurrent", Needs::kInit);
  if (call.failed()) return call.result;
  *context = call.device == nullptr ? nullptr : &call.device->context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSynchronize(void) {
  Call call("cuCtxSynchronize", Needs::kContext, true);
  if (call.failed()) return call.result;
  // Whatever the mode, the whole device cannot be waited for while one of its streams is captured.
  for (const auto& capture : call.world.captures) {
    if (capture->origin->device != call.device) continue;
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  Device& device = *call.device;
  return wait(call.lock, call.world, device, [&] { return all_idle(call.world, device); });
}

CUresult CUDAAPI cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  Call call("cuCtxGetStreamPriorityRange", Needs::kContext);
  if (call.failed()) return call.result;
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetProcAddress(const char* symbol, void** function, int version, cuuint64_t flags,
                                  CUdriverProcAddressQueryResult* status) {
  (void)flags;
  struct Entry {
    const char* name;
    void* function;
    int since;
  };
  // The product's own list: a function that is missing here does not link.
  static const Entry kEntries[] = {
#define SIMULATED_ENTRY(member, name, suffix) {#name, reinterpret_cast<void*>(&::name), 12000},
    FASTSERVE_CUDA_FUNCTIONS(SIMULATED_ENTRY)
#undef SIMULATED_ENTRY
#if CUDA_VERSION >= 13000
        {"cuMemcpyBatchAsync", reinterpret_cast<void*>(&::cuMemcpyBatchAsync), 13000},
#endif
  };
  World& all = world();
  const Lock lock(all.mutex);
  *function = nullptr;
  CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  for (const Entry& entry : kEntries) {
    if (std::strcmp(entry.name, symbol) != 0 || all.settings.missing.contains(symbol)) continue;
    if (version < entry.since || all.settings.version < entry.since) {
      found = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
      continue;
    }
    *function = entry.function;
    found = CU_GET_PROC_ADDRESS_SUCCESS;
  }
  if (status != nullptr) *status = found;
  return found == CU_GET_PROC_ADDRESS_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

}  // extern "C"
