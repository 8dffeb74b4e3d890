// The bare limit: what OpenVINO itself reaches in C++ with the same precision, streams and threads, without a
// server, a queue or a copy around it. Inputs are filled once; nothing is copied per inference.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/json.h"
#include "common/latency.h"
#include "common/openvino_model.h"
#include "common/payload.h"
#include "common/process.h"
#include "common/tool.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp = R"(openvino_limit: what bare OpenVINO reaches on this machine, in C++.

  openvino_limit --model FILE [options]

  --model FILE         anything OpenVINO reads: .xml, .onnx, .pb folder, .tflite, .pdmodel
  --device D           [CPU]
  --precision P        f32, bf16, f16: the inference_precision hint; empty: OpenVINO's own choice
  --streams N          num_streams          [0: OpenVINO's choice under the throughput hint]
  --threads N          inference_num_threads [0: OpenVINO's choice]
  --cases BxN,...      static batch size B with N async inferences outstanding; N 0: OpenVINO's optimal
                       number [1x0,8x0]
  --sync               one blocking infer() after the other instead (N is ignored)
  --seconds S          window for each case [3]     --warmup S  before it [0.5]
  --cache-dir DIR      keep compiled models there
  --cpu N              pin the whole process to one CPU

Output: one line of JSON: {"runs": [{"batch", "in_flight", "rows_per_s", "p50_us", ...}, ...], "best_rows_per_s"}.

Examples
  openvino_limit --model resnet50.onnx --precision bf16 --streams 2 --threads 2 --cases 1x1,1x0,8x0
  openvino_limit --model mlp.onnx --cases 1x1 --sync --streams 1 --threads 1
)";

struct Case {
  std::int64_t batch, in_flight;
};

struct Options {
  std::string model, device, precision, cache_dir;
  std::int64_t streams, threads;
  std::vector<Case> cases;
  bool sync;
  double seconds, warmup_s;
};

std::vector<Case> parse_cases(const std::string& text, const Args& args) {
  std::vector<Case> cases;
  for (const char* at = text.c_str();; ++at) {
    Case item{};
    int read = 0;
    if (std::sscanf(at, "%ldx%ld%n", &item.batch, &item.in_flight, &read) != 2 || item.batch < 1 ||
        item.in_flight < 0) {
      args.fail("--cases: got " + text + ", want BATCHxINFLIGHT,... such as 1x1,8x0");
    }
    cases.push_back(item);
    at += read;
    if (*at == '\0') return cases;
    if (*at != ',') args.fail("--cases: got " + text + ", want BATCHxINFLIGHT,... such as 1x1,8x0");
  }
}

ov::element::Type precision_type(const std::string& name, const Args& args) {
  if (name == "f32") return ov::element::f32;
  if (name == "bf16") return ov::element::bf16;
  if (name == "f16") return ov::element::f16;
  args.fail("--precision: got " + name + ", want f32, bf16 or f16");
}

ov::AnyMap properties(const Options& options, const Args& args) {
  ov::AnyMap map;
  map.insert(ov::hint::performance_mode(options.sync || options.streams == 1
                                            ? ov::hint::PerformanceMode::LATENCY
                                            : ov::hint::PerformanceMode::THROUGHPUT));
  if (!options.precision.empty())
    map.insert(ov::hint::inference_precision(precision_type(options.precision, args)));
  if (options.streams > 0) map.insert(ov::num_streams(static_cast<int>(options.streams)));
  if (options.threads > 0) map.insert(ov::inference_num_threads(static_cast<int>(options.threads)));
  if (!options.cache_dir.empty()) map.insert(ov::cache_dir(options.cache_dir));
  return map;
}

void fill_inputs(ov::InferRequest& request, const ov::CompiledModel& model, std::uint64_t seed) {
  for (const auto& input : model.inputs()) {
    ov::Tensor tensor = request.get_tensor(input);
    std::string dtype = input.get_element_type().get_type_name();  // f32, i64, ...
    dtype = (dtype[0] == 'f' ? "FP" : dtype[0] == 'u' ? "UINT" : "INT") + dtype.substr(1);
    TensorSpec spec{input.get_any_name(), dtype, {}};
    for (const std::size_t dim : tensor.get_shape()) spec.shape.push_back(static_cast<std::int64_t>(dim));
    if (spec.byte_size() != tensor.get_byte_size())
      throw std::runtime_error("input " + spec.name + ": dtype " + dtype);
    Payload(spec, 1).fill(seed, static_cast<char*>(tensor.data()));
  }
}

// Latencies and rows of one window; filled by OpenVINO's callback threads or by the caller of infer().
class Window {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    latencies_.clear();
    inferences_ = 0;
    cpu_ns_ = -cpu_.now_ns();
    opened_ns_ = now_ns();
  }
  void add(std::int64_t latency_ns) {
    const std::lock_guard lock(mutex_);
    latencies_.add(latency_ns);
    ++inferences_;
  }
  JsonObject close(std::int64_t batch) {
    const std::lock_guard lock(mutex_);
    const double window_s = static_cast<double>(now_ns() - opened_ns_) / 1e9;
    const double rows = static_cast<double>(inferences_ * batch);
    rows_per_s_ = rows / window_s;
    JsonObject out;
    out.add("batch", batch).add("inferences", inferences_).add("window_s", window_s);
    out.add("rows_per_s", rows_per_s_)
        .add("cpu_us_per_row", static_cast<double>(cpu_ns_ + cpu_.now_ns()) / 1e3 / rows);
    latencies_.report(out);
    return out;
  }
  double rows_per_s() const { return rows_per_s_; }

 private:
  std::mutex mutex_;
  CpuClock cpu_{{getpid()}};
  Latencies latencies_;
  std::int64_t inferences_ = 0, cpu_ns_ = 0, opened_ns_ = 0;
  double rows_per_s_ = 0;
};

