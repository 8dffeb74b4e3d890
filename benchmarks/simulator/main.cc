// simulate [--quick] [--variants] [--recorded FILE] [--device NAME] [--trace NAME] [--family NAME] [--count N] [--seed N]
// Every scheduler on every load, one JSON object a line. benchmarks/simulate.py makes the table and the picture.
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "simulator/arrivals.h"
#include "simulator/ours.h"
#include "simulator/rivals.h"
#include "simulator/simulation.h"

namespace simulator {
namespace {

struct Options {
  std::string recorded, device, trace, scheduler;
  std::size_t count = 30'000;
  std::uint64_t seed = 42;
  bool quick = false;
  bool variants = false;
};

// One rule with its settings. `family` groups the settings of one rule.
struct Entry {
  std::string family;
  std::string name;
  int depth = 1;
  std::function<std::unique_ptr<Scheduler>(const Device&, const Machine&)> make;
};

// `variants`: also ours with one part left out each.
std::vector<Entry> entries(bool variants) {
  std::vector<Entry> out;
  const auto ours = [&out](const char* name, int depth, Ours::Options options) {
    out.push_back({"fastserve", name, depth, [options](const Device& device, const Machine& machine) {
                     return std::make_unique<Ours>(device, machine, options);
                   }});
  };
  ours("fastserve", 1, {});
  ours("fastserve depth 2", 2, {});
  if (variants) {
    ours("fastserve without forecast", 1, {.forecasts = false});
    ours("fastserve without answers", 1, {.hears_answers = false});
    ours("fastserve depth 2 bound early", 2, {.binds_late = false});
  }
  out.push_back({"none", "batch 1", 1, [](const Device&, const Machine&) { return no_batching(); }});
  for (const int us : {0, 100, 500, 1000, 2000, 5000, 10'000}) {
    const Nanos delay = us * kMicrosecond;
    out.push_back({"Triton", "Triton " + std::to_string(us) + " us", 1,
                   [delay](const Device& device, const Machine&) { return triton(device, delay, {}); }});
    out.push_back(
        {"TF Serving", "TF Serving " + std::to_string(us) + " us", 1,
         [delay](const Device& device, const Machine&) { return tf_serving(device, delay, 1'000'000); }});
  }
  for (const int us : {500, 5000}) {
    const Nanos delay = us * kMicrosecond;
    out.push_back({"Triton", "Triton preferred 4,8 " + std::to_string(us) + " us", 1,
                   [delay](const Device& device, const Machine&) {
                     return triton(device, delay, {4, 8});
                   }});
  }
  for (const int rows : {2, 4, 8, 16, 32}) {
    out.push_back({"fixed", "fixed " + std::to_string(rows), 1, [rows](const Device& device, const Machine&) {
                     return triton(device, 20 * kMillisecond, {rows});
                   }});
  }
  for (const int ms : {60'000, 1000, 100}) {
    const Nanos most = ms * kMillisecond;
    out.push_back({"BentoML", "BentoML " + std::to_string(ms) + " ms", 2,
                   [most](const Device& device, const Machine& machine) {
                     return bentoml(device, machine.instances, most);
                   }});
  }
  return out;
}

void print(const Entry& entry, const Device& device, const Machine& machine, const char* trace, double load,
           const Result& r) {
  std::printf(
      "{\"device\":\"%s\",\"instances\":%d,\"trace\":\"%s\",\"load\":%g,\"family\":\"%s\",\"scheduler\":\"%"
      "s\","
      "\"offered_per_s\":%.2f,\"served_per_s\":%.2f,\"mean_ms\":%.4f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,"
      "\"mean_batch\":%.2f,\"busy\":%.4f,\"refused\":%.4f,\"dropped\":%.4f,\"high_admitted\":%.4f}\n",
      device.name.c_str(), machine.instances, trace, load, entry.family.c_str(), entry.name.c_str(),
      r.offered_per_s, r.served_per_s, r.mean_ms, r.p50_ms, r.p99_ms, r.mean_batch, r.busy, r.refused,
      r.dropped, r.high_admitted);
}

bool wanted(const std::string& filter, const std::string& name) { return filter.empty() || filter == name; }

// More than the peak, with the one knob: a target that the device can hold. In "priorities" a tenth has a high one.
void overload(const Options& options, const char* trace, double high_priority_share) {
  for (const auto& [name, target_ms] :
       {std::pair{"flat", 20}, std::pair{"resnet", 100}, std::pair{"bimodal", 300}}) {
    if (!wanted(options.device, name)) continue;
    const Device dev = device(name);
    const Machine machine{1, 1};
    std::vector<Entry> all;
    all.push_back({"fastserve", "fastserve target " + std::to_string(target_ms) + " ms", 1,
                   [target_ms](const Device& on, const Machine& with) {
                     return std::make_unique<Ours>(on, with, Ours::Options{target_ms * kMillisecond, 1000});
                   }});
    all.push_back({"fastserve", "fastserve without target, queue of 1000", 1,
                   [](const Device& on, const Machine& with) {
                     return std::make_unique<Ours>(on, with, Ours::Options{0, 1000});
                   }});
    for (const Entry& entry : all) {
      for (const double load : {0.5, 0.8, 1.0, 2.0, 3.0, 5.0}) {
        Load offered;
        offered.seed = options.seed;
        offered.arrivals = arrivals("poisson", load * dev.best_rows_per_s(), options.count, options.seed, {});
        offered.high_priority_share = high_priority_share;
        const auto scheduler = entry.make(dev, machine);
        print(entry, dev, machine, trace, load, simulate(dev, machine, offered, *scheduler));
      }
    }
  }
}

void run(const Options& options) {
  if (wanted(options.trace, "overload")) overload(options, "overload", 0);
  if (wanted(options.trace, "priorities")) overload(options, "priorities", 0.1);
  const std::vector<Nanos> recorded =
      options.recorded.empty() ? std::vector<Nanos>{} : read_recorded(options.recorded);
  const std::vector<double> loads = options.quick
                                        ? std::vector<double>{0.3, 0.8}
                                        : std::vector<double>{0.05, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95};
  const std::vector<int> clients =
      options.quick ? std::vector<int>{1, 8} : std::vector<int>{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};
  for (const char* name : {"flat", "resnet", "mlp", "bimodal", "shared"}) {
    if (!wanted(options.device, name)) continue;
    Device dev = device(name);
    dev.weather_seed = options.seed;
    for (const int instances : {1, 2}) {
      for (const Entry& entry : entries(options.variants)) {
        if (!wanted(options.scheduler, entry.family)) continue;
        Machine machine{instances, entry.depth};
        if (dev.name == "mlp") machine.gap_ns = 5 * kMicrosecond;
        // What benchmarks/scenarios/sweep.py measures on the server: clients in a closed loop.
        const bool closed_only = dev.name == "shared" || entry.family == "fixed";
        for (const char* trace : {"poisson", "bursty", "diurnal", "recorded"}) {
          if (closed_only) break;
          if (!wanted(options.trace, trace) || (recorded.empty() && !std::strcmp(trace, "recorded")))
            continue;
          for (const double load : loads) {
            Load offered;
            offered.seed = options.seed;
            offered.arrivals = arrivals(trace, load * dev.best_rows_per_s() * instances, options.count,
                                        options.seed, recorded);
            const auto scheduler = entry.make(dev, machine);
            print(entry, dev, machine, trace, load, simulate(dev, machine, offered, *scheduler));
          }
        }
        if (!wanted(options.trace, "closed")) continue;
        for (const int count : clients) {
          Load offered;
          offered.seed = options.seed;
          offered.clients = count * instances;
          offered.count = options.count / 3;
          if (dev.name == "mlp") offered.turnaround_ns = 40 * kMicrosecond;
          const auto scheduler = entry.make(dev, machine);
          print(entry, dev, machine, "closed", count, simulate(dev, machine, offered, *scheduler));
        }
      }
    }
  }
}

}  // namespace
}  // namespace simulator

int main(int argc, char** argv) {
  simulator::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (arg == "--quick") {
      options.quick = true;
    } else if (arg == "--variants") {
      options.variants = true;
    } else if (arg == "--recorded") {
      options.recorded = value();
    } else if (arg == "--device") {
      options.device = value();
    } else if (arg == "--trace") {
      options.trace = value();
    } else if (arg == "--family") {
      options.scheduler = value();
    } else if (arg == "--seed") {
      options.seed = std::stoul(value());
    } else if (arg == "--count") {
      options.count = std::stoul(value());
    } else {
      std::fprintf(stderr, "simulate: unknown argument %s\n", arg.c_str());
      return 2;
    }
  }
  simulator::run(options);
  return 0;
}
