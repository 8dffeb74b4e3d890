// Rows about the driver itself and about copies.
#include <algorithm>
#include <vector>

#include "gpu/calls.h"
#include "gpu/rows.h"

namespace fastserve::gpu_rows {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20U;

struct Buffers {
  explicit Buffers(std::size_t bytes)
      : up(bytes), down(bytes), pageable(bytes), device_in(bytes), device_out(bytes) {
    std::fill_n(up.data(), bytes, std::byte{1});
    std::fill_n(down.data(), bytes, std::byte{2});
  }
  HostBytes up, down;
  std::vector<std::byte> pageable;
  DeviceBytes device_in, device_out;
};

// Best of `times`, GB/s: what the link can do, not what else happened meanwhile.
template <class Once>
double gigabytes_per_second(std::size_t bytes, int times, Once&& once) {
  once();
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    const double start = wall_seconds();
    once();
    best = std::min(best, wall_seconds() - start);
  }
  return static_cast<double>(bytes) / best / 1e9;
}

double to_device(const Stream& stream, const Buffers& buffers, const std::byte* from, std::size_t bytes,
                 int times) {
  return gigabytes_per_second(bytes, times, [&] {
    must(cuda().memcpy_htod_async(buffers.device_in.address(), from, bytes, stream.get()),
         "cuMemcpyHtoDAsync");
    stream.wait();
  });
}

double to_host(const Stream& stream, const Buffers& buffers, std::byte* to, std::size_t bytes, int times) {
  return gigabytes_per_second(bytes, times, [&] {
    must(cuda().memcpy_dtoh_async(to, buffers.device_out.address(), bytes, stream.get()),
         "cuMemcpyDtoHAsync");
    stream.wait();
  });
}

}  // namespace

Outcome driver_row(const Options& options) {
  Outcome out(options);
  const Context context;
  std::string name(256, '\0');
  must(cuda().device_get_name(name.data(), static_cast<int>(name.size()), first_device()), "cuDeviceGetName");
  name.resize(name.find('\0'));
  std::size_t free = 0;
  std::size_t total = 0;
  must(cuda().mem_get_info(&free, &total), "cuMemGetInfo");
  int devices = 0;
  must(cuda().device_get_count(&devices), "cuDeviceGetCount");
  out.figures()
      .add("device", name)
      .add("devices", devices)
      .add("driver_version", cuda().driver_version)
      .add("free_mib", static_cast<std::int64_t>(free / kMiB))
      .add("total_mib", static_cast<std::int64_t>(total / kMiB));
  out.gate(devices >= 1, "every function of the table, a primary context");
  return out;
}

Outcome bandwidth_row(const Options& options) {
  Outcome out(options);
  const Context context;
  const std::size_t bytes = options.simulated ? 64 << 10U : 64 * kMiB;
  const Stream stream;
  Buffers buffers(bytes);
  const int times = options.repetitions(30);
  out.figures()
      .add("mib", static_cast<std::int64_t>(bytes / kMiB))
      .add("h2d_pinned_gb_s", to_device(stream, buffers, buffers.up.data(), bytes, times))
      .add("d2h_pinned_gb_s", to_host(stream, buffers, buffers.down.data(), bytes, times))
      .add("h2d_pageable_gb_s", to_device(stream, buffers, buffers.pageable.data(), bytes, times))
      .add("d2h_pageable_gb_s", to_host(stream, buffers, buffers.pageable.data(), bytes, times));
  return out;
}

Outcome overlap_row(const Options& options) {
  Outcome out(options);
  const Context context;
  const std::size_t bytes = options.simulated ? 64 << 10U : 64 * kMiB;
  const Stream up;
  const Stream down;
  Buffers buffers(bytes);
  const int times = options.repetitions(30);
  const double one = std::max(to_device(up, buffers, buffers.up.data(), bytes, times),
                              to_host(down, buffers, buffers.down.data(), bytes, times));
  const double both = gigabytes_per_second(2 * bytes, times, [&] {
    must(cuda().memcpy_htod_async(buffers.device_in.address(), buffers.up.data(), bytes, up.get()),
         "cuMemcpyHtoDAsync");
    must(cuda().memcpy_dtoh_async(buffers.down.data(), buffers.device_out.address(), bytes, down.get()),
         "cuMemcpyDtoHAsync");
    up.wait();
    down.wait();
  });
  out.figures().add("one_direction_gb_s", one).add("both_directions_gb_s", both).add("ratio", both / one);
  out.timing_gate(both / one > 1.6, "both directions at once > 1.6x the faster one");
  return out;
}

}  // namespace fastserve::gpu_rows