void sleep_s(double seconds) { usleep(static_cast<useconds_t>(seconds * 1e6)); }

void run_sync(ov::CompiledModel& compiled, const Options& options, Window& window, JsonObject& out,
              std::int64_t batch) {
  ov::InferRequest request = compiled.create_infer_request();
  fill_inputs(request, compiled, 0);
  for (const auto end = now_ns() + static_cast<std::int64_t>(options.warmup_s * 1e9); now_ns() < end;)
    request.infer();
  window.open();
  const auto end = now_ns() + static_cast<std::int64_t>(options.seconds * 1e9);
  for (std::int64_t start = now_ns(), stop; start < end; start = stop) {
    request.infer();
    stop = now_ns();
    window.add(stop - start);
  }
  out = window.close(batch).add("in_flight", 1).add("sync", true);
}

// Keeps `in_flight` inferences going: each completion starts its own request again.
void run_async(ov::CompiledModel& compiled, const Options& options, Window& window, JsonObject& out,
               std::int64_t batch, std::int64_t in_flight) {
  struct Slot {
    ov::InferRequest request;
    std::int64_t started_ns = 0;
  };
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable ended;
  std::int64_t running = in_flight;
  std::vector<Slot> slots(static_cast<std::size_t>(in_flight));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    Slot& slot = slots[i];
    slot.request = compiled.create_infer_request();
    fill_inputs(slot.request, compiled, i);
    slot.request.set_callback([&](std::exception_ptr failure) {
      const std::int64_t done_ns = now_ns();
      window.add(done_ns - slot.started_ns);
      if (stop.load() || failure) {
        const std::lock_guard lock(mutex);
        if (--running == 0) ended.notify_one();
        return;
      }
      slot.started_ns = done_ns;
      slot.request.start_async();
    });
  }
  for (Slot& slot : slots) {
    slot.started_ns = now_ns();
    slot.request.start_async();
  }
  sleep_s(options.warmup_s);
  window.open();
  sleep_s(options.seconds);
  out = window.close(batch).add("in_flight", in_flight).add("sync", false);
  stop.store(true);
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return running == 0; });
  lock.unlock();
  for (Slot& slot : slots) slot.request.wait();  // the callback has returned
}

int run(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const Options options{args.text("--model"),
                        args.text("--device", "CPU"),
                        args.text("--precision"),
                        args.text("--cache-dir"),
                        args.integer("--streams", 0, 0, 1024),
                        args.integer("--threads", 0, 0, 1024),
                        parse_cases(args.text("--cases", "1x0,8x0"), args),
                        args.flag("--sync"),
                        args.real("--seconds", 3, 0.01, 3600),
                        args.real("--warmup", 0.5, 0, 3600)};
  const int cpu = static_cast<int>(args.integer("--cpu", -1, -1, 1023));
  args.finish();
  if (options.model.empty()) args.fail("want --model FILE (see --help)");
  if (!pin_to_cpu(cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(cpu));

  ov::Core core;
  std::vector<JsonObject> runs;
  double best = 0;
  JsonObject report;
  ov::CompiledModel compiled;
  std::int64_t compiled_batch = 0;
  for (const auto& [batch, asked] : options.cases) {
    if (batch != compiled_batch) {
      compiled = core.compile_model(read_with_batch(core, options.model, batch), options.device,
                                    properties(options, args));
      compiled_batch = batch;
    }
    Window window;
    JsonObject out;
    if (options.sync) {
      run_sync(compiled, options, window, out, batch);
    } else {
      const auto optimal =
          static_cast<std::int64_t>(compiled.get_property(ov::optimal_number_of_infer_requests));
      run_async(compiled, options, window, out, batch, asked > 0 ? asked : optimal);
    }
    best = std::max(best, window.rows_per_s());
    out.add("case", std::to_string(batch) + "x" + std::to_string(asked));
    out.add("streams", static_cast<int>(compiled.get_property(ov::num_streams).num));
    out.add("threads", compiled.get_property(ov::inference_num_threads));
    out.add("precision", compiled.get_property(ov::hint::inference_precision).get_type_name());
    runs.push_back(out);
  }
  report.add("model", options.model).add("openvino", ov::get_openvino_version().buildNumber);
  report.add("best_rows_per_s", best).add("runs", runs);
  std::printf("%s\n", report.str().c_str());
  return 0;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
