// The CUDA driver without linking it: libcuda.so.1 is opened at run time and its functions stand in one table, so that one
// build serves machines with and without a GPU. cuda.h is only needed to compile; the C++ type of each member is that of
// the header's declaration, so that a signature that changes is a compile error and not a crash.
//
// Only csrc/backend/cuda* may include this file (tools/check_layers.py); other layers see integers.
// Thread: any. The table is written once, before anybody sees it.
// Source: CUDA Driver API reference, "Driver Entry Point Access" (cuGetProcAddress).
#pragma once

#include <cuda.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

#if defined(CUDA_API_PER_THREAD_DEFAULT_STREAM)
#error \
    "fastserve never uses the default stream; compiled with per-thread default streams the names would differ"
#endif
static_assert(CUDA_VERSION >= 12000, "cuda.h of CUDA 12.0 or newer is wanted");

namespace fastserve {

// The driver ABI that is asked for. Drivers before it (525 came with 12.0) are refused; newer ones keep serving it.
inline constexpr int kDriverVersionWanted = 12000;

// X(member, name, suffix): cuGetProcAddress is asked for `name`, and gives out name##suffix, the ABI of 12.0. cuda.h maps the
// name to the versioned one itself; cuda_driver.cc checks that it is the same one, so that a header with a newer ABI of a
// function is a compile error.
// NOLINTBEGIN(cppcoreguidelines-macro-usage): names, strings and types out of one list
#define FASTSERVE_CUDA_FUNCTIONS(X)                                                                            \
  /* errors, start */                                                                                          \
  X(get_error_name, cuGetErrorName, )                                                                          \
  X(get_error_string, cuGetErrorString, )                                                                      \
  X(init, cuInit, )                                                                                            \
  X(driver_get_version, cuDriverGetVersion, )                                                                  \
  /* devices */                                                                                                \
  X(device_get_count, cuDeviceGetCount, )                                                                      \
  X(device_get, cuDeviceGet, )                                                                                 \
  X(device_get_name, cuDeviceGetName, )                                                                        \
  /* a name of its own until CUDA 13, and still known under it; the first one gives a MIG instance's parent */ \
  X(device_get_uuid, cuDeviceGetUuid_v2, )                                                                     \
  X(device_get_attribute, cuDeviceGetAttribute, )                                                              \
  X(device_total_mem, cuDeviceTotalMem, _v2)                                                                   \
  X(device_get_pci_bus_id, cuDeviceGetPCIBusId, )                                                              \
  /* the primary context, which cudart, torch and TensorRT use as well; never one of our own */                \
  X(primary_ctx_retain, cuDevicePrimaryCtxRetain, )                                                            \
  X(primary_ctx_release, cuDevicePrimaryCtxRelease, _v2)                                                       \
  X(ctx_set_current, cuCtxSetCurrent, )                                                                        \
  X(ctx_get_current, cuCtxGetCurrent, )                                                                        \
  X(ctx_synchronize, cuCtxSynchronize, )                                                                       \
  X(ctx_get_stream_priority_range, cuCtxGetStreamPriorityRange, )                                              \
  /* memory */                                                                                                 \
  X(mem_get_info, cuMemGetInfo, _v2)                                                                           \
  X(mem_alloc, cuMemAlloc, _v2)                                                                                \
  X(mem_free, cuMemFree, _v2)                                                                                  \
  X(mem_get_address_range, cuMemGetAddressRange, _v2)                                                          \
  X(mem_host_alloc, cuMemHostAlloc, )                                                                          \
  X(mem_free_host, cuMemFreeHost, )                                                                            \
  X(mem_host_register, cuMemHostRegister, _v2)                                                                 \
  X(mem_host_unregister, cuMemHostUnregister, )                                                                \
  X(pointer_get_attribute, cuPointerGetAttribute, )                                                            \
  X(ipc_get_mem_handle, cuIpcGetMemHandle, )                                                                   \
  X(ipc_open_mem_handle, cuIpcOpenMemHandle, _v2)                                                              \
  X(ipc_close_mem_handle, cuIpcCloseMemHandle, )                                                               \
  /* copies and fills; the synchronous ones only at load and in tests */                                       \
  X(memcpy_htod, cuMemcpyHtoD, _v2)                                                                            \
  X(memcpy_dtoh, cuMemcpyDtoH, _v2)                                                                            \
  X(memcpy_htod_async, cuMemcpyHtoDAsync, _v2)                                                                 \
  X(memcpy_dtoh_async, cuMemcpyDtoHAsync, _v2)                                                                 \
  X(memcpy_dtod_async, cuMemcpyDtoDAsync, _v2)                                                                 \
  X(memset_d8_async, cuMemsetD8Async, )                                                                        \
  X(memset_d32_async, cuMemsetD32Async, )                                                                      \
  /* streams and events */                                                                                     \
  X(stream_create_with_priority, cuStreamCreateWithPriority, )                                                 \
  X(stream_destroy, cuStreamDestroy, _v2)                                                                      \
  X(stream_synchronize, cuStreamSynchronize, )                                                                 \
  X(stream_query, cuStreamQuery, )                                                                             \
  X(stream_wait_event, cuStreamWaitEvent, )                                                                    \
  X(stream_write_value32, cuStreamWriteValue32, _v2)                                                           \
  X(stream_is_capturing, cuStreamIsCapturing, )                                                                \
  X(stream_begin_capture, cuStreamBeginCapture, _v2)                                                           \
  X(stream_end_capture, cuStreamEndCapture, )                                                                  \
  X(event_create, cuEventCreate, )                                                                             \
  X(event_record, cuEventRecord, )                                                                             \
  X(event_query, cuEventQuery, )                                                                               \
  X(event_synchronize, cuEventSynchronize, )                                                                   \
  X(event_elapsed_time, cuEventElapsedTime, )                                                                  \
  X(event_destroy, cuEventDestroy, _v2)                                                                        \
  X(launch_host_func, cuLaunchHostFunc, )                                                                      \
  /* graphs */                                                                                                 \
  X(graph_create, cuGraphCreate, )                                                                             \
  X(graph_destroy, cuGraphDestroy, )                                                                           \
  X(graph_get_nodes, cuGraphGetNodes, )                                                                        \
  X(graph_node_get_type, cuGraphNodeGetType, )                                                                 \
  X(graph_add_memcpy_node, cuGraphAddMemcpyNode, )                                                             \
  X(graph_add_memset_node, cuGraphAddMemsetNode, )                                                             \
  X(graph_add_kernel_node, cuGraphAddKernelNode, _v2)                                                          \
  X(graph_add_host_node, cuGraphAddHostNode, )                                                                 \
  X(graph_add_empty_node, cuGraphAddEmptyNode, )                                                               \
  X(graph_instantiate_with_flags, cuGraphInstantiateWithFlags, )                                               \
  X(graph_upload, cuGraphUpload, )                                                                             \
  X(graph_launch, cuGraphLaunch, )                                                                             \
  X(graph_exec_destroy, cuGraphExecDestroy, )                                                                  \
  /* kernels of our own: tools/gpu-check */                                                                    \
  X(module_load_data, cuModuleLoadData, )                                                                      \
  X(module_unload, cuModuleUnload, )                                                                           \
  X(module_get_function, cuModuleGetFunction, )                                                                \
  X(launch_kernel, cuLaunchKernel, )

// Every member is set in a table that open_driver() gave out, except those marked optional.
struct DriverTable {
#define FASTSERVE_CUDA_MEMBER(member, name, suffix) decltype(&::name) member = nullptr;
  FASTSERVE_CUDA_FUNCTIONS(FASTSERVE_CUDA_MEMBER)
#undef FASTSERVE_CUDA_MEMBER

#if CUDA_VERSION >= 13000
  // Optional: several copies in one call; drivers of CUDA 13 and newer. Ask for nullptr before each use.
  decltype(&::cuMemcpyBatchAsync) memcpy_batch_async = nullptr;
#endif

