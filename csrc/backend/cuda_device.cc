#include "backend/cuda_device.h"

#include <map>
#include <mutex>
#include <utility>

#include "backend/cuda_completer.h"
#include "backend/cuda_devices.h"
#include "backend/cuda_fault.h"
#include "backend/cuda_page_lock.h"

namespace fastserve {
namespace {

struct OpenDevices {
  std::mutex mutex;
  std::map<int, std::weak_ptr<CudaDevice>> by_ordinal;
};

// Never destroyed: a lost device outlives main().
OpenDevices& open_devices() {
  static auto* held = new OpenDevices;
  return *held;
}

}  // namespace

CudaDevice::CudaDevice(const DriverTable& driver, int ordinal) : driver_(driver), ordinal_(ordinal) {}

Result<std::shared_ptr<CudaDevice>> CudaDevice::open(int ordinal) {
  const Result<const DriverTable*>& driver = cuda_driver();
  if (!driver.is_ok()) return driver.status();
  const std::lock_guard lock(open_devices().mutex);
  std::weak_ptr<CudaDevice>& known = open_devices().by_ordinal[ordinal];
  if (auto device = known.lock(); device != nullptr) {
    if (device->lost()) return device->lost_status();
    return device;
  }
  const auto device = std::shared_ptr<CudaDevice>(new CudaDevice(*driver.value(), ordinal));
  FS_RETURN_IF_ERROR(device->start());
  known = device;
  return device;
}

Status CudaDevice::start() {
  FS_RETURN_IF_ERROR(to_status(driver_.device_get(&device_, ordinal_), "cuDeviceGet"));
  FS_ASSIGN_OR_RETURN(const CudaDeviceFacts facts, read_cuda_device(ordinal_));
  uuid_ = facts.uuid;
  name_ = facts.name;
  memory_node_ = facts.memory_node;
  counts_ = &cuda_counts_of(ordinal_, uuid_);
  FS_RETURN_IF_ERROR(device_fault_of(uuid_).status);  // of an earlier life: the context is still the dead one
  FS_RETURN_IF_ERROR(to_status(driver_.primary_ctx_retain(&context_, device_), "cuDevicePrimaryCtxRetain"));
  FS_RETURN_IF_ERROR(start_page_locks(ordinal_));
  completer_ = std::make_unique<CudaCompleter>(*this);
  return Status::ok();
}

CudaDevice::~CudaDevice() {
  completer_.reset();
  if (context_ != nullptr && !lost()) static_cast<void>(driver_.primary_ctx_release(device_));
}

Status CudaDevice::lost_status() const { return lost() ? device_fault_of(uuid_).status : Status::ok(); }

std::string CudaDevice::lost_batch() const { return device_fault_of(uuid_).batch; }

void CudaDevice::lose(const Status& why, std::string batch) {
  DeviceFault fault{ordinal_, uuid_, {}, std::move(batch), monotonic_now()};
  fault.status =
      unavailable("GPU " + std::to_string(ordinal_) + " (" + name_ + ") is lost: " + why.message());
  if (!add_device_fault(std::move(fault))) return;
  lost_.store(true, std::memory_order_release);
  completer_->wake();
}

Status CudaDevice::check(CUresult result, std::string_view what, const std::string& batch) {
  if (result == CUDA_SUCCESS) return Status::ok();
  Status status = to_status(result, what);
  if (!is_sticky(result)) return status;
  lose(status, batch);
  return lost_status();
}

CudaDevice::Current::Current(const CudaDevice& device) : device_(device) {
  result_ = device.driver_.ctx_get_current(&before_);
  if (result_ == CUDA_SUCCESS && before_ != device.context_)
    result_ = device.driver_.ctx_set_current(device.context_);
}

CudaDevice::Current::~Current() {
  if (before_ != nullptr && before_ != device_.context_)
    static_cast<void>(device_.driver_.ctx_set_current(before_));
}

}  // namespace fastserve
