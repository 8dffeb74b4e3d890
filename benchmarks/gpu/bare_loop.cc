#include "gpu/bare_loop.h"

#include <algorithm>

#include "gpu/rows.h"

namespace fastserve::gpu_rows {
namespace {

std::size_t bytes_of(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(rows * columns) * sizeof(float);
}

}  // namespace

BareLoop::Lane::Lane(const KernelModelSpec& spec, const Kernels& kernels, std::int64_t rows)
    : in(bytes_of(rows, spec.columns)),
      out(bytes_of(rows, spec.out_columns)),
      device_in(in.size()),
      device_out(out.size()) {
  std::fill_n(in.floats(), in.size() / sizeof(float), 1.0F);
  add_nodes(chain, kernels, spec, rows, device_in.address(), device_out.address());
  chain.instantiate();
}

void BareLoop::Lane::start() {
  must(cuda().memcpy_htod_async(device_in.address(), in.data(), in.size(), stream.get()),
       "cuMemcpyHtoDAsync");
  chain.launch(stream);
  must(cuda().memcpy_dtoh_async(out.data(), device_out.address(), out.size(), stream.get()),
       "cuMemcpyDtoHAsync");
  done.record(stream);
}

BareLoop::BareLoop(const KernelModelSpec& spec, std::int64_t rows, int lanes) : kernels_(spec.kernels) {
  for (int i = 0; i < lanes; ++i) lanes_.push_back(std::make_unique<Lane>(spec, kernels_, rows));
}

double BareLoop::step_us(int times) {
  Lane& lane = *lanes_.front();
  std::vector<double> samples;
  for (int i = -20; i < times; ++i) {
    const double start = wall_seconds();
    lane.start();
    lane.done.spin();
    if (i >= 0) samples.push_back((wall_seconds() - start) * 1e6);
  }
  return quantile(samples, 0.5);
}

double BareLoop::steps_per_second(int times) {
  const auto lane = [&](int i) -> Lane& { return *lanes_[static_cast<std::size_t>(i) % lanes_.size()]; };
  const int ahead = static_cast<int>(lanes_.size());
  for (int i = 0; i < ahead; ++i) lane(i).start();
  const double start = wall_seconds();
  for (int i = 0; i < times; ++i) {
    lane(i).done.spin();
    lane(i).start();
  }
  const double took = wall_seconds() - start;
  for (int i = 0; i < ahead; ++i) lane(i).done.wait();
  return times / took;
}

}  // namespace fastserve::gpu_rows
