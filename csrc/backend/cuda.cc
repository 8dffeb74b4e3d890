#include "backend/cuda.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "backend/cuda_device.h"
#include "backend/cuda_devices.h"
#include "backend/cuda_instance.h"
#include "backend/cuda_lanes.h"
#include "backend/cuda_ledger.h"
#include "backend/cuda_version.h"
#include "memory/pinned_arena.h"

namespace fastserve {
namespace {

// Of an instance that is alone on its GPU: one batch is copied while another one computes.
constexpr int kDefaultLanes = 2;

class CudaModel final : public LoadedModel {
 public:
  // Lanes of instances that were never made; those of a lost device stay.
  ~CudaModel() override {
    for (auto& lanes : instances_) {
      if (lanes != nullptr && lanes->version().device().lost()) CudaLanes::abandon(std::move(lanes));
    }
  }

  const Signature& signature() const override { return version().signature(); }
  int instance_count() const override { return static_cast<int>(instances_.size()); }
  std::span<const std::int64_t> buckets() const override {
    return version().graph().buckets().empty() ? std::span<const std::int64_t>() : version().buckets();
  }
  std::string_view platform() const override { return version().graph().platform(); }
  std::map<std::string, std::string> properties() const override { return properties_; }

  Result<std::unique_ptr<BackendInstance>> make_instance(int index) override {
    const auto at = static_cast<std::size_t>(index);
    if (at >= instances_.size() || instances_[at] == nullptr)
      return internal_error("instance " + std::to_string(index) + " is made already, or was not asked for");
    return std::unique_ptr<BackendInstance>(std::make_unique<CudaInstance>(std::move(instances_[at])));
  }
  std::shared_ptr<HostAllocator> allocator(int instance) override {
    const auto at = static_cast<std::size_t>(instance);
    return pinned_arena().allocator(nodes_[at]);
  }

  // --- while it is loaded
  Status open(GraphSource& source, const LoadSpec& spec, const CudaSettings& settings,
              const std::vector<int>& placement, const Progress& progress);

 private:
  const CudaVersion& version() const { return *versions_.begin()->second; }
  Status capture(const std::vector<int>& placement, const Progress& progress);
  void describe(const CudaSettings& settings);

