// The state of the simulated CUDA driver: devices, streams, operations, faults, the log. One mutex for all of it.
//
// Threads: callers of cu*; per device one worker for each copy engine, one for host functions and kMaxComputeSlots for kernels. A
// worker takes the operation at the head of a stream, waits as long as it is to take (without the lock, without computing),
// does it, and removes it. The world lives until the process ends, as a driver does.
#pragma once

#include <cuda.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "simulated_cuda/simulated_cuda.h"

namespace simulated_cuda {

inline constexpr int kEngines = 4;
inline constexpr int kMaxComputeSlots = 8;
inline constexpr int kMaxDevices = 16;

struct Device;
struct World;

// What an operation does when its time has come; outside the lock. CUDA_SUCCESS or an error that it leaves behind.
using Work = std::function<CUresult()>;

struct Event {
  std::uint64_t recorded = 0;   // calls of cuEventRecord
  std::uint64_t completed = 0;  // of those, reached by the device
  std::uint64_t reached_ns = 0;
  std::uint64_t capture = 0;  // of the graph capture that recorded it last; 0 = none
  CUstream captured_on = nullptr;
  Device* device = nullptr;
  unsigned flags = 0;
};

// A step, as a node of a graph or on a stream.
struct Step {
  enum class Kind { kWork, kRecord, kWait, kGraphBegin, kGraphEnd };
  Kind kind = Kind::kWork;
  int engine = SIMULATED_NO_ENGINE;
  std::string name;
  std::size_t bytes = 0;
  std::uint64_t address = 0;
  std::int64_t cost_us = 0;
  Work work;
  std::shared_ptr<Event> event;
  std::uint64_t target = 0;  // records of the event that are waited for
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
};

}  // namespace simulated_cuda

struct CUctx_st {
  simulated_cuda::Device* device = nullptr;
};

struct CUgraphNode_st {
  simulated_cuda::Step step;
};

struct CUgraph_st {
  std::deque<CUgraphNode_st> nodes;  // in an order that their dependencies allow
};

struct CUgraphExec_st {
  std::uint64_t number = 0;
  std::vector<simulated_cuda::Step> steps;
  simulated_cuda::Device* device = nullptr;
  bool running = false;
  std::uint64_t outstanding = 0;  // launches that have not ended
  bool destroyed = false;
};

struct CUfunc_st {
  std::string name;
  std::string parameters;
  SimulatedFunction function = nullptr;
  int cost_us = -1;
};

struct CUmod_st {
  int unused = 0;
};

namespace simulated_cuda {

struct Operation {
  Step step;
  std::uint64_t number = 0;
  std::shared_ptr<CUgraphExec_st> exec;
  bool started = false;
};

// A graph being captured; all streams that joined it point to it.
struct Capture {
  std::uint64_t number = 0;
  std::shared_ptr<CUgraph_st> graph;
  CUstream origin = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::uint64_t thread = 0;
  bool invalid = false;
  std::set<CUstream> unjoined;  // forked off, and nobody waits for what they did last
};

}  // namespace simulated_cuda

struct CUstream_st {
  std::uint64_t number = 0;
  simulated_cuda::Device* device = nullptr;
  unsigned flags = 0;
  int priority = 0;
  std::deque<std::shared_ptr<simulated_cuda::Operation>> queue;
  std::shared_ptr<simulated_cuda::Capture> capture;
};

struct CUevent_st {
  std::shared_ptr<simulated_cuda::Event> event;
};

