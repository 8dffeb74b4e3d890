// How tests look into the simulated CUDA driver and make it misbehave: exported by its libcuda.so.1 beside the functions of
// cuda.h, in plain C, so that Python reaches it with ctypes. See README.md.
// Thread: any.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  SIMULATED_H2D = 0,
  SIMULATED_D2H = 1,
  SIMULATED_COMPUTE = 2,
  SIMULATED_HOST = 3,
  SIMULATED_NO_ENGINE = 4
};
enum { SIMULATED_QUEUED = 0, SIMULATED_STARTED = 1, SIMULATED_ENDED = 2, SIMULATED_FAILED = 3 };
enum { SIMULATED_HANG = -1 };  // instead of a CUresult

// One line of the log of operations. The order of lines is the order in which things happened on the simulated devices.
typedef struct SimulatedLine {
  uint64_t operation;  // the same in all lines of one copy, kernel, host function or record of an event
  uint64_t stream;     // number, in the order of creation; 0 = legacy stream
  uint64_t bytes;
  uint64_t address;  // device side of a copy or fill; else 0
  uint64_t graph;    // number of the launched graph exec that it belongs to; 0 = none
  int32_t device;
  int32_t engine;  // SIMULATED_H2D ...
  int32_t phase;   // SIMULATED_QUEUED ...
  char
      name[36];  // "h2d", "d2h", "d2d", "memset", "event", "wait", "host", "graph", or the name of the kernel
} SimulatedLine;

// A kernel that runs. memory() gives the bytes behind a device address, or NULL where they are not inside one allocation: the kernel
// then fails with CUDA_ERROR_ILLEGAL_ADDRESS, whatever it returns.
typedef struct SimulatedKernel {
  const uint64_t* words;  // its parameters, each widened to 64 bits
  unsigned count;
  int device;
  void* (*memory)(const struct SimulatedKernel* kernel, uint64_t address, size_t bytes);
  void* state;
} SimulatedKernel;
typedef int (*SimulatedFunction)(const SimulatedKernel* kernel);  // returns a CUresult

// As in a new process: everything is freed, faults and holds are forgotten, settings are those of the environment again. The
// caller has no call of the driver under way.
void simulated_cuda_reset(void);

// Changes a setting (README.md names them) from now on. 0, or -1 for a name that there is not.
int simulated_cuda_set(const char* setting, int64_t value);

// A counter (README.md), "calls:cuMemAlloc" for the calls of one function, "dead:cuMemFree" for those after the device had died.
// -1 for a name that there is not.
int64_t simulated_cuda_count(const char* counter);

// The nth call from now on (1 = the next) of a function fails with `result`; "run:h2d", "run:d2h", "run:memset", "run:host",
// "run:kernel" or "run:NAME of a kernel": the nth such operation fails when the device comes to it. SIMULATED_HANG: it never
// ends, until simulated_cuda_let_go() or a reset. A result that is sticky kills the device. 0, or -1 for nonsense.
int simulated_cuda_fail(const char* where, unsigned nth, int result);
void simulated_cuda_let_go(void);

// Operations of this engine (of all devices) start but do not end, until it is called with 0.
int simulated_cuda_hold(int engine, int held);

// Copies the log's first `room` lines; returns how many lines there are. With clear, it starts anew.
size_t simulated_cuda_log(SimulatedLine* lines, size_t room);
void simulated_cuda_clear_log(void);

// The memory behind a device address, for reading what a copy left there; NULL outside of one allocation. Nothing is waited for.
void* simulated_cuda_memory(uint64_t address, size_t bytes);

// Adds a kernel, or replaces it. parameters: one letter each, p pointer or 64-bit integer, i 32-bit integer, f float; -1 when that
// is something else. cost_us: as long as it occupies a compute slot; -1: the setting kernel_us.
int simulated_cuda_add_function(const char* name, SimulatedFunction function, const char* parameters,
                                int cost_us);

// cuLaunchKernel without a module: puts the kernel on a CUstream (0: legacy stream) or into the graph that it captures. Parameters
// as in SimulatedKernel. Returns a CUresult.
int simulated_cuda_launch(uintptr_t stream, const char* kernel, const uint64_t* words, unsigned count);

#ifdef __cplusplus
}
#endif
