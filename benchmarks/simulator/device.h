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
  std::vector<std::int64_t> prepared_rows;  // the sizes that it is warm for; empty: all alike
  bool pads = false;                        // batches run as the next of these, else as they are
  double slow_share = 0;                    // of the batches that take slow_factor times as long
  double slow_factor = 1;
  // What other programs do to the machine: run times swing by so much (standard deviation of the logarithm) from one half
  // second to the next, the same for every scheduler, and the warm-up sees another swing for each size.
  double weather = 0;
  std::uint64_t weather_seed = 1;

  enum class Sizes { kAnyAlike, kPrepared, kPadded };
  Device(std::string name_in, std::vector<std::pair<std::int64_t, double>> ms_by_rows, Sizes sizes);

  std::int64_t run_rows(std::int64_t rows) const;
  Nanos mean_ns(std::int64_t rows) const;  // without noise; pads
  Nanos run_ns(std::int64_t rows, Nanos now, std::mt19937_64& random) const;
  Nanos warm_up_ns(std::int64_t rows) const;
  double best_rows_per_s() const;  // of one device, back to back

 private:
  std::vector<std::pair<std::int64_t, double>> ms_by_rows_;
};

// "flat": like a GPU. "resnet": ResNet-50 of OpenVINO on two CPU cores, as measured. "mlp": overhead and a small slope.
// "bimodal": one batch in twenty takes five times as long. "shared": ResNet-50 on two slower cores of a machine that others use
// too, any size without padding: a row costs about the same in every size, and the weather changes that by more than the sizes do.
Device device(std::string_view name);

}  // namespace simulator
