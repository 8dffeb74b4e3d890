// GPU memory of other processes by handle: Triton's CUDA shared-memory extension (contracts.md section 2.5).
//
// A handle is opened once per process, however many regions name it (the driver refuses a second time, or counts by itself,
// depending on its version), and closed when the last region and the last request of it are gone. The handle carries no size: the
// driver says how large the allocation is. Copies run on a non-blocking stream of our own, so they neither wait for the legacy stream
// nor disturb a capture.
// Limits of CUDA, which the messages repeat: a handle cannot be opened in the process that exported it, and not across MIG instances;
// memory of virtual-memory or stream-ordered pools has none; freeing it while it is registered is undefined.
// Thread: any. No type of cuda.h.
// Source: CUDA Driver API, "cuIpcOpenMemHandle".
#pragma once

#include "base/status.h"
#include "memory/device_memory.h"

namespace fastserve {

inline constexpr std::size_t kIpcHandleBytes = 64;  // CU_IPC_HANDLE_SIZE

// The process's, for RegionTable::add_on_device. Opens the driver at the first call. FAILED_PRECONDITION: there is no GPU.
Result<DeviceMemoryOpener*> cuda_ipc_opener();

}  // namespace fastserve
