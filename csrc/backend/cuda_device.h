// One GPU of the process: its primary context (that of cudart, torch and TensorRT; never one of our own), the thread that sees
// batches end, and whether the device is lost.
//
// Counted: every loaded version on the device holds it, so that the completer's thread ends with the last one.
// Thread: open on a loader thread; the rest any.
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "backend/cuda_counts.h"
#include "backend/cuda_driver.h"
#include "base/status.h"

namespace fastserve {

class CudaCompleter;  // backend/cuda_completer.h

class CudaDevice {
 public:
  // The one that is open, or a new one. FAILED_PRECONDITION: no driver, no such device. UNAVAILABLE: it is lost, or its context
  // cannot be had.
  static Result<std::shared_ptr<CudaDevice>> open(int ordinal);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  const DriverTable& driver() const { return driver_; }
  int ordinal() const { return ordinal_; }
  const std::string& uuid() const { return uuid_; }
  const std::string& name() const { return name_; }
  int memory_node() const { return memory_node_; }  // that is next to it; -1: unknown
  CudaCompleter& completer() { return *completer_; }
  CudaCounts& counts() { return *counts_; }

  // --- loss
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  Status lost_status() const;      // UNAVAILABLE with the reason; OK while it lives
  std::string lost_batch() const;  // DeviceFault::batch
  // The device is lost from here on, for the reason of the first call; the completer answers everything under way. `batch`: what
  // ran (DeviceFault::batch).
  void lose(const Status& why, std::string batch);
  // A driver's result as a status; a sticky one loses the device first.
  Status check(CUresult result, std::string_view what, const std::string& batch = "");

  // Versions that load on it now: launching may wait for the driver's locks meanwhile.
  std::atomic<int> loading{0};

  // The primary context is current for a scope; what was current before comes back, as it may be the caller's own. The first scope
  // on a thread without a context leaves ours there, so that a thread of ours sets it once.
  class Current {
   public:
    explicit Current(const CudaDevice& device);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
    CUresult result() const { return result_; }

   private:
    const CudaDevice& device_;
    CUcontext before_ = nullptr;
    CUresult result_ = CUDA_SUCCESS;
  };

 private:
  CudaDevice(const DriverTable& driver, int ordinal);
  Status start();

  const DriverTable& driver_;
  const int ordinal_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  std::string uuid_, name_;
  int memory_node_ = -1;
  CudaCounts* counts_ = nullptr;
  std::atomic<bool> lost_{
      false};  // release in lose(), acquire by readers; the reason stands in cuda_fault before
  std::unique_ptr<CudaCompleter> completer_;
};

}  // namespace fastserve
