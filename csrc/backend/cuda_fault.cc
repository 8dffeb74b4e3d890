#include "backend/cuda_fault.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace fastserve {
namespace {

std::atomic<bool> g_any{false};  // relaxed: a hint; the list is behind the mutex

struct Faults {
  std::mutex mutex;
  std::vector<DeviceFault> list;
  std::vector<std::shared_ptr<void>> kept;
};

// Never destroyed: threads of a dead device may outlive main().
Faults& faults() {
  static auto* held = new Faults;
  return *held;
}

}  // namespace

std::vector<DeviceFault> device_faults() {
  const std::lock_guard lock(faults().mutex);
  return faults().list;
}

bool any_device_fault() { return g_any.load(std::memory_order_relaxed); }

bool add_device_fault(DeviceFault fault) {
  const std::lock_guard lock(faults().mutex);
  const auto same = [&](const DeviceFault& other) { return other.uuid == fault.uuid; };
  if (std::ranges::any_of(faults().list, same)) return false;
  faults().list.push_back(std::move(fault));
  g_any.store(true, std::memory_order_relaxed);
  return true;
}

DeviceFault device_fault_of(const std::string& uuid) {
  if (!any_device_fault()) return {};
  const std::lock_guard lock(faults().mutex);
  for (const DeviceFault& fault : faults().list) {
    if (fault.uuid == uuid) return fault;
  }
  return {};
}

void keep_for_ever(std::shared_ptr<void> what) {
  const std::lock_guard lock(faults().mutex);
  faults().kept.push_back(std::move(what));
}

void forget_device_faults() {
  const std::lock_guard lock(faults().mutex);
  faults().list.clear();
  g_any.store(false, std::memory_order_relaxed);
}

}  // namespace fastserve
