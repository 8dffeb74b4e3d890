// The ledger of a device of the driver.
#include <string>

#include "backend/cuda_context.h"
#include "backend/cuda_devices.h"
#include "backend/cuda_fault.h"
#include "backend/cuda_ledger.h"

namespace fastserve {
namespace {

std::optional<DeviceRoom> ask(CudaContext& context) {
  if (any_device_fault()) return std::nullopt;  // a dead context is not called any more
  const CudaContext::Current current(context);
  if (!current.status().is_ok()) return std::nullopt;
  std::size_t free = 0;
  std::size_t total = 0;
  if (context.driver().mem_get_info(&free, &total) != CUDA_SUCCESS) return std::nullopt;
  return DeviceRoom{free, total};
}

}  // namespace

Result<DeviceLedger*> open_device_ledger(int ordinal) {
  if (DeviceLedger* known = device_ledgers().find(ordinal); known != nullptr) return known;
  FS_ASSIGN_OR_RETURN(CudaContext * context, CudaContext::of(ordinal));
  FS_ASSIGN_OR_RETURN(const CudaDeviceFacts facts, read_cuda_device(ordinal));
  return &device_ledgers().open({ordinal, facts.name, facts.uuid, facts.total_bytes},
                                [context] { return ask(*context); });
}

}  // namespace fastserve
