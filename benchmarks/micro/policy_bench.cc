// What scheduling costs: one decision for a view of N requests, the arrival forecast, admission, and a sample of the cost.
#include <benchmark/benchmark.h>

#include <vector>

#include "batch/admission.h"
#include "batch/arrival_rate.h"
#include "batch/latency_table.h"
#include "batch/policy.h"

namespace fastserve {
namespace {

BatchLimits limits() {
  BatchLimits out;
  out.max_rows = 32;
  out.prepared_rows = {1, 2, 4, 8, 16, 32};
  out.pads = true;
  return out;
}

const LatencyTable& costs() {
  static LatencyTable table;
  if (table.expected_ns(1) == 0) {
    for (const std::int64_t rows : limits().prepared_rows) table.record(rows, 3'000'000 + rows * 4'500'000);
  }
  return table;
}

// Clients in a closed loop, the last of them a moment ago.
const ArrivalRate& rate(Nanos& now) {
  static ArrivalRate out;
  static Nanos last = 1;
  if (last == 1) {
    for (int round = 0; round < 100; ++round) {
      out.answered(8, last += 10 * kMillisecond);
      for (int i = 0; i < 8; ++i) out.arrived(1, last += 20 * kMicrosecond);
    }
    out.answered(8, last += 10 * kMillisecond);
  }
  now = last + 50 * kMicrosecond;
  return out;
}

void decide_now(benchmark::State& state) {
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(state.range(0)), 1);
  const BatchLimits limit = limits();
  QueueView view;
  view.rows = rows;
  for (auto _ : state) benchmark::DoNotOptimize(decide(limit, view, costs(), 1000));
}
BENCHMARK(decide_now)->Arg(1)->Arg(8)->Arg(32);

void decide_with_forecast(benchmark::State& state) {
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(state.range(0)), 1);
  const BatchLimits limit = limits();
  QueueView view;
  Nanos now = 0;
  rate(now).describe(view, now);
  view.rows = rows;
  view.oldest_enqueued = now;
  for (auto _ : state) benchmark::DoNotOptimize(decide(limit, view, costs(), now));
}
BENCHMARK(decide_with_forecast)->Arg(1)->Arg(8);

void describe_arrivals(benchmark::State& state) {
  Nanos now = 0;
  const ArrivalRate& arrivals = rate(now);
  QueueView view;
  for (auto _ : state) {
    arrivals.describe(view, now);
    benchmark::DoNotOptimize(view);
  }
}
BENCHMARK(describe_arrivals);

void count_an_arrival(benchmark::State& state) {
  ArrivalRate arrivals;
  Nanos now = 1;
  for (auto _ : state) arrivals.arrived(1, now += 20'000);
}
BENCHMARK(count_an_arrival);

void record_a_run(benchmark::State& state) {
  LatencyTable table;
  Nanos ns = 1'000'000;
  for (auto _ : state) table.record(8, ns ^= 1024);
}
BENCHMARK(record_a_run);

void admit(benchmark::State& state) {
  PublishedDrainRate published;
  published.store(drain_rate(limits(), costs(), 1));
  ServedShares shares;
  shares.served(7, 1);
  for (auto _ : state) {
    const AdmissionView view{12, 12, 1, 5000, published.load(), shares.above(7)};
    benchmark::DoNotOptimize(admission(view, 1000, kNever, {100 * kMillisecond}));
  }
}
BENCHMARK(admit);

}  // namespace
}  // namespace fastserve
