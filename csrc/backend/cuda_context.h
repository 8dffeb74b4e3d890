// The primary context of a device for those who have no lane: page-locking, client memory, the ledger. Retained for good at the first
// use, because memory that is page-locked or opened in it is lost with it. Somebody else may reset the device all the same (cudart's
// cudaDeviceReset): then it is retained anew, and what was in it is gone.
// Thread: any.
#pragma once

#include <cuda.h>

#include <mutex>

#include "backend/cuda_driver.h"
#include "base/status.h"

namespace fastserve {

class CudaContext {
 public:
  // FAILED_PRECONDITION: no driver. INVALID_ARGUMENT: "device_id: got 3, want 0 to 1". UNAVAILABLE: its context cannot be had.
  static Result<CudaContext*> of(int ordinal);

  const DriverTable& driver() const { return driver_; }
  int ordinal() const { return ordinal_; }
  // For copies that somebody waits for: non-blocking, so that they neither wait for the legacy stream nor disturb a capture. The
  // context is current.
  Result<CUstream> copy_stream();
  Result<CUstream> new_copy_stream();  // instead of one that is not valid any more

  // Current on this thread for a scope; what was current comes back.
  class Current {
   public:
    explicit Current(CudaContext& context);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
    const Status& status() const { return status_; }

   private:
    CudaContext& context_;
    CUcontext before_ = nullptr;
    Status status_;
  };

 private:
  CudaContext(const DriverTable& driver, int ordinal, CUdevice device)
      : driver_(driver), ordinal_(ordinal), device_(device) {}
  Status make_current();
  Status retain();

  const DriverTable& driver_;
  const int ordinal_;
  const CUdevice device_;
  std::mutex mutex_;  // guards what follows
  CUcontext context_ = nullptr;
  CUstream copy_stream_ = nullptr;
};

}  // namespace fastserve
