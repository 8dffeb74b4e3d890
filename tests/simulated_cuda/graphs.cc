// Stream capture, graphs, launches. A graph's steps run one after the other in the order in which they were captured or added, which
// is an order that their dependencies allow; one launch of an exec at a time.
#include <algorithm>
#include <cstring>
#include <utility>

#include "simulated_cuda/world.h"

using namespace simulated_cuda;  // NOLINT: the functions below are C

namespace {

void forget_capture(World& world, const std::shared_ptr<Capture>& capture) {
  std::erase(world.captures, capture);
  for (CUstream stream : world.streams) {
    if (stream->capture == capture) stream->capture.reset();
  }
}

Step mark(Step::Kind kind, const char* name) {
  Step step;
  step.kind = kind;
  step.name = name;
  return step;
}

CUresult add(Call& call, CUgraphNode* node, CUgraph graph, Step step) {
  if (node == nullptr || !call.world.graphs.contains(graph)) return CUDA_ERROR_INVALID_VALUE;
  graph->nodes.push_back({std::move(step)});
  *node = &graph->nodes.back();
  return CUDA_SUCCESS;
}

bool is_row(const CUDA_MEMCPY3D& copy) {
  return copy.Height <= 1 && copy.Depth <= 1 && copy.srcXInBytes == 0 && copy.dstXInBytes == 0 &&
         copy.WidthInBytes > 0;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  Call call("cuStreamBeginCapture", Needs::kContext);
  if (call.failed()) return call.result;
  // The legacy stream cannot be captured.
  if (stream == nullptr || stream == CU_STREAM_LEGACY) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (!call.world.streams.contains(stream)) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<Capture>();
  capture->number = call.world.next_number++;
  capture->graph = std::make_shared<CUgraph_st>();
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = this_thread();
  stream->capture = capture;
  call.world.captures.push_back(std::move(capture));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  Call call("cuStreamEndCapture", Needs::kContext);
  if (graph != nullptr) *graph = nullptr;
  if (call.failed()) return call.result;
  if (graph == nullptr || !call.world.streams.contains(stream)) return CUDA_ERROR_INVALID_VALUE;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) {
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  }
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != this_thread()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  forget_capture(call.world, capture);
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!capture->unjoined.empty()) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  call.world.graphs[capture->graph.get()] = capture->graph;
  *graph = capture->graph.get();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphCreate(CUgraph* graph, unsigned int flags) {
  Call call("cuGraphCreate", Needs::kContext);
  if (call.failed()) return call.result;
  if (graph == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  auto made = std::make_shared<CUgraph_st>();
  *graph = made.get();
  call.world.graphs[made.get()] = std::move(made);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph graph) {
  Call call("cuGraphDestroy", Needs::kContext);
  if (call.failed()) return call.result;
  return call.world.graphs.erase(graph) == 0 ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  Call call("cuGraphGetNodes", Needs::kContext);
  if (call.failed()) return call.result;
  if (count == nullptr || !call.world.graphs.contains(graph)) return CUDA_ERROR_INVALID_VALUE;
  if (nodes == nullptr) {
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
  }
  for (std::size_t i = 0; i < *count; ++i) nodes[i] = i < graph->nodes.size() ? &graph->nodes[i] : nullptr;
  *count = std::min(*count, graph->nodes.size());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
  Call call("cuGraphNodeGetType", Needs::kContext);
  if (call.failed()) return call.result;
  if (node == nullptr || type == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *type = node->step.type;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphAddMemcpyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode*, size_t,
                                      const CUDA_MEMCPY3D* copy, CUcontext context) {
  Call call("cuGraphAddMemcpyNode", Needs::kContext);
  if (call.failed()) return call.result;
  if (copy == nullptr || context == nullptr || !is_row(*copy)) return CUDA_ERROR_INVALID_VALUE;
  Device& device = *context->device;
  if (copy->srcMemoryType == CU_MEMORYTYPE_HOST && copy->dstMemoryType == CU_MEMORYTYPE_DEVICE) {
    return add(call, node, graph, copy_in(device, copy->dstDevice, copy->srcHost, copy->WidthInBytes));
  }
  if (copy->srcMemoryType == CU_MEMORYTYPE_DEVICE && copy->dstMemoryType == CU_MEMORYTYPE_HOST) {
    return add(call, node, graph, copy_out(device, copy->dstHost, copy->srcDevice, copy->WidthInBytes));
  }
  return add(call, node, graph, copy_device(device, copy->dstDevice, copy->srcDevice, copy->WidthInBytes));
}

CUresult CUDAAPI cuGraphAddMemsetNode(CUgraphNode* node, CUgraph graph, const CUgraphNode*, size_t,
                                      const CUDA_MEMSET_NODE_PARAMS* set, CUcontext context) {
  Call call("cuGraphAddMemsetNode", Needs::kContext);
  if (call.failed()) return call.result;
  if (set == nullptr || context == nullptr || set->height > 1) return CUDA_ERROR_INVALID_VALUE;
  return add(call, node, graph, fill(*context->device, set->dst, set->value, set->elementSize, set->width));
}

CUresult CUDAAPI cuGraphAddHostNode(CUgraphNode* node, CUgraph graph, const CUgraphNode*, size_t,
                                    const CUDA_HOST_NODE_PARAMS* host) {
  Call call("cuGraphAddHostNode", Needs::kContext);
  if (call.failed()) return call.result;
  if (host == nullptr || host->fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return add(call, node, graph, host_function(host->fn, host->userData));
}

CUresult CUDAAPI cuGraphAddEmptyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode*, size_t) {
  Call call("cuGraphAddEmptyNode", Needs::kContext);
  if (call.failed()) return call.result;
  Step step;
  step.name = "empty";
  step.engine = SIMULATED_COMPUTE;
  return add(call, node, graph, std::move(step));
}

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
  Call call("cuGraphInstantiateWithFlags", Needs::kContext);
  if (call.failed()) return call.result;
  constexpr unsigned long long kKnown =
      CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
  if (exec == nullptr || !call.world.graphs.contains(graph) || (flags & ~kKnown) != 0)
    return CUDA_ERROR_INVALID_VALUE;
  auto made = std::make_shared<CUgraphExec_st>();
  made->number = call.world.next_number++;
  made->device = call.device;
  for (const CUgraphNode_st& node : graph->nodes) made->steps.push_back(node.step);
  *exec = made.get();
  call.world.execs[made.get()] = std::move(made);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphUpload(CUgraphExec exec, CUstream stream) {
  Call call("cuGraphUpload", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  return on == nullptr || !call.world.execs.contains(exec) ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  Call call("cuGraphLaunch", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  const auto found = call.world.execs.find(exec);
  if (on == nullptr || found == call.world.execs.end()) return CUDA_ERROR_INVALID_HANDLE;
  if (on->capture) return CUDA_ERROR_NOT_SUPPORTED;  // graphs within graphs: not simulated
  const std::shared_ptr<CUgraphExec_st>& held = found->second;
  // The driver makes the second one wait; a scheduler that counts on lanes running side by side has a fault.
  if (held->outstanding > 0) count(call.world, "exec_overlaps");
  ++held->outstanding;
  CUresult result = submit(call.world, on, mark(Step::Kind::kGraphBegin, "graph"), held);
  for (std::size_t i = 0; i < held->steps.size() && result == CUDA_SUCCESS; ++i) {
    result = submit(call.world, on, held->steps[i], held);
  }
  return result == CUDA_SUCCESS ? submit(call.world, on, mark(Step::Kind::kGraphEnd, "graph"), held) : result;
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec) {
  Call call("cuGraphExecDestroy", Needs::kContext);
  if (call.failed()) return call.result;
  const auto found = call.world.execs.find(exec);
  if (found == call.world.execs.end()) return CUDA_ERROR_INVALID_HANDLE;
  if (found->second->outstanding > 0) count(call.world, "exec_destroyed_running");
  call.world.execs.erase(found);
  return CUDA_SUCCESS;
}

}  // extern "C"
