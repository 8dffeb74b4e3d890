// A graph source for tests of the lane on the simulated CUDA driver. Its step is one kernel with three outputs from which a test sees
// everything that can go wrong with rows:
//   y[r][c] = 2 x[r][c] + 1, by way of the lane's scratch memory, which must be no other lane's
//   total[r] = sum of x over all rows that the step ran: padding that is not zero shows in every row
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backend/cuda.h"
#include "backend/cuda_driver.h"
#include "backend/cuda_fault.h"
#include "engine/engine.h"
#include "simulated_cuda/simulated_cuda.h"
#include "support/samples.h"

namespace fastserve::test {

inline constexpr std::int64_t kColumns = 4;

struct LaneOptions {
  std::int64_t max_rows = 8;  // 0: no batch dimension
  std::vector<std::int64_t> buckets = {1, 2, 4, 8};
  std::set<std::int64_t> not_capturable{};
  bool owns_inputs = false;
  bool owns_outputs = false;
  bool free_columns = false;  // a free dimension beside the rows; buckets must be empty
  std::size_t scratch_bytes = 8 * kColumns * sizeof(float);
  std::function<Status()> on_run{};  // before a run without a graph
  std::string kernel = "lane_step";
};

// What became of the models of a source.
struct LaneModelLog {
  int opened = 0;
  int closed = 0;
  int captured = 0;
  std::mutex mutex;                    // guards what follows: instances run at the same time
  std::vector<std::int64_t> ran_rows;  // without a graph
};

// (x, y, total, scratch, rows, columns)
inline int lane_step(const SimulatedKernel* kernel) {
  const std::uint64_t rows = kernel->words[4];
  const std::uint64_t columns = kernel->words[5];
  const auto floats = [&](unsigned word, std::uint64_t count) {
    return static_cast<float*>(kernel->memory(kernel, kernel->words[word], count * sizeof(float)));
  };
  float* const x = floats(0, rows * columns);
  float* const y = floats(1, rows * columns);
  float* const total = floats(2, rows);
  float* const scratch = kernel->words[3] == 0 ? y : floats(3, rows * columns);
  if (x == nullptr || y == nullptr || total == nullptr || scratch == nullptr)
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  float sum = 0;
  for (std::uint64_t i = 0; i < rows * columns; ++i) {
    scratch[i] = 2 * x[i];
    sum += x[i];
  }
  for (std::uint64_t i = 0; i < rows * columns; ++i) y[i] = scratch[i] + 1;
  for (std::uint64_t r = 0; r < rows; ++r) total[r] = sum;
  return CUDA_SUCCESS;
}

class LaneModel final : public GraphModel {
 public:
  LaneModel(LaneOptions options, LaneModelLog& log) : options_(std::move(options)), log_(log) {
    const bool batches = options_.max_rows > 0;
    const std::int64_t columns = options_.free_columns ? -1 : kColumns;
    signature_.max_batch_rows = options_.max_rows;
    signature_.inputs = {{"x", DType::kFp32, batches ? Shape{-1, columns} : Shape{columns}, false}};
    signature_.outputs = {{"y", DType::kFp32, batches ? Shape{-1, columns} : Shape{columns}, false},
                          {"total", DType::kFp32, batches ? Shape{-1, 1} : Shape{1}, false}};
    ++log_.opened;
  }

  const Signature& signature() const override { return signature_; }
  std::span<const std::int64_t> buckets() const override { return options_.buckets; }
  std::size_t lane_scratch_bytes() const override { return options_.scratch_bytes; }
  bool owns_inputs() const override { return options_.owns_inputs; }
  bool owns_outputs() const override { return options_.owns_outputs; }
  std::string_view platform() const override { return "lane_test"; }
  std::map<std::string, std::string> properties() const override { return {{"precision", "FP32"}}; }

