// The simulated CUDA driver itself, through the driver table: what it does as the real one, and what it refuses. It is what the tests
// of the GPU lane stand on.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "backend/cuda_driver.h"
#include "simulated_cuda/simulated_cuda.h"

namespace fastserve {
namespace {

std::vector<SimulatedLine> log_lines() {
  std::vector<SimulatedLine> lines(simulated_cuda_log(nullptr, 0));
  lines.resize(std::min(lines.size(), simulated_cuda_log(lines.data(), lines.size())));
  return lines;
}

// Place in the log of the nth line (0 = the first) of this name and phase; -1 where there is none.
int place(const std::string& name, int phase, int nth = 0) {
  const std::vector<SimulatedLine> lines = log_lines();
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (name == lines[i].name && lines[i].phase == phase && nth-- == 0) return static_cast<int>(i);
  }
  return -1;
}

class SimulatedCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    simulated_cuda_reset();
    auto opened = open_driver("libcuda.so.1");
    ASSERT_TRUE(opened.is_ok()) << opened.status().message();
    cu = *opened;
    ASSERT_EQ(cu.primary_ctx_retain(&context, 0), CUDA_SUCCESS);
    ASSERT_EQ(cu.ctx_set_current(context), CUDA_SUCCESS);
  }
  void TearDown() override { simulated_cuda_reset(); }

  CUstream stream() {
    CUstream made = nullptr;
    EXPECT_EQ(cu.stream_create_with_priority(&made, CU_STREAM_NON_BLOCKING, 0), CUDA_SUCCESS);
    return made;
  }
  CUevent event() {
    CUevent made = nullptr;
    EXPECT_EQ(cu.event_create(&made, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    return made;
  }
  CUdeviceptr device(std::size_t bytes) {
    CUdeviceptr made = 0;
    EXPECT_EQ(cu.mem_alloc(&made, bytes), CUDA_SUCCESS);
    return made;
  }
  float* pinned(std::size_t floats) {
    void* made = nullptr;
    EXPECT_EQ(cu.mem_host_alloc(&made, floats * sizeof(float), CU_MEMHOSTALLOC_PORTABLE), CUDA_SUCCESS);
    std::memset(made, 0, floats * sizeof(float));
    return static_cast<float*>(made);
  }
  static std::uintptr_t handle(CUstream stream) { return reinterpret_cast<std::uintptr_t>(stream); }
  static std::uint64_t word(float value) {
    std::uint64_t made = 0;
    std::memcpy(&made, &value, sizeof(value));
    return made;
  }
  CUresult scale(CUstream on, CUdeviceptr to, CUdeviceptr from, std::uint64_t elements, float factor) {
    const std::uint64_t words[] = {to, from, elements, word(factor)};
    return static_cast<CUresult>(simulated_cuda_launch(handle(on), "scale", words, 4));
  }
  // Captures a scaling by 2 into an exec.
  CUgraphExec captured_scale(CUstream on, CUdeviceptr to, CUdeviceptr from, std::uint64_t elements) {
    EXPECT_EQ(cu.stream_begin_capture(on, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
    EXPECT_EQ(scale(on, to, from, elements, 2), CUDA_SUCCESS);
    CUgraph graph = nullptr;
    EXPECT_EQ(cu.stream_end_capture(on, &graph), CUDA_SUCCESS);
    CUgraphExec exec = nullptr;
    EXPECT_EQ(cu.graph_instantiate_with_flags(&exec, graph, 0), CUDA_SUCCESS);
    EXPECT_EQ(cu.graph_destroy(graph), CUDA_SUCCESS) << "an exec needs its graph no more";
    return exec;
  }

  DriverTable cu;
  CUcontext context = nullptr;
};

TEST_F(SimulatedCuda, BatchThroughAGraph) {
  const CUstream on = stream();
  const CUdeviceptr in = device(64);
  const CUdeviceptr out = device(64);
  const CUgraphExec exec = captured_scale(on, out, in, 16);
  EXPECT_EQ(place("scale", SIMULATED_QUEUED), -1) << "a capture runs nothing";
  float* host = pinned(32);
  for (int i = 0; i < 16; ++i) host[i] = static_cast<float>(i);
  const CUevent done = event();
  ASSERT_EQ(cu.memcpy_htod_async(in, host, 64, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.graph_launch(exec, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.memcpy_dtoh_async(host + 16, out, 64, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(done, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_synchronize(done), CUDA_SUCCESS);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(host[16 + i], 2.0F * static_cast<float>(i));
  EXPECT_EQ(cu.event_query(done), CUDA_SUCCESS);
  EXPECT_LT(place("h2d", SIMULATED_ENDED), place("scale", SIMULATED_STARTED));
  EXPECT_LT(place("scale", SIMULATED_ENDED), place("d2h", SIMULATED_STARTED));
  EXPECT_EQ(simulated_cuda_count("unpinned_copies"), 0);
  EXPECT_EQ(simulated_cuda_count("exec_overlaps"), 0);
  EXPECT_EQ(simulated_cuda_count("legacy_stream_calls"), 0);
}

TEST_F(SimulatedCuda, StreamsOverlapAndEnginesAreSingle) {
  const CUstream first = stream();
  const CUstream second = stream();
  const CUdeviceptr memory = device(64);
  const CUdeviceptr other = device(64);
  float* host = pinned(16);
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  ASSERT_EQ(scale(first, memory, memory, 16, 1), CUDA_SUCCESS);
  const CUevent copied = event();
  ASSERT_EQ(cu.memcpy_htod_async(other, host, 64, second), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(copied, second), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_synchronize(copied), CUDA_SUCCESS)
      << "the copy of one stream ends while the kernel of the other runs";
  EXPECT_EQ(cu.stream_query(first), CUDA_ERROR_NOT_READY);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(cu.stream_synchronize(first), CUDA_SUCCESS);
  EXPECT_LT(place("h2d", SIMULATED_ENDED), place("scale", SIMULATED_ENDED));

  simulated_cuda_clear_log();
  simulated_cuda_hold(SIMULATED_H2D, 1);
  ASSERT_EQ(cu.memcpy_htod_async(memory, host, 64, first), CUDA_SUCCESS);
  ASSERT_EQ(cu.memcpy_htod_async(other, host, 64, second), CUDA_SUCCESS);
  simulated_cuda_hold(SIMULATED_H2D, 0);
  ASSERT_EQ(cu.stream_synchronize(first), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_synchronize(second), CUDA_SUCCESS);
  EXPECT_LT(place("h2d", SIMULATED_ENDED, 0), place("h2d", SIMULATED_STARTED, 1))
      << "one copy engine for each direction";
}

TEST_F(SimulatedCuda, ComputeSlotsAreLimited) {
  simulated_cuda_set("compute_slots", 1);
  const CUstream first = stream();
  const CUstream second = stream();
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  ASSERT_EQ(simulated_cuda_launch(handle(first), "nothing", nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(simulated_cuda_launch(handle(second), "nothing", nullptr, 0), CUDA_SUCCESS);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(cu.ctx_synchronize(), CUDA_SUCCESS);
  EXPECT_LT(place("nothing", SIMULATED_ENDED, 0), place("nothing", SIMULATED_STARTED, 1));
}

TEST_F(SimulatedCuda, EventsOrderStreams) {
  const CUstream first = stream();
  const CUstream second = stream();
  const CUevent between = event();
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  ASSERT_EQ(simulated_cuda_launch(handle(first), "nothing", nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(between, first), CUDA_SUCCESS);
  EXPECT_EQ(cu.event_query(between), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cu.stream_wait_event(second, between, 0), CUDA_SUCCESS);
  const CUdeviceptr memory = device(4);
  ASSERT_EQ(cu.memset_d32_async(memory, 7, 1, second), CUDA_SUCCESS);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(cu.stream_synchronize(second), CUDA_SUCCESS);
  EXPECT_LT(place("nothing", SIMULATED_ENDED), place("memset", SIMULATED_STARTED));
  EXPECT_EQ(*static_cast<unsigned*>(simulated_cuda_memory(memory, 4)), 7U);
}

TEST_F(SimulatedCuda, HostFunctionsRunInOrderAndMayNotCallTheDriver) {
  struct Seen {
    std::atomic<int> calls{0};
    DriverTable* table = nullptr;
    CUresult inside = CUDA_SUCCESS;
  } seen;
  seen.table = &cu;
  const CUstream on = stream();
  ASSERT_EQ(cu.launch_host_func(
                on,
                [](void* argument) {
                  auto* all = static_cast<Seen*>(argument);
                  CUcontext current = nullptr;
                  all->inside = all->table->ctx_get_current(&current);
                  all->calls.fetch_add(1);
                },
                &seen),
            CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_synchronize(on), CUDA_SUCCESS);
  EXPECT_EQ(seen.calls.load(), 1);
  EXPECT_EQ(seen.inside, CUDA_ERROR_NOT_PERMITTED);
  EXPECT_EQ(simulated_cuda_count("calls_in_host_functions"), 1);
}

TEST_F(SimulatedCuda, OneExecRunsOnceAtATime) {
  const CUstream first = stream();
  const CUstream second = stream();
  const CUdeviceptr memory = device(64);
  const CUgraphExec exec = captured_scale(first, memory, memory, 16);
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  ASSERT_EQ(cu.graph_launch(exec, first), CUDA_SUCCESS);
  ASSERT_EQ(cu.graph_launch(exec, second), CUDA_SUCCESS);
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(cu.ctx_synchronize(), CUDA_SUCCESS);
  EXPECT_LT(place("scale", SIMULATED_ENDED, 0), place("scale", SIMULATED_STARTED, 1));
  EXPECT_EQ(simulated_cuda_count("exec_overlaps"), 1) << "and it is told on";
}

TEST_F(SimulatedCuda, GraphsMadeOfNodes) {
  CUgraph graph = nullptr;
  ASSERT_EQ(cu.graph_create(&graph, 0), CUDA_SUCCESS);
  const CUdeviceptr memory = device(16);
  CUDA_MEMSET_NODE_PARAMS set{};
  set.dst = memory;
  set.value = 3;
  set.elementSize = 1;
  set.width = 16;
  set.height = 1;
  CUgraphNode filled = nullptr;
  ASSERT_EQ(cu.graph_add_memset_node(&filled, graph, nullptr, 0, &set, context), CUDA_SUCCESS);
  CUmodule module = nullptr;
  CUfunction poke = nullptr;
  ASSERT_EQ(cu.module_load_data(&module, "any image"), CUDA_SUCCESS);
  ASSERT_EQ(cu.module_get_function(&poke, module, "poke"), CUDA_SUCCESS);
  CUdeviceptr address = memory + 5;
  unsigned value = 9;
  void* parameters[] = {&address, &value};
  CUDA_KERNEL_NODE_PARAMS kernel{};
  kernel.func = poke;
  kernel.kernelParams = parameters;
  CUgraphNode poked = nullptr;
  ASSERT_EQ(cu.graph_add_kernel_node(&poked, graph, &filled, 1, &kernel), CUDA_SUCCESS);
  address = 0;  // its parameters were copied
  std::size_t nodes = 0;
  ASSERT_EQ(cu.graph_get_nodes(graph, nullptr, &nodes), CUDA_SUCCESS);
  EXPECT_EQ(nodes, 2U);
  CUgraphNodeType type{};
  ASSERT_EQ(cu.graph_node_get_type(poked, &type), CUDA_SUCCESS);
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_KERNEL);
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cu.graph_instantiate_with_flags(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY),
            CUDA_SUCCESS);
  const CUstream on = stream();
  ASSERT_EQ(cu.graph_upload(exec, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.graph_launch(exec, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_synchronize(on), CUDA_SUCCESS);
  const auto* bytes = static_cast<unsigned char*>(simulated_cuda_memory(memory, 16));
  EXPECT_EQ(bytes[4], 3);
  EXPECT_EQ(bytes[5], 9);
}

TEST_F(SimulatedCuda, CaptureRefusesWhatTheDriverRefuses) {
  const CUstream on = stream();
  ASSERT_EQ(cu.stream_begin_capture(on, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
  CUdeviceptr memory = 0;
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CUgraph graph = nullptr;
  EXPECT_EQ(cu.stream_end_capture(on, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_SUCCESS) << "the context stays usable";

  ASSERT_EQ(cu.stream_begin_capture(on, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
  EXPECT_EQ(cu.stream_synchronize(on), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(cu.stream_end_capture(on, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_F(SimulatedCuda, OnlyGlobalCapturesAreHurtByOtherThreads) {
  const CUstream on = stream();
  const CUevent done = event();
  for (const auto mode : {CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_GLOBAL}) {
    ASSERT_EQ(cu.stream_begin_capture(on, mode), CUDA_SUCCESS);
    CUresult other = CUDA_SUCCESS;
    std::thread([&] {
      cu.ctx_set_current(context);
      other = cu.event_query(done);
    }).join();
    CUgraph graph = nullptr;
    const CUresult ended = cu.stream_end_capture(on, &graph);
    const bool local = mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    EXPECT_EQ(other, local ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT_EQ(ended, local ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  }
}

TEST_F(SimulatedCuda, CaptureForksThroughEvents) {
  const CUstream on = stream();
  const CUstream aside = stream();
  const CUevent fork = event();
  const CUevent join = event();
  const CUdeviceptr memory = device(64);
  ASSERT_EQ(cu.stream_begin_capture(on, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(fork, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_wait_event(aside, fork, 0), CUDA_SUCCESS);
  ASSERT_EQ(scale(aside, memory, memory, 16, 2), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  EXPECT_EQ(cu.stream_end_capture(on, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);

  ASSERT_EQ(cu.stream_begin_capture(on, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(fork, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_wait_event(aside, fork, 0), CUDA_SUCCESS);
  ASSERT_EQ(scale(aside, memory, memory, 16, 2), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(join, aside), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_wait_event(on, join, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_end_capture(on, &graph), CUDA_SUCCESS);
  std::size_t nodes = 0;
  ASSERT_EQ(cu.graph_get_nodes(graph, nullptr, &nodes), CUDA_SUCCESS);
  EXPECT_EQ(nodes, 1U);
}

TEST_F(SimulatedCuda, CountsUnpinnedCopiesAndMakesThemWait) {
  const CUstream on = stream();
  const CUdeviceptr memory = device(64);
  std::vector<float> pageable(16, 1);
  ASSERT_EQ(cu.memcpy_htod_async(memory, pageable.data(), 64, on), CUDA_SUCCESS);
  EXPECT_EQ(cu.stream_query(on), CUDA_SUCCESS) << "it had ended when the call came back";
  EXPECT_EQ(simulated_cuda_count("unpinned_copies"), 1);
  EXPECT_EQ(simulated_cuda_count("unpinned_bytes"), 64);
  ASSERT_EQ(cu.mem_host_register(pageable.data(), 64, CU_MEMHOSTREGISTER_PORTABLE), CUDA_SUCCESS);
  EXPECT_EQ(cu.mem_host_register(pageable.data() + 4, 16, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  ASSERT_EQ(cu.memcpy_htod_async(memory, pageable.data(), 64, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_synchronize(on), CUDA_SUCCESS);
  EXPECT_EQ(simulated_cuda_count("unpinned_copies"), 1);
  ASSERT_EQ(cu.mem_host_unregister(pageable.data()), CUDA_SUCCESS);
  EXPECT_EQ(cu.mem_host_unregister(pageable.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

TEST_F(SimulatedCuda, UnregisteringUnderACopyIsFatal) {
  const CUstream on = stream();
  const CUdeviceptr memory = device(64);
  std::vector<float> host(16, 1);
  ASSERT_EQ(cu.mem_host_register(host.data(), 64, 0), CUDA_SUCCESS);
  simulated_cuda_hold(SIMULATED_H2D, 1);
  ASSERT_EQ(cu.memcpy_htod_async(memory, host.data(), 64, on), CUDA_SUCCESS);
  ASSERT_EQ(cu.mem_host_unregister(host.data()), CUDA_SUCCESS);
  simulated_cuda_hold(SIMULATED_H2D, 0);
  EXPECT_EQ(cu.stream_synchronize(on), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(simulated_cuda_count("unpinned_during_copy"), 1);
}

TEST_F(SimulatedCuda, AccessOutsideOfAnAllocationKillsTheDevice) {
  const CUstream on = stream();
  const CUdeviceptr memory = device(64);
  const CUevent done = event();
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  ASSERT_EQ(scale(on, memory, memory, 17, 1), CUDA_SUCCESS) << "one element too many";
  ASSERT_EQ(cu.event_record(done, on), CUDA_SUCCESS) << "nobody knows yet";
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  EXPECT_EQ(cu.event_synchronize(done), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.event_query(done), CUDA_ERROR_ILLEGAL_ADDRESS);
  CUdeviceptr more = 0;
  EXPECT_EQ(cu.mem_alloc(&more, 64), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.mem_free(memory), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(simulated_cuda_count("dead:cuMemFree"), 1);
  EXPECT_EQ(simulated_cuda_count("out_of_bounds"), 2) << "reading and writing";
}

TEST_F(SimulatedCuda, OneDeviceDiesAlone) {
  simulated_cuda_set("devices", 2);
  CUcontext second = nullptr;
  ASSERT_EQ(cu.primary_ctx_retain(&second, 1), CUDA_SUCCESS);
  simulated_cuda_fail("cuMemAlloc", 1, CUDA_ERROR_LAUNCH_FAILED);
  CUdeviceptr memory = 0;
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(cu.ctx_synchronize(), CUDA_ERROR_LAUNCH_FAILED);
  ASSERT_EQ(cu.ctx_set_current(second), CUDA_SUCCESS);
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_SUCCESS);
}

TEST_F(SimulatedCuda, InjectedErrorsComeOnceAndInTheirTurn) {
  simulated_cuda_fail("cuMemAlloc", 2, CUDA_ERROR_OUT_OF_MEMORY);
  CUdeviceptr memory = 0;
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_SUCCESS);
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_SUCCESS);
  EXPECT_EQ(simulated_cuda_fail("cuMemAlloc", 0, CUDA_ERROR_OUT_OF_MEMORY), -1);
}

TEST_F(SimulatedCuda, FaultsWhileTheDeviceWorks) {
  const CUstream on = stream();
  simulated_cuda_fail("run:kernel", 2, CUDA_ERROR_LAUNCH_FAILED);
  ASSERT_EQ(simulated_cuda_launch(handle(on), "nothing", nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_synchronize(on), CUDA_SUCCESS);
  ASSERT_EQ(simulated_cuda_launch(handle(on), "nothing", nullptr, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu.stream_synchronize(on), CUDA_ERROR_LAUNCH_FAILED);
}

TEST_F(SimulatedCuda, HangingKernelNeverEnds) {
  const CUstream on = stream();
  const CUstream other = stream();
  const CUevent done = event();
  simulated_cuda_fail("run:nothing", 1, SIMULATED_HANG);
  ASSERT_EQ(simulated_cuda_launch(handle(on), "nothing", nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu.event_record(done, on), CUDA_SUCCESS);
  ASSERT_EQ(simulated_cuda_launch(handle(other), "nothing", nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu.stream_synchronize(other), CUDA_SUCCESS);
  EXPECT_EQ(cu.event_query(done), CUDA_ERROR_NOT_READY);
  simulated_cuda_let_go();
  EXPECT_EQ(cu.event_synchronize(done), CUDA_SUCCESS);
}

TEST_F(SimulatedCuda, HangingCallComesBackWhenLetGo) {
  simulated_cuda_fail("cuMemAlloc", 1, SIMULATED_HANG);
  std::atomic<bool> back{false};
  std::thread caller([&] {
    cu.ctx_set_current(context);
    CUdeviceptr memory = 0;
    EXPECT_EQ(cu.mem_alloc(&memory, 64), CUDA_SUCCESS);
    back.store(true);
  });
  while (simulated_cuda_count("calls:cuMemAlloc") == 0) std::this_thread::yield();
  EXPECT_FALSE(back.load());
  simulated_cuda_let_go();
  caller.join();
  EXPECT_TRUE(back.load());
}

TEST_F(SimulatedCuda, MemoryIsLimited) {
  simulated_cuda_set("memory_mb", 1);
  CUdeviceptr memory = 0;
  EXPECT_EQ(cu.mem_alloc(&memory, (1U << 20U) + 1), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cu.mem_alloc(&memory, 1U << 20U), CUDA_SUCCESS);
  std::size_t free_bytes = 1;
  std::size_t total = 0;
  ASSERT_EQ(cu.mem_get_info(&free_bytes, &total), CUDA_SUCCESS);
  EXPECT_EQ(free_bytes, 0U);
  EXPECT_EQ(total, 1U << 20U);
  CUdeviceptr more = 0;
  EXPECT_EQ(cu.mem_alloc(&more, 1), CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(cu.mem_free(memory), CUDA_SUCCESS);
  EXPECT_EQ(cu.mem_alloc(&more, 1), CUDA_SUCCESS);
  EXPECT_EQ(simulated_cuda_count("device_bytes"), 1);
  simulated_cuda_set("pinned_mb", 1);
  void* host = nullptr;
  EXPECT_EQ(cu.mem_host_alloc(&host, (1U << 20U) + 1, 0), CUDA_ERROR_OUT_OF_MEMORY);
}

TEST_F(SimulatedCuda, FreshMemoryIsNotZero) {
  const CUdeviceptr memory = device(4);
  EXPECT_NE(*static_cast<unsigned*>(simulated_cuda_memory(memory, 4)), 0U);
  EXPECT_EQ(simulated_cuda_memory(memory + 1, 4), nullptr);
}

TEST_F(SimulatedCuda, PointersAreKnown) {
  const CUdeviceptr memory = device(100);
  unsigned type = 0;
  ASSERT_EQ(cu.pointer_get_attribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory + 99), CUDA_SUCCESS);
  EXPECT_EQ(type, static_cast<unsigned>(CU_MEMORYTYPE_DEVICE));
  std::size_t bytes = 0;
  ASSERT_EQ(cu.pointer_get_attribute(&bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, memory + 50), CUDA_SUCCESS);
  EXPECT_EQ(bytes, 100U);
  EXPECT_EQ(cu.pointer_get_attribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory + 100),
            CUDA_ERROR_INVALID_VALUE);
}

TEST_F(SimulatedCuda, IpcHandleIsRefusedInItsOwnProcess) {
  const CUdeviceptr memory = device(100);
  CUipcMemHandle handle{};
  ASSERT_EQ(cu.ipc_get_mem_handle(&handle, memory), CUDA_SUCCESS);
  CUdeviceptr opened = 0;
  EXPECT_EQ(cu.ipc_open_mem_handle(&opened, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS),
            CUDA_ERROR_INVALID_CONTEXT);
  std::memset(handle.reserved, 1, sizeof(handle.reserved));
  EXPECT_EQ(cu.ipc_open_mem_handle(&opened, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS),
            CUDA_ERROR_INVALID_VALUE);
}

TEST_F(SimulatedCuda, KernelsTakeTheirTimeSideBySide) {
  simulated_cuda_set("kernel_us", 20'000);
  const CUstream first = stream();
  const CUstream second = stream();
  const auto started = std::chrono::steady_clock::now();
  simulated_cuda_hold(SIMULATED_COMPUTE, 1);
  ASSERT_EQ(simulated_cuda_launch(handle(first), "nothing", nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(simulated_cuda_launch(handle(second), "nothing", nullptr, 0), CUDA_SUCCESS);
  while (place("nothing", SIMULATED_STARTED, 1) < 0) std::this_thread::yield();
  simulated_cuda_hold(SIMULATED_COMPUTE, 0);
  ASSERT_EQ(cu.ctx_synchronize(), CUDA_SUCCESS);
  EXPECT_GE(std::chrono::steady_clock::now() - started, std::chrono::milliseconds(20));
  EXPECT_LT(place("nothing", SIMULATED_STARTED, 1), place("nothing", SIMULATED_ENDED, 0));
}

TEST_F(SimulatedCuda, NeedsAContextOnEachThread) {
  CUresult result = CUDA_SUCCESS;
  std::thread([&] {
    CUdeviceptr memory = 0;
    result = cu.mem_alloc(&memory, 64);
  }).join();
  EXPECT_EQ(result, CUDA_ERROR_INVALID_CONTEXT);
}

}  // namespace
}  // namespace fastserve
