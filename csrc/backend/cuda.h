// The GPU backend: models of registered sources (backend/cuda_source.h) on lanes. Nothing of this has run on a GPU yet, only on the
// simulated CUDA driver of tests/simulated_cuda.
//
// From the top:
//   CudaBackend   one per source; loads a version on each device that it is to run on
//   CudaVersion   one version on one device: the source's model, what it holds of the device's memory (cuda_version.h)
//   CudaInstance  what the scheduler sees: as many batches at once as it has lanes (cuda_instance.h)
//   CudaLanes     an instance's lanes and which are free (cuda_lanes.h)
//   CudaLane      stream, event, buffers, graphs; runs one batch (cuda_lane.h)
//   CudaDevice    a GPU: context, completer, whether it is lost (cuda_device.h); CudaCompleter sees batches end (cuda_completer.h)
//   cuda_fault.h  devices that are lost, for the server
//
// Devices and lanes: an instance group names one GPU (InstanceGroup::gpu); without groups there is one instance on each GPU that the
// process sees, as Triton has it. The weights are loaded once for each GPU, whatever the number of instances there. An instance
// has `lanes` lanes: 2 where it is alone on its GPU (a batch is copied while another one computes), else 1.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "backend/cuda_source.h"

namespace fastserve {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<GraphSource> source) : source_(std::move(source)) {}

  std::string_view name() const override { return source_->name(); }
  // Also FAILED_PRECONDITION: no GPU, or no driver. UNAVAILABLE: the GPU is lost.
  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& progress) override;

 private:
  const std::unique_ptr<GraphSource> source_;
};

}  // namespace fastserve
