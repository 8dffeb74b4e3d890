// The same chain without us: copy in, graph, copy out, event, in a loop with nothing in between. What the engine is measured against.
#pragma once

#include <memory>
#include <vector>

#include "gpu/kernel_model.h"

namespace fastserve::gpu_rows {

class BareLoop {
 public:
  // `lanes`: sets of buffers, stream and graph.
  BareLoop(const KernelModelSpec& spec, std::int64_t rows, int lanes);
  // Microseconds of one step of one lane, waited for in a loop; median of `times`.
  double step_us(int times);
  // Steps a second with all lanes busy, one behind the other.
  double steps_per_second(int times);

 private:
  struct Lane {
    Lane(const KernelModelSpec& spec, const Kernels& kernels, std::int64_t rows);
    void start();
    HostBytes in, out;
    DeviceBytes device_in, device_out;
    Stream stream;
    Event done;
    Chain chain;
  };
  const Context context_;
  const Kernels kernels_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

}  // namespace fastserve::gpu_rows
