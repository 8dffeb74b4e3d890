// Run times of the devices that the simulation knows.
#pragma once

#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "simulator/scheduler.h"

namespace simulator {

class Device {
 public:
  std::string name;
  std::int64_t max_rows = 1;
  std::vector<std::int64_t> prepared_rows;  // batches are padded to these; empty: any size runs as it is
  double slow_share = 0;                    // of the batches that take slow_factor times as long
  double slow_factor = 1;

  Device(std::string name_in, std::vector<std::pair<std::int64_t, double>> ms_by_rows, bool pads);

  std::int64_t run_rows(std::int64_t rows) const;
  Nanos mean_ns(std::int64_t rows) const;  // without noise; pads
  Nanos run_ns(std::int64_t rows, std::mt19937_64& random) const;
  double best_rows_per_s() const;  // of one device, back to back

 private:
  std::vector<std::pair<std::int64_t, double>> ms_by_rows_;
};

// "flat": like a GPU. "resnet": ResNet-50 of OpenVINO on two CPU cores, as measured. "mlp": overhead and a small slope.
// "bimodal": one batch in twenty takes five times as long.
Device device(std::string_view name);

}  // namespace simulator
