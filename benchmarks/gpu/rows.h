// What one row of gpu.md's table measures: figures, and the gates that they have to pass.
// Each row runs in a process of its own (gpu_rows ROW), so that one that kills the device hurts no other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace fastserve::gpu_rows {

struct Options {
  bool brief = false;      // --short: a tenth of the repetitions
  bool simulated = false;  // on the simulated CUDA driver: times mean nothing and have no gates
  std::string kernels;     // PTX of kernels.cu
  std::string argument;    // of rows that start themselves again as another process

  int repetitions(int full) const { return simulated ? full / 100 + 3 : brief ? full / 10 + 3 : full; }
};

class Outcome {
 public:
  explicit Outcome(const Options& options) : simulated_(options.simulated) {}

  bench::JsonObject& figures() { return figures_; }
  // `floor`: what was asked for, in words. Timings are not judged on the simulated driver.
  void gate(bool holds, const std::string& floor);
  void timing_gate(bool holds, const std::string& floor);
  void skip(std::string reason) { skipped_ = std::move(reason); }

  bool failed() const { return !broken_.empty(); }
  std::string json(std::string_view row) const;

 private:
  bool simulated_;
  bench::JsonObject figures_;
  std::vector<std::string> floors_, broken_;
  std::string skipped_;
};

// Throws std::runtime_error when the driver refuses.
Outcome driver_row(const Options& options);
Outcome bandwidth_row(const Options& options);
Outcome overlap_row(const Options& options);
Outcome graph_launch_row(const Options& options);
Outcome completion_row(const Options& options);
Outcome dev_shm_row(const Options& options);
Outcome ipc_row(const Options& options);
Outcome added_latency_row(const Options& options);
Outcome lanes_row(const Options& options);
Outcome ledger_row(const Options& options);
Outcome fault_row(const Options& options);

// The other processes of ipc and fault; what they return is their exit code.
int ipc_exporter(const Options& options);
int fault_child(const Options& options);

// Median, 99th percentile and so on; reorders. 0 without samples.
double quantile(std::vector<double>& samples, double q);
double wall_seconds();
double cpu_seconds();  // of this process, all threads

// Runs this program again: gpu_rows WORD, the same options. Its exit code (128 + n for signal n); `out` gets its stdout.
int run_again(const Options& options, const std::string& word, std::string& out);

}  // namespace fastserve::gpu_rows
