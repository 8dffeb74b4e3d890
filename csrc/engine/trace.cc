#include "engine/trace.h"

#include <algorithm>

#include "batch/served_version.h"

namespace fastserve {
namespace {

void add(Trace& trace, std::string_view name, Nanos moment) {
  if (moment != 0) trace.timestamps.emplace_back(name, moment);
}

// The request is there as a whole.
Nanos first_known(const StageTimes& times) {
  if (times.complete != 0) return times.complete;
  return times.received != 0 ? times.received : times.enqueued;
}

void add_times(Trace& trace, const StageTimes& times, TraceSource source, Nanos answered) {
  const bool network = source != TraceSource::kEmbedded;
  if (source == TraceSource::kGrpc) {
    add(trace, "GRPC_WAITREAD_START", times.received);
    add(trace, "GRPC_WAITREAD_END", times.complete);
  } else if (network) {
    add(trace, "HTTP_RECV_START", times.received);
    add(trace, "HTTP_RECV_END", times.complete);
  }
  add(trace, "REQUEST_START", first_known(times));
  add(trace, "QUEUE_START", times.enqueued);
  add(trace, "COMPUTE_START", times.dequeued);
  add(trace, "COMPUTE_INPUT_END", times.run_start);
  add(trace, "COMPUTE_OUTPUT_START", times.run_end);
  if (times.run_end != 0) add(trace, "COMPUTE_END", times.delivered);
  add(trace, "REQUEST_END", times.delivered);
  if (!network) return;
  add(trace, "INFER_RESPONSE_COMPLETE", answered);
  add(trace, source == TraceSource::kGrpc ? "GRPC_SEND_START" : "HTTP_SEND_START", answered);
}

Status check(const TraceSetting& setting) {
  if (setting.rate < 1) {
    return invalid_argument("trace_rate: got " + std::to_string(setting.rate) + ", want 1 or more");
  }
  if (setting.count < -1) {
    return invalid_argument("trace_count: got " + std::to_string(setting.count) +
                            ", want -1 (no limit) or more");
  }
  return Status::ok();
}

}  // namespace

bool Tracer::Sampler::pick() {
  if (!live() || seen++ % static_cast<std::uint64_t>(setting.rate) != 0) return false;
  if (setting.count > 0) --setting.count;
  return true;
}

void Tracer::update_on() {
  const bool any =
      all_.live() || std::ranges::any_of(own_, [](const auto& own) { return own.second.live(); });
  on_.store(any, std::memory_order_relaxed);
}

Status Tracer::set(std::string_view model, TraceSetting setting) {
  FS_RETURN_IF_ERROR(check(setting));
  const std::lock_guard lock(mutex_);
  (model.empty() ? all_ : own_[std::string(model)]) = {setting};
  update_on();
  return Status::ok();
}

void Tracer::clear(std::string_view model) {
  const std::lock_guard lock(mutex_);
  if (const auto own = own_.find(model); own != own_.end()) own_.erase(own);
  update_on();
}

std::optional<Trace> Tracer::sample(const Request& request, TraceSource source, Nanos answered) {
  Trace trace;
  {
    const std::lock_guard lock(mutex_);
    const auto own = own_.find(request.version->name);
    Sampler& sampler = own == own_.end() ? all_ : own->second;
    if (!sampler.pick()) return std::nullopt;
    if (!sampler.live()) update_on();
    trace.id = next_id_++;
  }
  trace.request_id = request.id;
  trace.model = request.version->name;
  trace.version = request.version->number;
  add_times(trace, request.times, source, answered);
  return trace;
}

void Tracer::keep(Trace trace, TraceSource source, Nanos sent) {
  if (source != TraceSource::kEmbedded) {
    add(trace, source == TraceSource::kGrpc ? "GRPC_SEND_END" : "HTTP_SEND_END", sent);
  }
  const std::lock_guard lock(mutex_);
  if (kept_.size() < kMaxKept) {
    kept_.push_back(std::move(trace));
  } else {
    dropped_.fetch_add(1, std::memory_order_relaxed);
  }
}

void Tracer::sample_and_keep(const Request& request) {
  if (auto trace = sample(request, TraceSource::kEmbedded, 0))
    keep(std::move(*trace), TraceSource::kEmbedded, 0);
}

std::vector<Trace> Tracer::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(kept_, {});
}

}  // namespace fastserve
