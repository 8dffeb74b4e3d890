// A lane's beginning and end: buffers, graphs. (The batches are in cuda_lane.cc.)
#include <algorithm>

#include "backend/cuda_lane.h"
#include "backend/cuda_lanes.h"
#include "backend/guard.h"
#include "base/checked.h"
#include "base/log.h"

namespace fastserve {
namespace {

CUgraph graph_of(GraphHandle handle) { return reinterpret_cast<CUgraph>(handle); }  // NOLINT: it is a pointer

// The steps above the lowest priority; numbers fall towards the highest.
Status stream_priority(const CudaDevice& device, int steps, int& out) {
  int lowest = 0;
  int highest = 0;
  FS_RETURN_IF_ERROR(to_status(device.driver().ctx_get_stream_priority_range(&lowest, &highest),
                               "cuCtxGetStreamPriorityRange"));
  out = std::max(lowest - steps, highest);
  return Status::ok();
}

}  // namespace

CudaLane::CudaLane(CudaLanes& set, const CudaVersion& version, int number, int place)
    : set_(set), version_(version), device_(version.device()), place_(place) {
  memory_.lane = number;
}

CudaLane::~CudaLane() {
  const CudaDevice::Current current(device_);
  const DriverTable& driver = device_.driver();
  const auto release = [this](auto&& call) {
    if (!device_.lost()) static_cast<void>(device_.check(call(), "freeing a lane"));
  };
  if (stream_ != nullptr) release([&] { return driver.stream_synchronize(stream_); });
  for (const Prepared& prepared : prepared_) {
    if (prepared.exec != nullptr) release([&] { return driver.graph_exec_destroy(prepared.exec); });
  }
  if (done_ != nullptr) release([&] { return driver.event_destroy(done_); });
  if (stream_ != nullptr) release([&] { return driver.stream_destroy(stream_); });
  for (const DeviceAddress address : own_) release([&] { return driver.mem_free(address); });
}

Status CudaLane::make() {
  const DriverTable& driver = device_.driver();
  int priority = 0;
  FS_RETURN_IF_ERROR(stream_priority(device_, version_.settings().stream_priority, priority));
  FS_RETURN_IF_ERROR(check(driver.stream_create_with_priority(&stream_, CU_STREAM_NON_BLOCKING, priority),
                           "cuStreamCreateWithPriority"));
  const bool blocks = version_.settings().completion == CudaSettings::Completion::kBlocking;
  const unsigned flags =
      CU_EVENT_DISABLE_TIMING | (blocks ? unsigned{CU_EVENT_BLOCKING_SYNC} : unsigned{CU_EVENT_DEFAULT});
  FS_RETURN_IF_ERROR(check(driver.event_create(&done_, flags), "cuEventCreate"));
  memory_.stream = reinterpret_cast<StreamHandle>(stream_);
  const GraphModel& graph = version_.graph();
  FS_RETURN_IF_ERROR(allocate_tensors(false, graph.owns_inputs(), memory_.inputs));
  FS_RETURN_IF_ERROR(allocate_tensors(true, graph.owns_outputs(), memory_.outputs));
  FS_RETURN_IF_ERROR(allocate(graph.lane_scratch_bytes(), "scratch memory", memory_.scratch));
  const auto rows = version_.most_rows();
  for (std::size_t i = 0; i < memory_.inputs.size(); ++i) {
    const std::size_t bytes = version_.inputs()[i].row_bytes * static_cast<std::size_t>(rows);
    inputs_.push_back({memory_.inputs[i], memory_.inputs[i] != 0 ? bytes : 0, rows});
  }
  return check(driver.stream_synchronize(stream_), "cuStreamSynchronize");
}

Status CudaLane::allocate_tensors(bool outputs, bool owned_by_model, std::vector<DeviceAddress>& out) {
  const auto& specs = outputs ? version_.signature().outputs : version_.signature().inputs;
  const auto& sizes = outputs ? version_.outputs() : version_.inputs();
  for (std::size_t i = 0; i < specs.size(); ++i) {
    std::size_t bytes = 0;
    const std::string what = (outputs ? "output '" : "input '") + specs[i].name + "'";
    if (!checked_mul(sizes[i].row_bytes, static_cast<std::size_t>(version_.most_rows()), bytes))
      return invalid_argument(what + ": too large");
    out.push_back(0);
    if (!owned_by_model && sizes[i].fixed) FS_RETURN_IF_ERROR(allocate(bytes, what, out.back()));
  }
  return Status::ok();
}

// Zeroed: what another program left there goes to nobody.
Status CudaLane::allocate(std::size_t bytes, const std::string& what, DeviceAddress& out) {
  if (bytes == 0) return Status::ok();
  CUdeviceptr address = 0;
  const std::string where = version_.text() + ", lane " + std::to_string(memory_.lane) + ", " + what + ", " +
                            std::to_string(bytes) + " bytes on GPU " + std::to_string(device_.ordinal());
  FS_RETURN_IF_ERROR(device_.check(device_.driver().mem_alloc(&address, bytes), where, version_.text()));
  own_.push_back(address);
  out = address;
  return check(device_.driver().memset_d8_async(address, 0, bytes, stream_), "cuMemsetD8Async");
}

Status CudaLane::prepare(std::int64_t rows) {
  Prepared prepared;
  prepared.rows = rows;
  if (!version_.settings().graphs) {
    prepared.why_not = "graphs are off";
  } else {
    FS_RETURN_IF_ERROR(capture(prepared));
    if (!prepared.why_not.empty()) {
      log(LogLevel::kWarning,
          version_.text() + ", " + std::to_string(rows) + " rows on GPU " +
              std::to_string(device_.ordinal()) +
              ": no graph, every batch goes through the model's own code: " + prepared.why_not);
    }
  }
  const auto after = std::ranges::find_if(prepared_, [&](const Prepared& p) { return p.rows > rows; });
  prepared_.insert(after, std::move(prepared));
  for (Input& input : inputs_) input.dirty_rows = version_.most_rows();  // a warm-up may have filled them
  return check(device_.driver().stream_synchronize(stream_), "cuStreamSynchronize");
}

Status CudaLane::capture(Prepared& into) {
  const std::string what = version_.text() + ": capturing " + std::to_string(into.rows) + " rows";
  FS_ASSIGN_OR_RETURN(const Captured captured,
                      guarded(what, [&] { return version_.graph().capture(memory_, into.rows); }));
  if (device_.lost()) return device_.lost_status();
  if (captured.graph == 0) {
    into.why_not = captured.why_not.empty() ? "the model gave no graph" : captured.why_not;
    return Status::ok();
  }
  FS_RETURN_IF_ERROR(check_addresses(captured));
  Status made = instantiate(captured, into);
  // No memory for it, or the device is gone: not something that the model's own code would be better at.
  if (made.code() == Code::kResourceExhausted || made.code() == Code::kUnavailable) return made;
  if (!made.is_ok()) into.why_not = made.message();
  return Status::ok();
}

Status CudaLane::check_addresses(const Captured& captured) const {
  const GraphModel& graph = version_.graph();
  const auto wrong = [&](const char* which, std::size_t got, std::size_t want) {
    return internal_error(version_.text() + ": capture gave " + std::to_string(got) + " addresses of " +
                          which + ", want " + std::to_string(want));
  };
  const std::size_t inputs = graph.owns_inputs() ? memory_.inputs.size() : 0;
  const std::size_t outputs = graph.owns_outputs() ? memory_.outputs.size() : 0;
  if (captured.inputs.size() != inputs) return wrong("inputs", captured.inputs.size(), inputs);
  if (captured.outputs.size() != outputs) return wrong("outputs", captured.outputs.size(), outputs);
  return Status::ok();
}

Status CudaLane::instantiate(const Captured& captured, Prepared& into) {
  const DriverTable& driver = device_.driver();
  // Kernels of a graph have a priority of their own, which is that of the stream they were captured on.
  const unsigned long long flags =
      version_.settings().stream_priority != 0 ? CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY : 0;
  CUgraphExec exec = nullptr;
  FS_RETURN_IF_ERROR(check(driver.graph_instantiate_with_flags(&exec, graph_of(captured.graph), flags),
                           "cuGraphInstantiateWithFlags"));
  into.exec = exec;
  for (const DeviceAddress address : captured.inputs) into.inputs.push_back({address, 0, into.rows});
  into.outputs = captured.outputs;
  Status uploaded = check(driver.graph_upload(exec, stream_), "cuGraphUpload");
  if (uploaded.is_ok() || device_.lost()) return uploaded;
  static_cast<void>(driver.graph_exec_destroy(exec));
  into.exec = nullptr;
  return uploaded;
}

bool CudaLane::captured(std::int64_t rows) const {
  const auto found = std::ranges::find(prepared_, rows, &Prepared::rows);
  return found != prepared_.end() && found->exec != nullptr;
}

std::string CudaLane::why_not(std::int64_t rows) const {
  const auto found = std::ranges::find(prepared_, rows, &Prepared::rows);
  return found == prepared_.end() ? "" : found->why_not;
}

}  // namespace fastserve
