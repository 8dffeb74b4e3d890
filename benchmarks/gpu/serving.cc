// Rows that run the engine: latency over the bare loop, throughput by lanes, memory after loads and unloads.
#include "gpu/serving.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "backend/cuda.h"
#include "gpu/bare_loop.h"
#include "gpu/rows.h"

namespace fastserve::gpu_rows {

LoadSpec load_spec(const KernelModelSpec& spec, int lanes) {
  LoadSpec load;
  load.model = "chain";
  load.backend = "kernels";
  load.max_batch_rows = spec.sizes.back();
  load.limits.max_queue_requests = 4096;
  load.parameters["lanes"] = std::to_string(lanes);
  return load;
}

RowRequest::RowRequest(const KernelModelSpec& spec, std::int64_t rows, CompletionQueue& completions,
                       float value)
    : rows_(rows),
      spec_(spec),
      completions_(completions),
      values_(static_cast<std::size_t>(rows * spec.columns), value) {
  fill();
}

void RowRequest::fill() {
  request_.completions = &completions_;
  request_.owner = this;
  request_.model_name = "chain";
  request_.inputs.clear();
  request_.inputs.push_back(
      {"x", DType::kFp32, Shape{rows_, spec_.columns}, std::as_bytes(std::span(values_))});
}

void RowRequest::again() {
  request_.response.release();
  request_.reset();
  fill();
}

bool RowRequest::doubled() const {
  const Response& response = request_.response;
  if (!response.status.is_ok() || response.outputs.size() != 1) return false;
  const auto data = response.outputs.front().data;
  if (data.size() != static_cast<std::size_t>(rows_ * spec_.out_columns) * sizeof(float)) return false;
  const auto* first = reinterpret_cast<const float*>(data.data());
  return std::all_of(first, first + data.size() / sizeof(float),
                     [&](float y) { return y == 2 * values_.front(); });
}

Serving::Serving(const KernelModelSpec& spec, int lanes) : spec_(spec), submitter_(engine_) {
  engine_.backends().add_owned(std::make_unique<CudaBackend>(kernel_source(spec)));
  must(engine_.load(load_spec(spec, lanes)));
}

void Serving::judge(RowRequest& answered) {
  if (answered.doubled()) return;
  const Status& status = answered.request().response.status;
  if (wrong_++ == 0) first_wrong_ = status.is_ok() ? "other values than 2 x" : status.message();
}

double Serving::infer_us(std::int64_t rows, int times) {
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  RowRequest request(spec_, rows, completions);
  std::vector<double> samples;
  for (int i = -20; i < times; ++i) {
    const double start = wall_seconds();
    const auto answered = submitter_.infer(request.request());
    if (i >= 0) samples.push_back((wall_seconds() - start) * 1e6);
    must(answered.is_ok() ? Status::ok() : answered.status());
    judge(request);
    request.again();
  }
  return quantile(samples, 0.5);
}

double Serving::requests_per_second(std::int64_t rows, int in_flight, int times) {
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  std::deque<RowRequest> requests;
  for (int i = 0; i < in_flight; ++i) {
    requests.emplace_back(spec_, rows, completions);
    must(submitter_.submit(requests.back().request()));
  }
  submitter_.flush();
  int answered = 0;
  int left = in_flight;
  double start = 0;
  const int warm = std::max(1, times / 10);
  while (left > 0) {
    for (Response* response = completions.wait(kNever); response != nullptr;) {
      Response* next = response->next_in_intake;
      auto& owner = *static_cast<RowRequest*>(response->request->owner);
      judge(owner);
      if (++answered == warm) start = wall_seconds();
      owner.again();
      if (answered + left <= times + warm) {
        must(submitter_.submit(owner.request()));
      } else {
        --left;
      }
      response = next;
    }
    submitter_.flush();
  }
  return (answered - warm) / (wall_seconds() - start);
}

namespace {

// As ResNet-50 in FP16 at 32 rows: 9.6 MB in, 60 kernels, about 2.4 ms.
KernelModelSpec like_resnet(const Options& options) {
  KernelModelSpec spec;
  spec.kernels = options.kernels;
  spec.columns = options.simulated ? 64 : 75'264;
  spec.out_columns = options.simulated ? 64 : 1'000;
  spec.sizes = {1, 32};
  spec.nodes = options.simulated ? 2 : 60;
  spec.node_ns = 40'000;
  return spec;
}

}  // namespace

Outcome added_latency_row(const Options& options) {
  Outcome out(options);
  KernelModelSpec spec = like_resnet(options);
  spec.node_ns = 3'000;  // one row is quick
  const int times = options.repetitions(3'000);
  double bare = 0;
  {
    BareLoop loop(spec, 1, 1);
    bare = loop.step_us(times);
  }
  Serving serving(spec, 1);
  const double ours = serving.infer_us(1, times);
  out.figures()
      .add("bare_us", bare)
      .add("engine_us", ours)
      .add("added_us", ours - bare)
      .add("wrong", serving.wrong())
      .add("first_wrong", serving.first_wrong());
  out.gate(serving.wrong() == 0, "every answer right");
  out.timing_gate(ours - bare <= 15, "one row: at most 15 us more than the bare loop with its copies");
  return out;
}

Outcome lanes_row(const Options& options) {
  Outcome out(options);
  const KernelModelSpec spec = like_resnet(options);
  const int times = options.repetitions(600);
  std::int64_t wrong = 0;
  double ratio = 0;
  for (int lanes = 1; lanes <= 4; ++lanes) {
    double bare = 0;
    {
      BareLoop loop(spec, 32, lanes);
      bare = loop.steps_per_second(times);
    }
    Serving serving(spec, lanes);
    const double ours = serving.requests_per_second(32, 2 * lanes + 2, times);
    wrong += serving.wrong();
    if (!serving.first_wrong().empty()) out.figures().add("first_wrong", serving.first_wrong());
    if (lanes == 3) ratio = ours / bare;
    const std::string number = "lanes_" + std::to_string(lanes);
    out.figures().add(number + "_bare_batches_s", bare).add(number + "_engine_batches_s", ours);
  }
  out.figures().add("ratio_3_lanes", ratio).add("wrong", wrong);
  out.gate(wrong == 0, "every answer right");
  out.timing_gate(ratio >= 0.95, "32 rows, 3 lanes: at least 95 % of the bare loop with its copies");
  return out;
}

Outcome ledger_row(const Options& options) {
  Outcome out(options);
  KernelModelSpec spec = like_resnet(options);
  spec.sizes = {1, 2, 4, 8, 16, 32};
  spec.weights_bytes = std::size_t{8} << 20U;
  Engine engine;
  engine.backends().add_owned(std::make_unique<CudaBackend>(kernel_source(spec)));
  const Context context;
  const auto free_now = [] {
    std::size_t free = 0;
    std::size_t total = 0;
    must(cuda().mem_get_info(&free, &total), "cuMemGetInfo");
    return static_cast<std::int64_t>(free);
  };
  const auto once = [&] {
    must(engine.load(load_spec(spec, 3)));
    const std::int64_t loaded = free_now();
    must(engine.unload("chain", 1));
    return loaded;
  };
  once();  // the driver keeps what it makes once: modules, pools of graphs
  once();
  const std::int64_t before = free_now();
  const std::int64_t loaded = once();
  const int times = options.simulated ? 5 : 50;
  for (int i = 1; i < times; ++i) once();
  const std::int64_t leaked = before - free_now();
  out.figures().add("loads", times).add("version_bytes", before - loaded).add("leaked_bytes", leaked);
  out.gate(leaked < (std::int64_t{1} << 20U), "less than 1 MiB lost after the loads and unloads");
  return out;
}

}  // namespace fastserve::gpu_rows