namespace simulated_cuda {

struct Allocation {
  std::uint64_t base = 0;
  std::size_t bytes = 0;
  std::byte* host =
      nullptr;  // where the bytes really are: a mapped memfd, so that another process can open it
  int fd = -1;
  bool imported = false;
  unsigned opened = 0;  // cuIpcOpenMemHandle less cuIpcCloseMemHandle
  std::uint64_t exporter = 0;
};

struct PinnedRange {
  std::size_t bytes = 0;
  unsigned flags = 0;
  bool registered = false;  // by cuMemHostRegister, not allocated
};

struct Device {
  int ordinal = 0;
  CUctx_st context;
  unsigned retained = 0;
  CUresult dead = CUDA_SUCCESS;  // the sticky error
  bool workers_started = false;
  std::map<std::uint64_t, Allocation> allocations;
  std::uint64_t next_address = 0;
  std::size_t used_bytes = 0;
  std::array<int, kEngines> busy{};
  CUstream_st legacy;
};

struct Fault {
  std::string where;
  unsigned countdown = 1;
  int result = 0;
};

struct Settings {
  std::int64_t devices = 1;
  std::int64_t init_result = 0;
  std::int64_t version = 13000;
  std::int64_t memory_mb = 1024;
  std::int64_t pinned_mb = 1 << 20;
  std::int64_t compute_slots = 4;
  std::int64_t h2d_us = 0;
  std::int64_t d2h_us = 0;
  std::int64_t kernel_us = 0;
  std::int64_t bytes_per_us = 0;  // of both copy engines; 0 = no time
  std::int64_t mig = 0;
  std::set<std::string> missing;
};

struct World {
  std::mutex mutex;
  std::condition_variable changed;
  Settings settings;
  bool initialised = false;
  std::uint64_t generation = 0;  // simulated_cuda_reset() makes a new one
  std::array<Device, kMaxDevices> devices;
  std::array<bool, kEngines> held{};
  std::vector<Fault> faults;
  std::uint64_t hang_epoch = 0;  // simulated_cuda_let_go() counts it up
  std::vector<SimulatedLine> log;
  std::map<std::string, std::int64_t, std::less<>> counters;
  std::map<std::uint64_t, PinnedRange> pinned;  // by address
  std::size_t pinned_bytes = 0;
  std::set<CUstream> streams;
  std::set<CUevent> events;
  std::map<CUgraph, std::shared_ptr<CUgraph_st>> graphs;
  std::map<CUgraphExec, std::shared_ptr<CUgraphExec_st>> execs;
  std::map<std::string, std::unique_ptr<CUfunc_st>, std::less<>> functions;
  std::set<CUmodule> modules;
  std::vector<std::shared_ptr<Capture>> captures;
  std::uint64_t next_number = 1;
  std::uint64_t next_stream = 1;
  int working = 0;  // operations inside Step::work
};

World& world();
using Lock = std::unique_lock<std::mutex>;

// ---- one call of the API -------------------------------------------------------------------------------------------------
enum class Needs { kNothing, kInit, kContext };

// Counts the call, plays an injected fault, looks for cuInit, the current context and its health. Takes the lock.
// `unsafe`: may not be called by a thread that captures (nor by any while a capture in global mode goes on).
struct Call {
  Call(const char* name, Needs needs, bool unsafe = false);
  Lock lock;
  World& world;
  Device* device = nullptr;  // of the current context
  CUresult result = CUDA_SUCCESS;
  bool failed() const { return result != CUDA_SUCCESS; }
};

Device* current_device();
void set_current_device(Device* device);
std::uint64_t this_thread();
bool in_host_function();

// ---- under the lock --------------------------------------------------------------------------------------------------------
void count(World& world, std::string_view counter, std::int64_t by = 1);
void write_log(World& world, const Device& device, const CUstream_st& stream, const Operation& operation,
               int phase);
void kill(World& world, Device& device, CUresult result);
bool sticky(CUresult result);
// Takes the fault that is due at `where`; false = none.
bool take_fault(World& world, std::string_view where, int* result);

// The stream of a handle (0 and CU_STREAM_LEGACY: the device's legacy stream), or nullptr.
CUstream stream_of(World& world, Device& device, CUstream handle);
// Puts a step on the stream, or into the graph that it captures.
CUresult submit(World& world, CUstream stream, Step step, std::shared_ptr<CUgraphExec_st> exec = nullptr);
// Waits until the condition holds or the device is dead.
CUresult wait(Lock& lock, World& world, Device& device, const std::function<bool()>& done);
bool idle(const CUstream_st& stream);
bool all_idle(const World& world, const Device& device);
void advance(World& world);  // what needs no engine at the heads of all streams
void start_workers(World& world, Device& device);

// Bytes of device memory inside one allocation, else nullptr.
std::byte* device_bytes(Device& device, std::uint64_t address, std::size_t bytes);
std::byte* device_bytes(World& world, std::uint64_t address, std::size_t bytes);
bool is_pinned(const World& world, const void* address, std::size_t bytes);
void free_allocation(Device& device, std::uint64_t base);

// Steps of the kinds that graphs and streams share.
Step copy_in(Device& device, std::uint64_t destination, const void* source, std::size_t bytes);
Step copy_out(Device& device, void* destination, std::uint64_t source, std::size_t bytes);
Step copy_device(Device& device, std::uint64_t destination, std::uint64_t source, std::size_t bytes);
Step fill(Device& device, std::uint64_t address, std::uint64_t value, unsigned element_bytes,
          std::size_t elements);
Step host_function(CUhostFn function, void* argument);
Step kernel(Device& device, const CUfunc_st& function, std::vector<std::uint64_t> words);

void add_kernels(World& world);
void read_environment(World& world);

}  // namespace simulated_cuda
