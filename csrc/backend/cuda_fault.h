// Devices that this process has lost: a sticky error or a batch that never ends makes the context useless until the process is
// started again. Who reads it: the lane (nothing new is started), the server (not ready, then exit code 70).
//
// Here also lies what must never be freed because a dead device may still write to it: batches that were in flight, their
// clients' regions, streams and models of a dead context.
// Thread: any.
// Source: cuda.h, the comments on CUDA_ERROR_ILLEGAL_ADDRESS and its kin: "any further CUDA work will return the same error. To
// continue using CUDA, the process must be terminated and relaunched."
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace fastserve {

struct DeviceFault {
  int device = -1;    // the driver's ordinal
  std::string uuid;   // "GPU-..."
  Status status;      // UNAVAILABLE, with the driver's words; what every request of the device is answered
  std::string batch;  // what ran when it was seen: "model 'm' version 1, rows 3, requests a, b"; "" = unknown
  Nanos at = 0;       // monotonic
};

// In the order in which they happened; a device stands here once.
std::vector<DeviceFault> device_faults();
bool any_device_fault();  // one relaxed load

// The lane's: keeps the first fault of a device; whether this one was it.
bool add_device_fault(DeviceFault fault);
// One with an OK status when the device lives.
DeviceFault device_fault_of(const std::string& uuid);

void keep_for_ever(std::shared_ptr<void> what);

// Tests, whose driver can be made new.
void forget_device_faults();

}  // namespace fastserve
