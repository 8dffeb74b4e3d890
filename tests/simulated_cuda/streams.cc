// Streams, events, copies, fills, host functions.
#include <algorithm>
#include <utility>

#include "simulated_cuda/world.h"

using namespace simulated_cuda;  // NOLINT: the functions below are C

namespace {

// A copy between device and host. From memory that is not page-locked the driver copies before it returns: so does this one.
CUresult copy_with_host(Call& call, CUstream on, Step step, const void* host, std::size_t bytes) {
  const bool capturing = on->capture != nullptr;
  const bool pinned = is_pinned(call.world, host, bytes);
  if (!pinned) {
    count(call.world, "unpinned_copies");
    count(call.world, "unpinned_bytes", static_cast<std::int64_t>(bytes));
  }
  const CUresult submitted = submit(call.world, on, std::move(step));
  if (submitted != CUDA_SUCCESS || pinned || capturing) return submitted;
  return wait(call.lock, call.world, *on->device, [on] { return idle(*on); });
}

Step event_step(Step::Kind kind, std::shared_ptr<Event> event, std::uint64_t target) {
  Step step;
  step.kind = kind;
  step.name = kind == Step::Kind::kRecord ? "event" : "wait";
  step.event = std::move(event);
  step.target = target;
  step.type = kind == Step::Kind::kRecord ? CU_GRAPH_NODE_TYPE_EVENT_RECORD : CU_GRAPH_NODE_TYPE_WAIT_EVENT;
  return step;
}

CUresult create_stream(Call& call, CUstream* stream, unsigned flags, int priority) {
  if (stream == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  auto* made = new CUstream_st;
  made->number = call.world.next_stream++;
  made->device = call.device;
  made->flags = flags;
  made->priority = std::clamp(priority, -5, 0);
  call.world.streams.insert(made);
  *stream = made;
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult CUDAAPI cuStreamCreateWithPriority(CUstream* stream, unsigned int flags, int priority) {
  Call call("cuStreamCreateWithPriority", Needs::kContext, true);
  return call.failed() ? call.result : create_stream(call, stream, flags, priority);
}

CUresult CUDAAPI cuStreamDestroy(CUstream stream) {
  Call call("cuStreamDestroy", Needs::kContext);
  if (call.failed()) return call.result;
  if (!call.world.streams.contains(stream)) return CUDA_ERROR_INVALID_HANDLE;
  // The driver lets the work finish and takes the stream away then; nobody can tell the difference from waiting.
  const CUresult waited = wait(call.lock, call.world, *stream->device, [stream] { return idle(*stream); });
  if (waited != CUDA_SUCCESS) return waited;
  call.world.streams.erase(stream);
  delete stream;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
  Call call("cuStreamSynchronize", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (on->capture) {
    on->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return wait(call.lock, call.world, *on->device, [on] { return idle(*on); });
}

CUresult CUDAAPI cuStreamQuery(CUstream stream) {
  Call call("cuStreamQuery", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (on->capture) {
    on->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return idle(*on) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int) {
  Call call("cuStreamWaitEvent", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr || !call.world.events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  const std::shared_ptr<Event>& waited = event->event;
  if (waited->capture != 0) {
    // The stream joins the capture in which the event was recorded; in the graph their order stays that of the calls.
    for (const auto& capture : call.world.captures) {
      if (capture->number != waited->capture) continue;
      if (on->capture && on->capture != capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
      if (!on->capture) capture->unjoined.insert(on);
      capture->unjoined.erase(waited->captured_on);
      on->capture = capture;
      return CUDA_SUCCESS;
    }
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  if (on->capture) {
    on->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  return submit(call.world, on, event_step(Step::Kind::kWait, waited, waited->recorded));
}

CUresult CUDAAPI cuStreamWriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int) {
  Call call("cuStreamWriteValue32", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  void* host = reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
  Step step = fill(*call.device, address, value, 4, 1);
  step.name = "write32";
  if (is_pinned(call.world, host, 4)) {
    step.work = [host, value] {
      __atomic_store_n(static_cast<cuuint32_t*>(host), value, __ATOMIC_RELEASE);
      return CUDA_SUCCESS;
    };
  }
  return submit(call.world, on, std::move(step));
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  Call call("cuStreamIsCapturing", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *status = !on->capture           ? CU_STREAM_CAPTURE_STATUS_NONE
            : on->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                   : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned int flags) {
  Call call("cuEventCreate", Needs::kContext);
  if (call.failed()) return call.result;
  auto* made = new CUevent_st{std::make_shared<Event>()};
  made->event->device = call.device;
  made->event->flags = flags;
  call.world.events.insert(made);
  *event = made;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy(CUevent event) {
  Call call("cuEventDestroy", Needs::kContext);
  if (call.failed()) return call.result;
  if (call.world.events.erase(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
  delete event;  // a record that is under way keeps what it needs
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
  Call call("cuEventRecord", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr || !call.world.events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (on->device != event->event->device) return CUDA_ERROR_INVALID_HANDLE;
  if (on->capture) {
    event->event->capture = on->capture->number;
    event->event->captured_on = on;
    return on->capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
  }
  event->event->capture = 0;
  const std::uint64_t target = ++event->event->recorded;
  return submit(call.world, on, event_step(Step::Kind::kRecord, event->event, target));
}

CUresult CUDAAPI cuEventQuery(CUevent event) {
  Call call("cuEventQuery", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (!call.world.events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  const Event& asked = *event->event;
  if (asked.capture != 0) return CUDA_ERROR_CAPTURED_EVENT;
  return asked.completed >= asked.recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
  Call call("cuEventSynchronize", Needs::kContext, true);
  if (call.failed()) return call.result;
  if (!call.world.events.contains(event)) return CUDA_ERROR_INVALID_HANDLE;
  const std::shared_ptr<Event> asked = event->event;
  if (asked->capture != 0) return CUDA_ERROR_CAPTURED_EVENT;
  const std::uint64_t target = asked->recorded;
  return wait(call.lock, call.world, *asked->device, [&] { return asked->completed >= target; });
}

CUresult CUDAAPI cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  Call call("cuEventElapsedTime", Needs::kContext);
  if (call.failed()) return call.result;
  if (!call.world.events.contains(start) || !call.world.events.contains(end))
    return CUDA_ERROR_INVALID_HANDLE;
  const Event& first = *start->event;
  const Event& last = *end->event;
  if (first.recorded == 0 || last.recorded == 0 ||
      ((first.flags | last.flags) & CU_EVENT_DISABLE_TIMING) != 0) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (first.completed < first.recorded || last.completed < last.recorded) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(static_cast<double>(last.reached_ns - first.reached_ns) / 1e6);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr destination, const void* source, size_t bytes,
                                   CUstream stream) {
  Call call("cuMemcpyHtoDAsync", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes == 0) return CUDA_SUCCESS;
  return copy_with_host(call, on, copy_in(*on->device, destination, source, bytes), source, bytes);
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void* destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  Call call("cuMemcpyDtoHAsync", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes == 0) return CUDA_SUCCESS;
  return copy_with_host(call, on, copy_out(*on->device, destination, source, bytes), destination, bytes);
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr destination, CUdeviceptr source, size_t bytes,
                                   CUstream stream) {
  Call call("cuMemcpyDtoDAsync", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes == 0) return CUDA_SUCCESS;
  return submit(call.world, on, copy_device(*on->device, destination, source, bytes));
}

CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr destination, const void* source, size_t bytes) {
  Call call("cuMemcpyHtoD", Needs::kContext, true);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, nullptr);
  const CUresult submitted = submit(call.world, on, copy_in(*on->device, destination, source, bytes));
  if (submitted != CUDA_SUCCESS) return submitted;
  return wait(call.lock, call.world, *on->device, [on] { return idle(*on); });
}

CUresult CUDAAPI cuMemcpyDtoH(void* destination, CUdeviceptr source, size_t bytes) {
  Call call("cuMemcpyDtoH", Needs::kContext, true);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, nullptr);
  const CUresult submitted = submit(call.world, on, copy_out(*on->device, destination, source, bytes));
  if (submitted != CUDA_SUCCESS) return submitted;
  return wait(call.lock, call.world, *on->device, [on] { return idle(*on); });
}

#if CUDA_VERSION >= 13000
CUresult CUDAAPI cuMemcpyBatchAsync(CUdeviceptr* destinations, CUdeviceptr* sources, size_t* sizes,
                                    size_t count, CUmemcpyAttributes* attributes, size_t* first, size_t kinds,
                                    CUstream stream) {
  (void)attributes, (void)first, (void)kinds;
  Call call("cuMemcpyBatchAsync", Needs::kContext);
  if (call.failed()) return call.result;
  // The driver has no batches on the legacy stream.
  if (stream == nullptr || !call.world.streams.contains(stream)) return CUDA_ERROR_INVALID_VALUE;
  for (std::size_t i = 0; i < count; ++i) {
    auto* to = reinterpret_cast<void*>(destinations[i]);     // NOLINT(performance-no-int-to-ptr)
    const auto* from = reinterpret_cast<void*>(sources[i]);  // NOLINT(performance-no-int-to-ptr)
    const bool to_device = device_bytes(call.world, destinations[i], 1) != nullptr;
    const bool from_device = device_bytes(call.world, sources[i], 1) != nullptr;
    if (!to_device && !from_device) return CUDA_ERROR_INVALID_VALUE;
    const CUresult done =
        to_device && from_device
            ? submit(call.world, stream, copy_device(*stream->device, destinations[i], sources[i], sizes[i]))
        : to_device
            ? copy_with_host(call, stream, copy_in(*stream->device, destinations[i], from, sizes[i]), from,
                             sizes[i])
            : copy_with_host(call, stream, copy_out(*stream->device, to, sources[i], sizes[i]), to, sizes[i]);
    if (done != CUDA_SUCCESS) return done;
  }
  return CUDA_SUCCESS;
}
#endif

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t count, CUstream stream) {
  Call call("cuMemsetD8Async", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == 0) return CUDA_SUCCESS;
  return submit(call.world, on, fill(*on->device, address, value, 1, count));
}

CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr address, unsigned int value, size_t count, CUstream stream) {
  Call call("cuMemsetD32Async", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == 0) return CUDA_SUCCESS;
  return submit(call.world, on, fill(*on->device, address, value, 4, count));
}

CUresult CUDAAPI cuLaunchHostFunc(CUstream stream, CUhostFn function, void* argument) {
  Call call("cuLaunchHostFunc", Needs::kContext);
  if (call.failed()) return call.result;
  CUstream on = stream_of(call.world, *call.device, stream);
  if (on == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return submit(call.world, on, host_function(function, argument));
}

}  // extern "C"
