// What the response cache costs and saves, through Submitter::infer with the identity backend (which runs on the caller's
// thread, so an execution here is as cheap as can be). The argument is the size of the input in bytes.
//   uncached  the model does not ask for the cache: the price of a request without it
//   hit       every request has been asked before; with threads: all ask the same, the worst for the lock
//   miss      no request has been asked before, and the cache is full: look-up, execution, copy, eviction
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "engine/engine.h"

namespace fastserve {
namespace {

constexpr std::uint64_t kCacheBytes = 256U << 20U;

LoadSpec spec_of(std::int64_t columns, bool cached) {
  LoadSpec spec;
  spec.model = "echo";
  spec.backend = "identity";
  spec.max_batch_rows = 8;
  spec.inputs = {{"x", DType::kFp32, Shape{-1, columns}, false}};
  spec.outputs = {{"y", DType::kFp32, Shape{-1, columns}, false}};
  spec.instance_count = 4;
  spec.response_cache = cached;
  return spec;
}

class Caller {
 public:
  Caller(Engine& engine, std::int64_t columns)
      : submitter_(engine), columns_(columns), values_(static_cast<std::size_t>(columns)) {}

  void ask(std::uint64_t what) {
    std::memcpy(values_.data(), &what, sizeof(what));
    request_.model_name = "echo";
    request_.completions = &completions_;
    request_.inputs.push_back({"x", DType::kFp32, Shape{1, columns_}, std::as_bytes(std::span(values_))});
    const auto answer = submitter_.infer(request_);
    benchmark::DoNotOptimize(answer.is_ok() && answer.value()->status.is_ok());
    request_.reset();
  }

 private:
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  Submitter submitter_;
  const std::int64_t columns_;
  std::vector<float> values_;
  Request request_;
};

Engine& engine_of(std::int64_t bytes, bool cached) {
  static Engine* engine = [] {
    EngineOptions options;
    options.response_cache_bytes = kCacheBytes;
    return new Engine(options);
  }();
  if (const Status loaded = engine->load(spec_of(bytes / 4, cached)); !loaded.is_ok()) std::abort();
  return *engine;
}

void uncached(benchmark::State& state) {
  Caller caller(engine_of(state.range(0), false), state.range(0) / 4);
  for (auto _ : state) caller.ask(1);
}
BENCHMARK(uncached)->Arg(256)->Arg(4096)->Arg(602112);

void hit(benchmark::State& state) {
  static Engine* engine = nullptr;
  if (state.thread_index() == 0) engine = &engine_of(state.range(0), true);
  std::unique_ptr<Caller> caller;
  for (auto _ : state) {
    if (caller == nullptr) caller = std::make_unique<Caller>(*engine, state.range(0) / 4);
    caller->ask(1);
  }
}
BENCHMARK(hit)->Arg(256)->Arg(4096)->Arg(602112);
BENCHMARK(hit)->Arg(256)->Threads(2)->UseRealTime();

void miss(benchmark::State& state) {
  Caller caller(engine_of(state.range(0), true), state.range(0) / 4);
  std::uint64_t next = 0;
  for (auto _ : state) caller.ask(++next);
}
BENCHMARK(miss)->Arg(256)->Arg(4096)->Arg(602112);

}  // namespace
}  // namespace fastserve