  Result<Captured> capture(const LaneMemory& memory, std::int64_t rows) override {
    ++log_.captured;
    if (options_.not_capturable.contains(rows)) return Captured{0, "this size loops", {}, {}};
    Captured captured;
    const auto size = static_cast<std::size_t>(rows * kColumns) * sizeof(float);
    if (options_.owns_inputs) captured.inputs = {allocate(size)};
    if (options_.owns_outputs)
      captured.outputs = {allocate(size), allocate(static_cast<std::size_t>(rows) * sizeof(float))};
    const auto& inputs = options_.owns_inputs ? captured.inputs : memory.inputs;
    const auto& outputs = options_.owns_outputs ? captured.outputs : memory.outputs;
    const auto stream = reinterpret_cast<CUstream>(memory.stream);  // NOLINT(performance-no-int-to-ptr)
    FS_RETURN_IF_ERROR(launch(memory, inputs[0], outputs[0], outputs[1], rows, kColumns));
    FS_RETURN_IF_ERROR(to_status(driver().stream_synchronize(stream), "warm-up"));
    FS_RETURN_IF_ERROR(to_status(driver().stream_begin_capture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
                                 "begin of the capture"));
    FS_RETURN_IF_ERROR(launch(memory, inputs[0], outputs[0], outputs[1], rows, kColumns));
    CUgraph graph = nullptr;
    FS_RETURN_IF_ERROR(to_status(driver().stream_end_capture(stream, &graph), "end of the capture"));
    graphs_.push_back(graph);
    captured.graph = reinterpret_cast<GraphHandle>(graph);
    return captured;
  }

  Result<std::vector<DeviceTensor>> run(const LaneMemory& memory, std::int64_t rows,
                                        std::span<const DeviceTensor> inputs) override {
    {
      const std::lock_guard lock(log_.mutex);
      log_.ran_rows.push_back(rows);
    }
    if (options_.on_run) FS_RETURN_IF_ERROR(options_.on_run());
    const std::int64_t columns = inputs[0].shape[inputs[0].shape.rank() - 1];
    if (memory.outputs[0] != 0 && memory.outputs[1] != 0) {
      FS_RETURN_IF_ERROR(
          launch(memory, inputs[0].address, memory.outputs[0], memory.outputs[1], rows, columns));
      return std::vector<DeviceTensor>();
    }
    const auto size = static_cast<std::size_t>(rows * columns) * sizeof(float);
    const auto total_size = static_cast<std::size_t>(rows) * sizeof(float);
    const DeviceTensor y{allocate(size), inputs[0].shape, size};
    const DeviceTensor total{allocate(total_size), Shape{rows, 1}, total_size};
    FS_RETURN_IF_ERROR(launch(memory, inputs[0].address, y.address, total.address, rows, columns));
    return std::vector<DeviceTensor>{y, total};
  }

  void close() override {
    ++log_.closed;
    for (const CUgraph graph : graphs_) EXPECT_EQ(driver().graph_destroy(graph), CUDA_SUCCESS);
    for (const CUdeviceptr address : own_) EXPECT_EQ(driver().mem_free(address), CUDA_SUCCESS);
  }

 private:
  static const DriverTable& driver() { return *cuda_driver().value(); }

  CUdeviceptr allocate(std::size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(driver().mem_alloc(&address, bytes), CUDA_SUCCESS);
    const std::lock_guard lock(own_mutex_);
    own_.push_back(address);
    return address;
  }

  Status launch(const LaneMemory& memory, DeviceAddress x, DeviceAddress y, DeviceAddress total,
                std::int64_t rows, std::int64_t columns) const {
    const std::uint64_t words[] = {x,
                                   y,
                                   total,
                                   options_.free_columns ? 0 : memory.scratch,
                                   static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns)};
    const int result = simulated_cuda_launch(memory.stream, options_.kernel.c_str(), words, 6);
    return to_status(static_cast<CUresult>(result), "the step");
  }

  const LaneOptions options_;
  LaneModelLog& log_;
  Signature signature_;
  std::vector<CUgraph> graphs_;
  std::mutex own_mutex_;
  std::vector<CUdeviceptr> own_;
};

class LaneSource final : public GraphSource {
 public:
  LaneSource(std::string name, LaneOptions options, LaneModelLog& log)
      : name_(std::move(name)), options_(std::move(options)), log_(log) {
    simulated_cuda_add_function(options_.kernel.c_str(), &lane_step, "pppppp", -1);
  }
  std::string_view name() const override { return name_; }
  Result<std::unique_ptr<GraphModel>> open(const GraphLoad& load) override {
    if (load.spec.path == "missing") return not_found("path: got \"missing\", which does not exist");
    load.progress(0.5, "reading");
    return std::unique_ptr<GraphModel>(std::make_unique<LaneModel>(options_, log_));
  }

 private:
  const std::string name_;
  const LaneOptions options_;
  LaneModelLog& log_;
};

inline LoadSpec lane_spec(const std::map<std::string, std::string>& parameters = {},
                          const std::string& backend = "lane") {
  LoadSpec spec;
  spec.model = backend;
  spec.backend = backend;
  spec.parameters = parameters;
  spec.limits.max_queue_requests = 100'000;
  return spec;
}

