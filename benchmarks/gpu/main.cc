// gpu_rows ROW [--short] [--kernels PTX] [--argument TEXT]: one row of the checks on a GPU, one line of JSON on stdout.
// gpu_rows --list: the rows. Exit code: 0 passed or skipped, 1 a gate failed, 2 could not run, 77 no GPU or no driver.
#include <cstdio>
#include <exception>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "gpu/calls.h"
#include "gpu/rows.h"

namespace {

using namespace fastserve::gpu_rows;  // NOLINT(google-build-using-namespace): a main file

using Row = Outcome (*)(const Options&);
constexpr std::pair<std::string_view, Row> kRows[] = {
    {"driver", driver_row},
    {"bandwidth", bandwidth_row},
    {"overlap", overlap_row},
    {"graph_launch", graph_launch_row},
    {"completion", completion_row},
    {"dev_shm", dev_shm_row},
    {"ipc", ipc_row},
    {"added_latency", added_latency_row},
    {"lanes", lanes_row},
    {"ledger", ledger_row},
    {"fault", fault_row},
};

int list() {
  for (const auto& [name, row] : kRows) std::printf("%.*s\n", static_cast<int>(name.size()), name.data());
  return 0;
}

int run(std::string_view name, const Options& options) {
  if (name == "ipc-exporter") return ipc_exporter(options);
  if (name == "fault-child") return fault_child(options);
  for (const auto& [known, row] : kRows) {
    if (known != name) continue;
    const Outcome outcome = row(options);
    std::printf("%s\n", outcome.json(name).c_str());
    return outcome.failed() ? 1 : 0;
  }
  std::fprintf(stderr, "gpu_rows: there is no row '%.*s'\n", static_cast<int>(name.size()), name.data());
  return 2;
}

}  // namespace

int main(int count, char** words) {
  Options options;
  std::string_view row;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--list") return list();
    if (word == "--short") {
      options.brief = true;
    } else if (word == "--kernels" && i + 1 < count) {
      options.kernels = words[++i];
    } else if (word == "--argument" && i + 1 < count) {
      options.argument = words[++i];
    } else {
      row = word;
    }
  }
  if (const auto& driver = fastserve::cuda_driver(); !driver.is_ok()) {
    std::fprintf(stderr, "gpu_rows: %s\n", driver.status().message().c_str());
    return 77;
  }
  options.simulated = on_simulated_driver();
  try {
    return run(row, options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_rows: %s\n", error.what());
    return 2;
  }
}