  int driver_version = 0;  // 13010 for CUDA 13.1, as cuDriverGetVersion says
};
// NOLINTEND(cppcoreguidelines-macro-usage)

// The driver of this process: opened at the first call, initialised (cuInit), and kept for good. Without one the reason,
// always FAILED_PRECONDITION: no libcuda.so.1, no device, a driver that is too old (names the missing function).
// The first call takes as long as cuInit (up to a second); it reads CUDA_VISIBLE_DEVICES.
const Result<const DriverTable*>& cuda_driver();

// The core of it, without a memory: opens `library` (a name or a path) and fills the table. The library is never closed, as
// the driver has threads of its own.
Result<DriverTable> open_driver(const std::string& library);

// OK for CUDA_SUCCESS, else "WHAT: text of the driver (CUDA_ERROR_NAME)" with
//   RESOURCE_EXHAUSTED   out of memory
//   UNAVAILABLE          sticky errors (the device is lost for this process), a device taken by another process
//   FAILED_PRECONDITION  not initialised, no device, driver too old, not supported
//   INTERNAL             everything else: we called the driver wrongly
// Uses the table of cuda_driver() for the text when there is one; never opens it.
Status to_status(CUresult result, std::string_view what);

// Whether the context is dead: every further call of this process gives the same error until it is started again.
bool is_sticky(CUresult result);

// "CUDA_ERROR_ILLEGAL_ADDRESS" as this header spells it, without asking a driver; "CUDA_ERROR_700" where it knows no name.
std::string error_name(CUresult result);

}  // namespace fastserve