// A request whose every value is made of `seed`, small enough for sums to be exact.
struct LaneRequest {
  LaneRequest(CompletionQueue* completions, std::int64_t rows, int seed, std::int64_t columns = kColumns,
              const std::string& model = "lane")
      : model_name(model), values(static_cast<std::size_t>(rows * columns)) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>((seed * 7 + static_cast<int>(i)) % 64);
    request.completions = completions;
    request.model_name = model_name;
    request.id = id = "r" + std::to_string(seed);
    request.inputs.push_back({"x", DType::kFp32, Shape{rows, columns}, bytes_of(values)});
  }

  // Empty when the answer is right; `alone`: no other request shared its batch, so that total is known.
  std::string wrong(bool alone = false) const {
    const Response& response = request.response;
    if (!response.status.is_ok()) return response.status.message();
    if (response.outputs.size() != 2) return "outputs";
    if (!(response.outputs[0].shape == request.inputs[0].shape))
      return "shape " + response.outputs[0].shape.str();
    float sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      sum += values[i];
      if (read(0, i) != 2 * values[i] + 1)
        return "y[" + std::to_string(i) + "] = " + std::to_string(read(0, i));
    }
    for (std::size_t r = 0; alone && r < static_cast<std::size_t>(request.inputs[0].shape[0]); ++r) {
      if (read(1, r) != sum)
        return "total[" + std::to_string(r) + "] = " + std::to_string(read(1, r)) + ", want " +
               std::to_string(sum);
    }
    return "";
  }
  float read(std::size_t output, std::size_t at) const {
    float value = NAN;
    const auto& data = request.response.outputs[output].data;
    if ((at + 1) * sizeof(float) <= data.size())
      std::memcpy(&value, data.data() + at * sizeof(float), sizeof value);
    return value;
  }
  // What became of it: the code, and how often.
  Code code() const { return request.response.status.code(); }

  const std::string model_name;
  std::vector<float> values;
  std::string id;
  Request request;
};

inline std::vector<SimulatedLine> simulated_log() {
  std::vector<SimulatedLine> lines(simulated_cuda_log(nullptr, 0));
  lines.resize(std::min(lines.size(), simulated_cuda_log(lines.data(), lines.size())));
  return lines;
}

inline int lines_of(const std::string& name, int phase) {
  int count = 0;
  for (const SimulatedLine& line : simulated_log()) count += line.name == name && line.phase == phase ? 1 : 0;
  return count;
}

// Polls; 20 s.
inline bool comes_true(const std::function<bool()>& condition) {
  const Nanos until = monotonic_now() + 20 * kSecond;
  while (!condition()) {
    if (monotonic_now() > until) return false;
    ::usleep(200);
  }
  return true;
}

// Calls of the driver after the device had died that would free something of the dead context.
inline std::int64_t dead_frees() {
  std::int64_t sum = 0;
  for (const char* call :
       {"cuMemFree", "cuStreamDestroy", "cuEventDestroy", "cuGraphExecDestroy", "cuGraphDestroy",
        "cuMemHostUnregister", "cuMemFreeHost", "cuDevicePrimaryCtxRelease"}) {
    sum += simulated_cuda_count((std::string("dead:") + call).c_str());
  }
  return sum;
}

// An engine with one source.
class LaneEngine {
 public:
  explicit LaneEngine(LaneOptions options = {}) { add("lane", std::move(options)); }
  ~LaneEngine() {
    for (auto& request : requests) request->request.reset();
  }
  void add(const std::string& name, LaneOptions options) {
    engine.backends().add_owned(
        std::make_unique<CudaBackend>(std::make_unique<LaneSource>(name, std::move(options), log)));
  }
  LaneRequest& make(std::int64_t rows, std::int64_t columns = kColumns, const std::string& model = "lane") {
    requests.push_back(
        std::make_unique<LaneRequest>(&completions, rows, static_cast<int>(requests.size()), columns, model));
    return *requests.back();
  }
  LaneRequest& submit(std::int64_t rows = 1, std::int64_t columns = kColumns,
                      const std::string& model = "lane") {
    LaneRequest& made = make(rows, columns, model);
    EXPECT_TRUE(submitter.submit(made.request).is_ok());
    submitter.flush();
    return made;
  }
  std::size_t answers(std::size_t wanted) { return wait_for(completions, wanted).size(); }
  VersionStatus status() const { return engine.status().front(); }

  LaneModelLog log;
  CompletionQueue completions{CompletionQueue::Wake::kFutex};
  std::vector<std::unique_ptr<LaneRequest>> requests;
  Engine engine;
  Submitter submitter{engine};
};

}  // namespace fastserve::test
