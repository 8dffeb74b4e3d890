// What the metrics cost a request. The aim: under 30 ns for all histograms of one request.
//   request  a batch of one request, on the thread that owns the instance: queue, gather, execute, total, batch size
//   batch    the same for batches of n: time per request
//   common   a batch of one whose instance's shard is taken: the locked way
//   encode   the histogram that the front end writes
#include <benchmark/benchmark.h>

#include "base/histogram.h"
#include "sched/statistics.h"

namespace fastserve {
namespace {

void count_batch(StatisticsShard& own, StatisticsShard& common, std::int64_t requests, Nanos t) {
  BatchCount count(own, common);
  for (std::int64_t i = 0; i < requests; ++i) count.add_request(t, t * 3);
  count.add_batch({requests, static_cast<std::uint64_t>(requests), requests, t / 8, t * 2, t / 16, t});
}

// Another time for each batch, so that neither the bucket nor the branch is always the same.
Nanos another(Nanos t) { return (t * 48271) % 2147483647; }

void request(benchmark::State& state) {
  Statistics statistics(64);
  StatisticsShard& own = statistics.add_shard();
  Nanos t = 77;
  for (auto _ : state) count_batch(own, statistics.common(), 1, (t = another(t)) & 0xFFFFF);
}
BENCHMARK(request);

void batch(benchmark::State& state) {
  Statistics statistics(64);
  StatisticsShard& own = statistics.add_shard();
  Nanos t = 77;
  for (auto _ : state) count_batch(own, statistics.common(), state.range(0), (t = another(t)) & 0xFFFFF);
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.counters["per_request"] =
      benchmark::Counter(static_cast<double>(state.iterations() * state.range(0)),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(batch)->Arg(4)->Arg(16);

void common(benchmark::State& state) {
  Statistics statistics(64);
  StatisticsShard& own = statistics.add_shard();
  own.claimed = true;
  Nanos t = 77;
  for (auto _ : state) count_batch(own, statistics.common(), 1, (t = another(t)) & 0xFFFFF);
}
BENCHMARK(common);

void encode(benchmark::State& state) {
  DurationHistogram histogram;
  Nanos t = 77;
  for (auto _ : state) histogram.count<Writers::kAny>((t = another(t)) & 0xFFFFF);
}
BENCHMARK(encode);

void clock(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(monotonic_now());
}
BENCHMARK(clock);

}  // namespace
}  // namespace fastserve
