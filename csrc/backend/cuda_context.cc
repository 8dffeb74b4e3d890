#include "backend/cuda_context.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace fastserve {
namespace {

struct Contexts {
  std::mutex mutex;
  std::map<int, std::unique_ptr<CudaContext>> by_ordinal;
};

Contexts& contexts() {
  static auto* const held = new Contexts;
  return *held;
}

std::string wanted(int devices) {
  if (devices == 1) return "0, the only GPU";
  return "0 to " + std::to_string(devices - 1);
}

}  // namespace

Result<CudaContext*> CudaContext::of(int ordinal) {
  const Result<const DriverTable*>& driver = cuda_driver();
  if (!driver.is_ok()) return driver.status();
  const DriverTable& table = *driver.value();
  const std::lock_guard lock(contexts().mutex);
  if (const auto found = contexts().by_ordinal.find(ordinal); found != contexts().by_ordinal.end())
    return found->second.get();
  int devices = 0;
  FS_RETURN_IF_ERROR(to_status(table.device_get_count(&devices), "cuDeviceGetCount"));
  if (ordinal < 0 || ordinal >= devices) {
    return invalid_argument("device_id: got " + std::to_string(ordinal) + ", want " + wanted(devices));
  }
  CUdevice device = 0;
  FS_RETURN_IF_ERROR(to_status(table.device_get(&device, ordinal), "cuDeviceGet"));
  std::unique_ptr<CudaContext> fresh(new CudaContext(table, ordinal, device));
  FS_RETURN_IF_ERROR(fresh->retain());
  return (contexts().by_ordinal[ordinal] = std::move(fresh)).get();
}

Status CudaContext::retain() {
  copy_stream_ = nullptr;  // of the former context, and gone with it
  return to_status(driver_.primary_ctx_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Status CudaContext::make_current() {
  const std::lock_guard lock(mutex_);
  const CUresult result = driver_.ctx_set_current(context_);
  if (result != CUDA_ERROR_CONTEXT_IS_DESTROYED && result != CUDA_ERROR_INVALID_CONTEXT)
    return to_status(result, "cuCtxSetCurrent");
  FS_RETURN_IF_ERROR(retain());
  return to_status(driver_.ctx_set_current(context_), "cuCtxSetCurrent");
}

Result<CUstream> CudaContext::copy_stream() {
  const std::lock_guard lock(mutex_);
  if (copy_stream_ == nullptr) {
    FS_RETURN_IF_ERROR(
        to_status(driver_.stream_create_with_priority(&copy_stream_, CU_STREAM_NON_BLOCKING, 0),
                  "cuStreamCreateWithPriority"));
  }
  return copy_stream_;
}

Result<CUstream> CudaContext::new_copy_stream() {
  {
    const std::lock_guard lock(mutex_);
    copy_stream_ = nullptr;
  }
  return copy_stream();
}

CudaContext::Current::Current(CudaContext& context) : context_(context) {
  status_ = to_status(context.driver_.ctx_get_current(&before_), "cuCtxGetCurrent");
  if (status_.is_ok()) status_ = context.make_current();
}

CudaContext::Current::~Current() {
  if (status_.is_ok()) static_cast<void>(context_.driver_.ctx_set_current(before_));
}

}  // namespace fastserve