  std::map<int, std::shared_ptr<CudaVersion>> versions_;  // by device; never empty once it is open
  std::map<int, int> lanes_;                              // of each instance on the device
  std::vector<std::shared_ptr<CudaLanes>> instances_;     // nullptr once it is made
  std::vector<int> nodes_;                                // memory node of each instance's device
  std::map<std::string, std::string> properties_;
};

// While a version loads, its devices know.
class Loading {
 public:
  void on(const std::shared_ptr<CudaDevice>& device) {
    device->loading.fetch_add(1, std::memory_order_relaxed);
    devices_.push_back(device);
  }
  Loading() = default;
  Loading(const Loading&) = delete;
  Loading& operator=(const Loading&) = delete;
  ~Loading() {
    for (const auto& device : devices_) device->loading.fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  std::vector<std::shared_ptr<CudaDevice>> devices_;
};

Status CudaModel::open(GraphSource& source, const LoadSpec& spec, const CudaSettings& settings,
                       const std::vector<int>& placement, const Progress& progress) {
  Loading loading;
  std::map<int, int> instances;
  for (const int device : placement) ++instances[device];
  for (const auto& [ordinal, count] : instances) {
    FS_ASSIGN_OR_RETURN(auto device, CudaDevice::open(ordinal));
    loading.on(device);
    const CudaDevice::Current current(*device);
    FS_RETURN_IF_ERROR(device->check(current.result(), "cuCtxSetCurrent"));
    lanes_[ordinal] = settings.lanes != 0 ? settings.lanes : count == 1 ? kDefaultLanes : 1;
    FS_ASSIGN_OR_RETURN(versions_[ordinal],
                        CudaVersion::open(device, source, spec, settings, lanes_[ordinal] * count, progress));
  }
  FS_RETURN_IF_ERROR(capture(placement, progress));
  describe(settings);
  return Status::ok();
}

Status CudaModel::capture(const std::vector<int>& placement, const Progress& progress) {
  std::size_t steps = 0;
  for (const int device : placement)
    steps += static_cast<std::size_t>(lanes_[device]) * versions_[device]->buckets().size();
  std::size_t done = 0;
  const auto told = [&](const std::string& what) {
    ++done;
    if (progress)
      progress(static_cast<double>(done) / static_cast<double>(std::max<std::size_t>(steps, 1)), what);
  };
  std::map<int, int> next_lane;
  for (const int ordinal : placement) {
    const auto& version = versions_[ordinal];
    const CudaDevice::Current current(version->device());
    FS_ASSIGN_OR_RETURN(auto lanes, CudaLanes::make(version, next_lane[ordinal], lanes_[ordinal], told));
    next_lane[ordinal] += lanes_[ordinal];
    instances_.push_back(std::move(lanes));
    nodes_.push_back(version->device().memory_node());
  }
  for (const auto& [ordinal, version] : versions_) {
    const CudaDevice::Current current(version->device());
    version->settle();
  }
  return Status::ok();
}

void CudaModel::describe(const CudaSettings& settings) {
  properties_ = version().graph().properties();
  std::string devices;
  std::string lanes;
  for (const auto& [ordinal, version] : versions_) {
    devices +=
        (devices.empty() ? "" : ", ") + version->device().name() + " (" + version->device().uuid() + ")";
    lanes += (lanes.empty() ? "" : ", ") + std::to_string(version->lanes());
  }
  properties_["device"] = devices;
  properties_["lanes"] = lanes;
  properties_["completion"] = settings.completion == CudaSettings::Completion::kPoll ? "poll" : "blocking";
  properties_["watchdog_ms"] = std::to_string(settings.watchdog_ns / kMillisecond);
  if (settings.stream_priority != 0)
    properties_["stream_priority"] = std::to_string(settings.stream_priority);
  const auto& rows = version().buckets();
  const CudaLane& lane = *instances_.front()->lanes().front();
  std::string missing;
  std::size_t captured = 0;
  for (const std::int64_t size : rows) {
    captured += lane.captured(size) ? 1 : 0;
    if (!lane.captured(size) && missing.empty())
      missing = "; " + std::to_string(size) + " rows: " + lane.why_not(size);
  }
  properties_["graphs"] =
      !settings.graphs ? "off"
      : rows.empty()   ? "none: the model runs batch by batch"
                       : std::to_string(captured) + " of " + std::to_string(rows.size()) + " sizes" + missing;
}

// The device of each instance.
Result<std::vector<int>> place(const LoadSpec& spec) {
  FS_ASSIGN_OR_RETURN(const std::vector<CudaDeviceFacts> devices, list_cuda_devices());
  std::vector<int> placement;
  const auto any = [&](std::size_t at) { return devices[at % devices.size()].ordinal; };
  if (spec.instance_count < 0) {
    return invalid_argument("instance_count: got " + std::to_string(spec.instance_count) +
                            ", want 0 or more");
  }
  if (spec.groups.empty()) {
    const std::size_t count =
        spec.instance_count == 0 ? devices.size() : static_cast<std::size_t>(spec.instance_count);
    for (std::size_t i = 0; i < count; ++i) placement.push_back(any(i));
    return placement;
  }
  for (std::size_t g = 0; g < spec.groups.size(); ++g) {
    const InstanceGroup& group = spec.groups[g];
    for (int i = 0; i < group.count; ++i) {
      if (group.gpu.empty()) {
        placement.push_back(any(placement.size()));
        continue;
      }
      const auto found = find_cuda_device(devices, group.gpu);
      if (!found) {
        return invalid_argument("instance_group[" + std::to_string(g) + "].gpus: got \"" + group.gpu +
                                "\", want " + known_cuda_devices(devices));
      }
      placement.push_back(*found);
    }
  }
  return placement;
}

}  // namespace

Result<std::unique_ptr<LoadedModel>> CudaBackend::load(const LoadSpec& spec, const Progress& progress) {
  if (!cuda_driver().is_ok()) return cuda_driver().status();
  FS_ASSIGN_OR_RETURN(const CudaSettings settings, read_cuda_settings(spec.parameters));
  FS_ASSIGN_OR_RETURN(const std::vector<int> placement, place(spec));
  auto model = std::make_unique<CudaModel>();
  const Progress quiet = [](double, std::string_view) {};
  const std::lock_guard one_load(DeviceLedger::load_mutex());
  FS_RETURN_IF_ERROR(model->open(*source_, spec, settings, placement, progress ? progress : quiet));
  return std::unique_ptr<LoadedModel>(std::move(model));
}

}  // namespace fastserve
