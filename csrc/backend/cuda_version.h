// One loaded version on one device: what its source opened, and what the lane worked out of it once.
// Thread: loader threads, one at a time; afterwards it does not change.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda_device.h"
#include "backend/cuda_ledger.h"
#include "backend/cuda_settings.h"
#include "backend/cuda_source.h"

namespace fastserve {

// A tensor of the signature as its bytes.
struct TensorBytes {
  bool fixed = false;         // the rows fix its size
  std::size_t row_bytes = 0;  // of one row; of the whole tensor where the model has no batch dimension
};

class CudaVersion {
 public:
  // Opens it. `lanes`: of all its instances on the device.
  static Result<std::shared_ptr<CudaVersion>> open(std::shared_ptr<CudaDevice> device, GraphSource& source,
                                                   const LoadSpec& spec, const CudaSettings& settings,
                                                   int lanes, const Progress& progress);
  // Closes it, unless the device is lost: then the model is kept for ever.
  ~CudaVersion();
  CudaVersion(const CudaVersion&) = delete;
  CudaVersion& operator=(const CudaVersion&) = delete;

  CudaDevice& device() const { return *device_; }
  GraphModel& graph() const { return *graph_; }
  const Signature& signature() const { return graph_->signature(); }
  const CudaSettings& settings() const { return settings_; }
  const std::string& text() const { return text_; }  // "model 'm' version 1"
  const std::vector<TensorBytes>& inputs() const { return inputs_; }
  const std::vector<TensorBytes>& outputs() const { return outputs_; }
  const std::vector<std::int64_t>& buckets() const { return buckets_; }  // empty: nothing is captured
  std::int64_t most_rows() const { return std::max<std::int64_t>(signature().max_batch_rows, 1); }
  int lanes() const { return lanes_; }

  // The lanes are captured: the ledger learns what it all took.
  void settle();

 private:
  CudaVersion(std::shared_ptr<CudaDevice> device, const LoadSpec& spec, const CudaSettings& settings,
              int lanes);
  Status check_model();
  Status claim(std::uint64_t free_before);

  const std::shared_ptr<CudaDevice> device_;
  const CudaSettings settings_;
  const std::string text_;
  const int lanes_;
  std::unique_ptr<GraphModel> graph_;
  std::vector<TensorBytes> inputs_, outputs_;
  std::vector<std::int64_t> buckets_;
  DeviceLedger::Claim claim_;
  std::uint64_t free_after_open_ = 0;  // 0: the driver does not say
};

}  // namespace fastserve
