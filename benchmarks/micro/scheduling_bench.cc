// What scheduling costs a request: the queue's whole way on one thread, without gathering or a device. The aim: under 1 us.
//   serve       admit, push, pull (decide, fill, write down) of bursts of n requests; per_request is the figure
//   deadline    the same, each with a deadline: admission by time and the expiry heap
//   priorities  the same over four levels
//   refuse      a request that meets a full queue
//   too_late    a request that is refused, because it would miss its deadline
#include <benchmark/benchmark.h>

#include <deque>

#include "batch/arena.h"
#include "sched/model_queue.h"

namespace fastserve {
namespace {

constexpr std::int64_t kRows = 16;

class Version final : public ServedVersion {
 public:
  Version() : ServedVersion("m", 1) {
    signature = {
        {{"x", DType::kFp32, Shape{-1, 4}, false}}, {{"y", DType::kFp32, Shape{-1, 4}, false}}, kRows};
  }
};

class Bench {
 public:
  explicit Bench(std::int64_t limit = 1024, Nanos run_ns = 20 * kMicrosecond)
      : queue_(version_, limits(limit), timer_),
        line_(queue_.instances.add("0", 1)),
        arena_(new BatchArena(version_.signature, plain_host_allocator(), 4)) {
    for (std::int64_t rows = 1; rows <= kRows; rows *= 2) {
      for (int i = 0; i < 20; ++i) line_.cost.record(rows, run_ns + rows * kMicrosecond);
    }
    queue_.prepare({1, 2, 4, 8, kRows}, false);
    line_.claimed = true;
  }
  ~Bench() {
    queue_.leave_timer();
    arena_->close();
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  bool submit(Request& request, std::uint32_t priority = 0, Nanos deadline = kNever) {
    request.rows = 1;
    request.priority = priority;
    request.deadline = deadline;
    request.times.enqueued = now_ += 300;
    request.expires = queue_.expiry_of(request, now_);
    if (!queue_.admit(request).is_ok()) return false;
    queue_.push(request);
    return true;
  }
  std::size_t pull() {
    Batch* batch = arena_->acquire();
    const ModelQueue::Pull pull = queue_.pull(*batch, line_.cost, now_ += 20 * kMicrosecond);
    line_.last_end = now_;
    BatchArena::give_back(*batch);
    return pull.taken;
  }
  Nanos now() const { return now_; }
  InstanceLine& line() { return line_; }

 private:
  static BatchLimits limits(std::int64_t limit) {
    BatchLimits out;
    out.max_queue_requests = limit;
    return out;
  }
  Nanos now_ = kSecond;
  Version version_;
  ExpiryTimer timer_;
  ModelQueue queue_;
  InstanceLine& line_;
  BatchArena* const arena_;
};

template <class Submit>
void serve_with(benchmark::State& state, Submit submit) {
  Bench bench;
  std::deque<Request> requests(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    for (Request& request : requests) submit(bench, request);
    // A pull may wait for company instead: time passes in it.
    for (std::size_t served = 0; served < requests.size();) served += bench.pull();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.counters["per_request"] =
      benchmark::Counter(static_cast<double>(state.iterations() * state.range(0)),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void serve(benchmark::State& state) {
  serve_with(state, [](Bench& bench, Request& request) { bench.submit(request); });
}
BENCHMARK(serve)->Arg(1)->Arg(4)->Arg(16)->Arg(64);

void deadline(benchmark::State& state) {
  serve_with(state,
             [](Bench& bench, Request& request) { bench.submit(request, 0, bench.now() + 10 * kSecond); });
}
BENCHMARK(deadline)->Arg(1)->Arg(16)->Arg(64);

void priorities(benchmark::State& state) {
  std::uint32_t priority = 0;
  serve_with(state, [&](Bench& bench, Request& request) { bench.submit(request, 1 + ++priority % 4); });
}
BENCHMARK(priorities)->Arg(1)->Arg(16)->Arg(64);

void refuse(benchmark::State& state) {
  Bench bench(1);
  Request waits;
  bench.submit(waits);
  Request request;
  for (auto _ : state) benchmark::DoNotOptimize(bench.submit(request));
}
BENCHMARK(refuse);

void too_late(benchmark::State& state) {
  Bench bench(1024, kMillisecond);
  bench.line().in_flight = 1;
  bench.line().expected_end = kNever / 2;
  Request request;
  for (auto _ : state) {
    const bool admitted = bench.submit(request, 0, bench.now() + kMillisecond);
    if (admitted) state.SkipWithError("it was admitted");
  }
}
BENCHMARK(too_late);

}  // namespace
}  // namespace fastserve
