#include "gpu/calls.h"

#include <dlfcn.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace fastserve::gpu_rows {

void must(const Status& status) {
  if (!status.is_ok()) throw std::runtime_error(status.message());
}

void must(CUresult result, const char* what) {
  if (result != CUDA_SUCCESS) throw std::runtime_error(to_status(result, what).message());
}

const DriverTable& cuda() {
  const auto& opened = cuda_driver();
  if (!opened.is_ok()) throw std::runtime_error(opened.status().message());
  return **opened;
}

bool on_simulated_driver() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  const bool found = library != nullptr && ::dlsym(library, "simulated_cuda_reset") != nullptr;
  if (library != nullptr) ::dlclose(library);
  return found;
}

CUdevice first_device() {
  CUdevice device = 0;
  must(cuda().device_get(&device, 0), "cuDeviceGet");
  return device;
}

Context::Context() {
  CUcontext context = nullptr;
  must(cuda().primary_ctx_retain(&context, first_device()), "cuDevicePrimaryCtxRetain");
  must(cuda().ctx_set_current(context), "cuCtxSetCurrent");
}
Context::~Context() {
  (void)cuda().ctx_set_current(nullptr);
  (void)cuda().primary_ctx_release(first_device());
}

HostBytes::HostBytes(std::size_t bytes) : size_(bytes) {
  void* memory = nullptr;
  must(cuda().mem_host_alloc(&memory, bytes, CU_MEMHOSTALLOC_PORTABLE), "cuMemHostAlloc");
  data_ = static_cast<std::byte*>(memory);
}
HostBytes::~HostBytes() { (void)cuda().mem_free_host(data_); }

DeviceBytes::DeviceBytes(std::size_t bytes) { must(cuda().mem_alloc(&address_, bytes), "cuMemAlloc"); }
DeviceBytes::~DeviceBytes() { (void)cuda().mem_free(address_); }

Stream::Stream() {
  must(cuda().stream_create_with_priority(&stream_, CU_STREAM_NON_BLOCKING, 0), "cuStreamCreateWithPriority");
}
Stream::~Stream() { (void)cuda().stream_destroy(stream_); }

Event::Event(unsigned flags) { must(cuda().event_create(&event_, flags), "cuEventCreate"); }
Event::~Event() { (void)cuda().event_destroy(event_); }
bool Event::came() const {
  const CUresult result = cuda().event_query(event_);
  if (result == CUDA_ERROR_NOT_READY) return false;
  must(result, "cuEventQuery");
  return true;
}

Kernels::Kernels(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (image.empty() && !on_simulated_driver()) throw std::runtime_error("no kernels in '" + path + "'");
  must(cuda().module_load_data(&module_, image.c_str()), "cuModuleLoadData");
}
Kernels::~Kernels() { (void)cuda().module_unload(module_); }
CUfunction Kernels::find(const char* name) const {
  CUfunction function = nullptr;
  return cuda().module_get_function(&function, module_, name) == CUDA_SUCCESS ? function : nullptr;
}
CUfunction Kernels::get(const char* name) const {
  const CUfunction function = find(name);
  if (function == nullptr) throw std::runtime_error(std::string("no kernel ") + name);
  return function;
}

Chain::Chain() { must(cuda().graph_create(&graph_, 0), "cuGraphCreate"); }
Chain::~Chain() {
  if (exec_ != nullptr) (void)cuda().graph_exec_destroy(exec_);
  (void)cuda().graph_destroy(graph_);
}
void Chain::add(CUfunction function, unsigned blocks, unsigned threads, std::span<void* const> parameters) {
  std::vector<void*> pointers(parameters.begin(), parameters.end());
  CUDA_KERNEL_NODE_PARAMS node{};
  node.func = function;
  node.gridDimX = blocks;
  node.gridDimY = node.gridDimZ = 1;
  node.blockDimX = threads;
  node.blockDimY = node.blockDimZ = 1;
  node.kernelParams = pointers.empty() ? nullptr : pointers.data();  // copied by the call
  const CUgraphNode before = last_;
  must(cuda().graph_add_kernel_node(&last_, graph_, before == nullptr ? nullptr : &before,
                                    before == nullptr ? 0 : 1, &node),
       "cuGraphAddKernelNode");
}
void Chain::instantiate() {
  must(cuda().graph_instantiate_with_flags(&exec_, graph_, 0), "cuGraphInstantiateWithFlags");
}

}  // namespace fastserve::gpu_rows
