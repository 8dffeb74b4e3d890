// The kernels that there always are. More: simulated_cuda_add_function.
#include <cstring>
#include <utility>

#include "simulated_cuda/world.h"

namespace simulated_cuda {

namespace {

float as_float(std::uint64_t word) {
  float value = 0;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

int nothing(const SimulatedKernel* kernel) {
  (void)kernel;
  return CUDA_SUCCESS;
}

// (to, from, bytes)
int copy(const SimulatedKernel* kernel) {
  void* to = kernel->memory(kernel, kernel->words[0], kernel->words[2]);
  const void* from = kernel->memory(kernel, kernel->words[1], kernel->words[2]);
  if (to == nullptr || from == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  std::memmove(to, from, kernel->words[2]);
  return CUDA_SUCCESS;
}

// (to, from, FP32 elements, factor): to[i] = from[i] * factor
int scale(const SimulatedKernel* kernel) {
  const std::uint64_t elements = kernel->words[2];
  auto* to = static_cast<float*>(kernel->memory(kernel, kernel->words[0], elements * sizeof(float)));
  const auto* from =
      static_cast<const float*>(kernel->memory(kernel, kernel->words[1], elements * sizeof(float)));
  if (to == nullptr || from == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  const float factor = as_float(kernel->words[3]);
  for (std::uint64_t i = 0; i < elements; ++i) to[i] = from[i] * factor;
  return CUDA_SUCCESS;
}

// (to, a, b, FP32 elements): to[i] = a[i] + b[i]
int add(const SimulatedKernel* kernel) {
  const std::uint64_t elements = kernel->words[3];
  auto* to = static_cast<float*>(kernel->memory(kernel, kernel->words[0], elements * sizeof(float)));
  const auto* a =
      static_cast<const float*>(kernel->memory(kernel, kernel->words[1], elements * sizeof(float)));
  const auto* b =
      static_cast<const float*>(kernel->memory(kernel, kernel->words[2], elements * sizeof(float)));
  if (to == nullptr || a == nullptr || b == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  for (std::uint64_t i = 0; i < elements; ++i) to[i] = a[i] + b[i];
  return CUDA_SUCCESS;
}

// (to, from, rows, FP32 columns): to[row] = sum of the row
int row_sum(const SimulatedKernel* kernel) {
  const std::uint64_t rows = kernel->words[2];
  const std::uint64_t columns = kernel->words[3];
  auto* to = static_cast<float*>(kernel->memory(kernel, kernel->words[0], rows * sizeof(float)));
  const auto* from =
      static_cast<const float*>(kernel->memory(kernel, kernel->words[1], rows * columns * sizeof(float)));
  if (to == nullptr || from == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  for (std::uint64_t row = 0; row < rows; ++row) {
    float sum = 0;
    for (std::uint64_t i = 0; i < columns; ++i) sum += from[row * columns + i];
    to[row] = sum;
  }
  return CUDA_SUCCESS;
}

// (address, byte): writes one byte, wherever that is
int poke(const SimulatedKernel* kernel) {
  auto* to = static_cast<unsigned char*>(kernel->memory(kernel, kernel->words[0], 1));
  if (to == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  *to = static_cast<unsigned char>(kernel->words[1]);
  return CUDA_SUCCESS;
}

void put(World& world, const char* name, SimulatedFunction function, const char* parameters, int cost_us) {
  auto made = std::make_unique<CUfunc_st>();
  made->name = name;
  made->parameters = parameters;
  made->function = function;
  made->cost_us = cost_us;
  // A handle that somebody has stays good: it is changed in place.
  const auto found = world.functions.find(name);
  if (found != world.functions.end()) {
    *found->second = *made;
  } else {
    world.functions.emplace(name, std::move(made));
  }
}

}  // namespace

void add_kernels(World& world) {
  put(world, "nothing", nothing, "", -1);
  put(world, "copy", copy, "ppp", -1);
  put(world, "scale", scale, "pppf", -1);
  put(world, "add", add, "pppp", -1);
  put(world, "row_sum", row_sum, "pppp", -1);
  put(world, "poke", poke, "pi", -1);
}

}  // namespace simulated_cuda

using namespace simulated_cuda;  // NOLINT: the functions below are C

namespace {

// Reads the parameters through the pointers that a launch brings.
std::vector<std::uint64_t> words_of(const CUfunc_st& function, void** parameters) {
  std::vector<std::uint64_t> words;
  for (std::size_t i = 0; i < function.parameters.size(); ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, parameters[i], function.parameters[i] == 'p' ? 8 : 4);
    words.push_back(word);
  }
  return words;
}

}  // namespace

extern "C" {

int simulated_cuda_add_function(const char* name, SimulatedFunction function, const char* parameters,
                                int cost_us) {
  if (name == nullptr || function == nullptr || parameters == nullptr) return -1;
  for (const char* letter = parameters; *letter != 0; ++letter) {
    if (std::strchr("pif", *letter) == nullptr) return -1;
  }
  World& all = world();
  const Lock lock(all.mutex);
  put(all, name, function, parameters, cost_us);
  return 0;
}

int simulated_cuda_launch(uintptr_t stream, const char* name, const uint64_t* words, unsigned count) {
  Call call("cuLaunchKernel", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, reinterpret_cast<CUstream>(stream));
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const auto found = call.world.functions.find(std::string_view(name));
  if (found == call.world.functions.end()) return CUDA_ERROR_NOT_FOUND;
  if (found->second->parameters.size() != count) return CUDA_ERROR_INVALID_VALUE;
  return submit(call.world, on, kernel(*on->device, *found->second, {words, words + count}));
}

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
  Call call("cuModuleLoadData", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (module == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *module = *call.world.modules.insert(new CUmod_st).first;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule module) {
  Call call("cuModuleUnload", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (call.world.modules.erase(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
  delete module;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  Call call("cuModuleGetFunction", Needs::kContext);
  if (call.failed()) return call.result;
  if (!call.world.modules.contains(module)) return CUDA_ERROR_INVALID_HANDLE;
  const auto found = call.world.functions.find(std::string_view(name));
  if (found == call.world.functions.end()) return CUDA_ERROR_NOT_FOUND;
  *function = found->second.get();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned int, unsigned int, unsigned int, unsigned int,
                                unsigned int, unsigned int, unsigned int, CUstream stream, void** parameters,
                                void** extra) {
  Call call("cuLaunchKernel", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr || function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (extra != nullptr || (parameters == nullptr && !function->parameters.empty()))
    return CUDA_ERROR_INVALID_VALUE;
  return submit(call.world, on, kernel(*on->device, *function, words_of(*function, parameters)));
}

CUresult CUDAAPI cuGraphAddKernelNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies,
                                      size_t count, const CUDA_KERNEL_NODE_PARAMS* parameters) {
  (void)dependencies, (void)count;  // all nodes run in the order in which they were added
  Call call("cuGraphAddKernelNode", Needs::kContext);
  if (call.failed()) return call.result;
  if (!call.world.graphs.contains(graph) || parameters == nullptr || parameters->func == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUfunc_st& function = *parameters->func;
  graph->nodes.push_back({kernel(*call.device, function, words_of(function, parameters->kernelParams))});
  *node = &graph->nodes.back();
  return CUDA_SUCCESS;
}

}  // extern "C"
