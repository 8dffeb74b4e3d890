#include "simulated_cuda/world.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

namespace simulated_cuda {

namespace {

thread_local Device* device_of_thread = nullptr;
thread_local std::uint64_t device_generation = 0;

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

}  // namespace

World& world() {
  static World* const kept = [] {
    auto* made = new World;  // never destroyed: workers wait in it when the process ends
    for (int i = 0; i < kMaxDevices; ++i) {
      Device& device = made->devices[static_cast<std::size_t>(i)];
      device.ordinal = i;
      device.context.device = &device;
      device.next_address = (static_cast<std::uint64_t>(i) + 1) << 40U;  // unlike any address of this process
      device.legacy.device = &device;
    }
    read_environment(*made);
    add_kernels(*made);
    return made;
  }();
  return *kept;
}

// A reset takes every thread's context away.
Device* current_device() { return device_generation == world().generation ? device_of_thread : nullptr; }

void set_current_device(Device* device) {
  device_of_thread = device;
  device_generation = world().generation;
}

std::uint64_t this_thread() {
  static std::atomic<std::uint64_t> next{1};
  thread_local const std::uint64_t number = next.fetch_add(1);
  return number;
}

void count(World& world, std::string_view counter, std::int64_t by) {
  const auto found = world.counters.find(counter);
  if (found != world.counters.end()) {
    found->second += by;
  } else {
    world.counters.emplace(counter, by);
  }
}

bool sticky(CUresult result) {
  const int code = result;
  return code == 214 || code == 220 || code == 226 || code == 700 || code == 702 || code == 709 ||
         code == 710 || (code >= 714 && code <= 719) || code == 721 || code == 999;
}

bool take_fault(World& world, std::string_view where, int* result) {
  for (auto fault = world.faults.begin(); fault != world.faults.end(); ++fault) {
    if (fault->where != where || --fault->countdown > 0) continue;
    *result = fault->result;
    world.faults.erase(fault);
    return true;
  }
  return false;
}

void write_log(World& world, const Device& device, const CUstream_st& stream, const Operation& operation,
               int phase) {
  SimulatedLine line{};
  line.operation = operation.number;
  line.stream = stream.number;
  line.bytes = operation.step.bytes;
  line.address = operation.step.address;
  line.graph = operation.exec ? operation.exec->number : 0;
  line.device = device.ordinal;
  line.engine = operation.step.engine;
  line.phase = phase;
  const std::size_t length = std::min(operation.step.name.size(), sizeof(line.name) - 1);
  std::memcpy(line.name, operation.step.name.data(), length);
  world.log.push_back(line);
}

// The device is lost: what is on it never ends, host functions are not called, events are not reached.
void kill(World& world, Device& device, CUresult result) {
  if (device.dead == CUDA_SUCCESS) device.dead = result;
  for (CUstream stream : world.streams) {
    if (stream->device == &device) stream->queue.clear();
  }
  device.legacy.queue.clear();
  world.changed.notify_all();
}

Call::Call(const char* name, Needs needs, bool unsafe)
    : lock(simulated_cuda::world().mutex), world(simulated_cuda::world()) {
  count(world, std::string("calls:") + name);
  if (in_host_function()) {
    count(world, "calls_in_host_functions");
    result = CUDA_ERROR_NOT_PERMITTED;
    return;
  }
  device = current_device();
  int injected = 0;
  if (take_fault(world, name, &injected)) {
    if (injected == SIMULATED_HANG) {
      const std::uint64_t epoch = world.hang_epoch;
      const std::uint64_t generation = world.generation;
      world.changed.wait(lock, [&] { return world.hang_epoch != epoch || world.generation != generation; });
    } else {
      result = static_cast<CUresult>(injected);
      if (device != nullptr && sticky(result)) kill(world, *device, result);
      return;
    }
  }
  if (needs == Needs::kNothing) return;
  if (!world.initialised) {
    result = CUDA_ERROR_NOT_INITIALIZED;
    return;
  }
  if (needs == Needs::kInit) return;
  if (device == nullptr) {
    result = CUDA_ERROR_INVALID_CONTEXT;
    return;
  }
  if (device->dead != CUDA_SUCCESS) {
    count(world, std::string("dead:") + name);
    result = device->dead;
    return;
  }
  if (unsafe) {
    for (const auto& capture : world.captures) {
      if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
      if (capture->mode != CU_STREAM_CAPTURE_MODE_GLOBAL && capture->thread != this_thread()) continue;
      capture->invalid = true;
      count(world, "unsafe_calls_during_capture");
      result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  }
}

CUstream stream_of(World& world, Device& device, CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    count(world, "legacy_stream_calls");
    return &device.legacy;
  }
  return world.streams.contains(handle) ? handle : nullptr;
}

bool idle(const CUstream_st& stream) { return stream.queue.empty(); }

bool all_idle(const World& world, const Device& device) {
  if (!idle(device.legacy)) return false;
  return std::all_of(world.streams.begin(), world.streams.end(),
                     [&](CUstream stream) { return stream->device != &device || idle(*stream); });
}

CUresult wait(Lock& lock, World& world, Device& device, const std::function<bool()>& done) {
  const std::uint64_t generation = world.generation;
  world.changed.wait(lock,
                     [&] { return world.generation != generation || device.dead != CUDA_SUCCESS || done(); });
  if (world.generation != generation) return CUDA_ERROR_DEINITIALIZED;
  return device.dead;
}

CUresult submit(World& world, CUstream stream, Step step, std::shared_ptr<CUgraphExec_st> exec) {
  if (stream->capture) {
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream != stream->capture->origin) stream->capture->unjoined.insert(stream);
    stream->capture->graph->nodes.push_back({std::move(step)});
    return CUDA_SUCCESS;
  }
  if (stream == &stream->device->legacy) {
    for (const auto& capture : world.captures) {
      if ((capture->origin->flags & CU_STREAM_NON_BLOCKING) != 0) continue;
      capture->invalid = true;
      return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
  }
  auto operation = std::make_shared<Operation>();
  operation->step = std::move(step);
  operation->number = world.next_number++;
  operation->exec = std::move(exec);
  write_log(world, *stream->device, *stream, *operation, SIMULATED_QUEUED);
  stream->queue.push_back(std::move(operation));
  advance(world);
  return CUDA_SUCCESS;
}

namespace {

// Does what is at the head of the stream and needs no engine; true when the head went away.
bool advance_head(World& world, CUstream_st& stream) {
  if (stream.queue.empty()) return false;
  const std::shared_ptr<Operation> head = stream.queue.front();
  Step& step = head->step;
  switch (step.kind) {
    case Step::Kind::kWork:
      return false;
    case Step::Kind::kRecord:
      step.event->completed = std::max(step.event->completed, step.target);
      step.event->reached_ns = now_ns();
      break;
    case Step::Kind::kWait:
      if (step.event->completed < step.target) return false;
      break;
    case Step::Kind::kGraphBegin:
      if (head->exec->running) return false;  // one launch of an exec at a time
      head->exec->running = true;
      break;
    case Step::Kind::kGraphEnd:
      head->exec->running = false;
      --head->exec->outstanding;
      break;
  }
  write_log(world, *stream.device, stream, *head, SIMULATED_ENDED);
  stream.queue.pop_front();
  return true;
}

}  // namespace

void advance(World& world) {
  bool moved = true;
  while (moved) {
    moved = false;
    for (CUstream stream : world.streams) {
      while (advance_head(world, *stream)) moved = true;
    }
    for (Device& device : world.devices) {
      while (advance_head(world, device.legacy)) moved = true;
    }
  }
  world.changed.notify_all();
}

namespace {

struct Found {
  CUstream stream = nullptr;
  std::shared_ptr<Operation> operation;
};

// Streams of higher priority (a lower number) first, then the oldest operation.
Found next_operation(World& world, Device& device, int engine) {
  Found best;
  auto look = [&](CUstream stream) {
    if (stream->device != &device || stream->queue.empty()) return;
    const auto& head = stream->queue.front();
    if (head->started || head->step.kind != Step::Kind::kWork || head->step.engine != engine) return;
    if (!best.stream || stream->priority < best.stream->priority ||
        (stream->priority == best.stream->priority && head->number < best.operation->number)) {
      best = {stream, head};
    }
  };
  for (CUstream stream : world.streams) look(stream);
  look(&device.legacy);
  return best;
}

// Sleeps as long as the operation takes and as long as its engine is held. False: it is gone (the device died, a reset).
bool pass_time(Lock& lock, World& world, Device& device, int engine, std::int64_t cost_us) {
  const std::uint64_t generation = world.generation;
  const auto gone = [&] { return world.generation != generation || device.dead != CUDA_SUCCESS; };
  if (cost_us > 0) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(cost_us);
    while (!gone() && std::chrono::steady_clock::now() < until) {
      world.changed.wait_until(lock, until, gone);
    }
  }
  world.changed.wait(lock, [&] { return gone() || !world.held[static_cast<std::size_t>(engine)]; });
  return !gone();
}

std::string_view fault_kind(const Step& step) {
  return step.type == CU_GRAPH_NODE_TYPE_KERNEL ? std::string_view("kernel") : std::string_view(step.name);
}

void run_operation(Lock& lock, World& world, Device& device, int engine, const Found& found) {
  const std::uint64_t generation = world.generation;
  const auto gone = [&] { return world.generation != generation || device.dead != CUDA_SUCCESS; };
  Operation& operation = *found.operation;
  operation.started = true;
  write_log(world, device, *found.stream, operation, SIMULATED_STARTED);
  world.changed.notify_all();

  int injected = 0;
  const bool has_fault = take_fault(world, "run:" + std::string(fault_kind(operation.step)), &injected) ||
                         take_fault(world, "run:" + operation.step.name, &injected);
  if (has_fault && injected == SIMULATED_HANG) {
    const std::uint64_t epoch = world.hang_epoch;
    world.changed.wait(lock, [&] { return gone() || world.hang_epoch != epoch; });
    if (gone()) return;
  }
  if (!pass_time(lock, world, device, engine, operation.step.cost_us)) return;

  CUresult result = has_fault && injected != SIMULATED_HANG ? static_cast<CUresult>(injected) : CUDA_SUCCESS;
  if (result == CUDA_SUCCESS && operation.step.work) {
    ++world.working;
    lock.unlock();
    result = operation.step.work();
    lock.lock();
    --world.working;
    world.changed.notify_all();
    if (gone()) return;
  }
  write_log(world, device, *found.stream, operation,
            result == CUDA_SUCCESS ? SIMULATED_ENDED : SIMULATED_FAILED);
  if (result != CUDA_SUCCESS) {
    kill(world, device, result);  // what a device reports long after the call is always sticky
    return;
  }
  found.stream->queue.pop_front();
  advance(world);
}

[[noreturn]] void work(World& world, Device& device, int engine) {
  Lock lock(world.mutex);
  int& busy = device.busy[static_cast<std::size_t>(engine)];
  for (;;) {
    const std::int64_t slots = engine == SIMULATED_COMPUTE ? world.settings.compute_slots : 1;
    Found found;
    if (device.dead == CUDA_SUCCESS && busy < slots) found = next_operation(world, device, engine);
    if (!found.stream) {
      world.changed.wait(lock);
      continue;
    }
    ++busy;
    run_operation(lock, world, device, engine, found);
    --busy;
    world.changed.notify_all();
  }
}

}  // namespace

void start_workers(World& world, Device& device) {
  if (device.workers_started) return;
  device.workers_started = true;
  for (int engine = 0; engine < kEngines; ++engine) {
    for (int i = 0; i < (engine == SIMULATED_COMPUTE ? kMaxComputeSlots : 1); ++i) {
      std::thread([&world, &device, engine] { work(world, device, engine); }).detach();
    }
  }
}

}  // namespace simulated_cuda
