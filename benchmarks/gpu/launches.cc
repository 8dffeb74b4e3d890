// Rows about graph launches and about how their end is seen.
#include <atomic>
#include <string>

#include "gpu/calls.h"
#include "gpu/rows.h"

namespace fastserve::gpu_rows {
namespace {

void fill(Chain& chain, const Kernels& kernels, int nodes) {
  for (int i = 0; i < nodes; ++i) chain.add(kernels.get("nothing"), 1, 1, {});
  chain.instantiate();
}

// CPU time of one cuGraphLaunch on an idle stream, microseconds, median.
double launch_us(const Kernels& kernels, int nodes, int times) {
  Chain chain;
  fill(chain, kernels, nodes);
  const Stream stream;
  std::vector<double> samples;
  for (int i = -20; i < times; ++i) {
    const double start = wall_seconds();
    chain.launch(stream);
    const double took = wall_seconds() - start;
    if (i >= 0) samples.push_back(took * 1e6);
    stream.wait();
  }
  return quantile(samples, 0.5);
}

struct RoundTrip {
  double p50_us = 0;
  double p99_us = 0;
  double cpu_percent = 0;  // of one core, while it waits in a loop
};

template <class Start, class Wait>
RoundTrip round_trip(int times, Start&& start, Wait&& wait) {
  std::vector<double> samples;
  const auto once = [&] {
    const double at = wall_seconds();
    start();
    wait();
    samples.push_back((wall_seconds() - at) * 1e6);
  };
  for (int i = 0; i < 20; ++i) once();
  samples.clear();
  const double wall = wall_seconds();
  const double cpu = cpu_seconds();
  for (int i = 0; i < times; ++i) once();
  const double share = (cpu_seconds() - cpu) / (wall_seconds() - wall);
  RoundTrip out;
  out.p50_us = quantile(samples, 0.5);
  out.p99_us = quantile(samples, 0.99);
  out.cpu_percent = 100 * share;
  return out;
}

void CUDA_CB ring(void* flag) {
  auto& rung = *static_cast<std::atomic<std::uint32_t>*>(flag);
  rung.store(1, std::memory_order_release);
  rung.notify_one();
}

void report(Outcome& out, const std::string& mode, const std::string& graph, const RoundTrip& measured) {
  out.figures()
      .add(mode + "_" + graph + "_p50_us", measured.p50_us)
      .add(mode + "_" + graph + "_p99_us", measured.p99_us)
      .add(mode + "_" + graph + "_cpu_percent", measured.cpu_percent);
}

void all_modes(Outcome& out, const Chain& chain, const std::string& graph, int times) {
  const Stream stream;
  const auto launch = [&] { chain.launch(stream); };
  const Event polled;
  report(out, "poll", graph,
         round_trip(
             times, [&] { launch(), polled.record(stream); }, [&] { polled.spin(); }));
  const Event blocking(CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
  report(out, "blocking", graph,
         round_trip(
             times, [&] { launch(), blocking.record(stream); }, [&] { blocking.wait(); }));
  std::atomic<std::uint32_t> rung{0};
  report(out, "hostfunc", graph,
         round_trip(
             times,
             [&] {
               rung.store(0, std::memory_order_relaxed);
               launch();
               must(cuda().launch_host_func(stream.get(), &ring, &rung), "cuLaunchHostFunc");
             },
             [&] { rung.wait(0, std::memory_order_acquire); }));
  stream.wait();
  // Page-locked memory has one address on both sides (unified addressing).
  const HostBytes word(64);
  const auto address = static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(word.data()));
  auto* seen = reinterpret_cast<volatile std::uint32_t*>(word.data());
  if (cuda().stream_write_value32(stream.get(), address, 0, 0) != CUDA_SUCCESS) {
    out.figures().add("flag_" + graph, "cuStreamWriteValue32 is not there");
    return;
  }
  stream.wait();
  report(out, "flag", graph,
         round_trip(
             times,
             [&] {
               *seen = 0;
               launch();
               must(cuda().stream_write_value32(stream.get(), address, 1, 0), "cuStreamWriteValue32");
             },
             [&] {
               while (*seen == 0) {
               }
             }));
}

}  // namespace

Outcome graph_launch_row(const Options& options) {
  Outcome out(options);
  const Context context;
  const Kernels kernels(options.kernels);
  const int times = options.repetitions(10'000);
  const double one = launch_us(kernels, 1, times);
  const double sixty = launch_us(kernels, 60, times);
  const double many = launch_us(kernels, 300, times);
  out.figures()
      .add("nodes_1_us", one)
      .add("nodes_60_us", sixty)
      .add("nodes_300_us", many)
      .add("ratio", many / one);
  out.timing_gate(one <= 5 && sixty <= 5 && many <= 5,
                  "cuGraphLaunch <= 5 us of CPU for 1, 60 and 300 nodes");
  out.timing_gate(many / one <= 1.5, "300 nodes <= 1.5x of 1 node");
  return out;
}

Outcome completion_row(const Options& options) {
  Outcome out(options);
  const Context context;
  const Kernels kernels(options.kernels);
  Chain empty;
  fill(empty, kernels, 1);
  all_modes(out, empty, "empty", options.repetitions(10'000));
  if (const CUfunction spin = kernels.find("spin"); spin != nullptr) {
    std::uint64_t ns = 1'000'000;
    void* parameters[] = {&ns};
    Chain busy;
    busy.add(spin, 1, 1, parameters);
    busy.instantiate();
    all_modes(out, busy, "1ms", options.repetitions(1'000));
  }
  return out;
}

}  // namespace fastserve::gpu_rows
