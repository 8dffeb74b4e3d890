// Why the request queue is csrc/queue/intake.h: against moodycamel::ConcurrentQueue and a mutex around a deque, with one and
// two producers and one taker; and what one request costs in the engine (identity model), from submit to response.
//
// A benchmark's threads are the producers; the taker is a thread of its own. Manual time would hide the taker's share, so
// look at CPU: cpu_ns_per_item is the whole process's CPU time (producers and taker) for each item.
#include <benchmark/benchmark.h>
#include <concurrentqueue/concurrentqueue.h>
#include <time.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "queue/intake.h"

namespace fastserve {
namespace {

struct Item : IntakeNode<Item> {
  std::uint64_t number = 0;
};

struct IntakeQueue {
  Intake<Item> queue;
  void push(Item* item) { queue.push(item); }
  // Takes what is there; the number of items.
  std::size_t take() {
    std::size_t taken = 0;
    for (Item* item = queue.take_all(); item != nullptr; item = item->next_in_intake) {
      benchmark::DoNotOptimize(item->number);
      ++taken;
    }
    return taken;
  }
};

struct MoodycamelQueue {
  moodycamel::ConcurrentQueue<Item*> queue;
  void push(Item* item) { queue.enqueue(item); }
  std::size_t take() {
    Item* items[256];
    const std::size_t taken = queue.try_dequeue_bulk(items, 256);
    for (std::size_t i = 0; i < taken; ++i) benchmark::DoNotOptimize(items[i]->number);
    return taken;
  }
};

struct MutexQueue {
  std::mutex mutex;
  std::deque<Item*> queue;
  std::deque<Item*> taken_items;
  void push(Item* item) {
    const std::lock_guard lock(mutex);
    queue.push_back(item);
  }
  std::size_t take() {
    taken_items.clear();
    {
      const std::lock_guard lock(mutex);
      taken_items.swap(queue);
    }
    for (Item* item : taken_items) benchmark::DoNotOptimize(item->number);
    return taken_items.size();
  }
};

Nanos process_cpu_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + t.tv_nsec;
}

// Producers push windows of kWindow and wait until the taker has them: an item is reused only when it was taken, and no
// queue runs ahead of its taker.
constexpr std::size_t kWindow = 64;

// The queue's own cost: one thread pushes a window and takes it.
template <class Queue>
void push_take(benchmark::State& state) {
  Queue queue;
  std::vector<Item> items(kWindow);
  for (auto _ : state) {
    for (Item& item : items) queue.push(&item);
    std::size_t taken = 0;
    while (taken < kWindow) taken += queue.take();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kWindow));
}

// Producers on threads of their own, one taker that yields when it finds nothing.
template <class Queue>
void producers(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  constexpr std::size_t kPerProducer = 200'000;
  std::vector<std::vector<Item>> items(count, std::vector<Item>(kPerProducer));
  Nanos cpu = 0;
  for (auto _ : state) {
    Queue queue;
    const Nanos before = process_cpu_ns();
    std::vector<std::thread> threads;
    for (auto& own : items) {
      threads.emplace_back([&queue, &own] {
        for (Item& item : own) queue.push(&item);
      });
    }
    for (std::size_t taken = 0; taken < count * kPerProducer;) {
      const std::size_t now = queue.take();
      taken += now;
      if (now == 0) std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    cpu += process_cpu_ns() - before;
  }
  const auto total = static_cast<double>(state.iterations()) * static_cast<double>(count * kPerProducer);
  state.SetItemsProcessed(static_cast<std::int64_t>(total));
  state.counters["cpu_ns_per_item"] = static_cast<double>(cpu) / total;
}

BENCHMARK(push_take<IntakeQueue>);
BENCHMARK(push_take<MoodycamelQueue>);
BENCHMARK(push_take<MutexQueue>);
BENCHMARK(producers<IntakeQueue>)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(producers<MoodycamelQueue>)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(producers<MutexQueue>)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

LoadSpec identity(std::int64_t max_rows) {
  LoadSpec spec;
  spec.model = "echo";
  spec.backend = "identity";
  spec.max_batch_rows = max_rows;
  spec.inputs = {{"x", DType::kFp32, Shape{-1, 16}, false}};
  spec.outputs = {{"y", DType::kFp32, Shape{-1, 16}, false}};
  return spec;
}

class Client {
 public:
  Client(Engine& engine, std::size_t window) : submitter_(engine), samples_(window) {
    for (auto& sample : samples_) fill(*(sample = std::make_unique<Request>()));
  }

  // Submits the window, wakes once, takes every response.
  void burst() {
    for (auto& sample : samples_) {
      if (!submitter_.submit(*sample).is_ok()) std::abort();
    }
    submitter_.flush();
    for (std::size_t answered = 0; answered < samples_.size();) {
      for (Response* response = completions_.wait(kNever); response != nullptr; ++answered) {
        Response* next = response->next_in_intake;
        recycle(*response->request);
        response = next;
      }
    }
  }

  void infer() {
    if (!submitter_.infer(*samples_[0]).is_ok()) std::abort();
    recycle(*samples_[0]);
  }

 private:
  void recycle(Request& request) {
    request.reset();
    fill(request);
  }
  void fill(Request& request) {
    request.model_name = "echo";
    request.completions = &completions_;
    request.inputs.push_back({"x", DType::kFp32, Shape{1, 16}, std::as_bytes(std::span(values_))});
  }

  std::vector<float> values_ = std::vector<float>(16, 1.0F);
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  Submitter submitter_;
  std::vector<std::unique_ptr<Request>> samples_;
};

// Bursts of range(0) requests of one row, batches of up to range(1) rows, one instance.
void engine_burst(benchmark::State& state) {
  Engine engine;
  if (!engine.load(identity(state.range(1))).is_ok()) std::abort();
  {
    Client client(engine, static_cast<std::size_t>(state.range(0)));
    const Nanos before = process_cpu_ns();
    for (auto _ : state) client.burst();
    const double total = static_cast<double>(state.iterations()) * static_cast<double>(state.range(0));
    state.counters["cpu_ns_per_request"] = static_cast<double>(process_cpu_ns() - before) / total;
    state.SetItemsProcessed(static_cast<std::int64_t>(total));
  }
}

// One request at a time; the caller runs the batch itself.
void engine_infer(benchmark::State& state) {
  Engine engine;
  if (!engine.load(identity(8)).is_ok()) std::abort();
  Client client(engine, 1);
  const Nanos before = process_cpu_ns();
  for (auto _ : state) client.infer();
  state.counters["cpu_ns_per_request"] =
      static_cast<double>(process_cpu_ns() - before) / static_cast<double>(state.iterations());
}

BENCHMARK(engine_burst)
    ->ArgNames({"burst", "max_rows"})
    ->Args({1, 32})
    ->Args({32, 1})
    ->Args({32, 32})
    ->Args({256, 32})
    ->UseRealTime();
BENCHMARK(engine_infer)->UseRealTime();

}  // namespace
}  // namespace fastserve
