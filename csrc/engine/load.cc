// Load, replace, unload: the control half of the engine.
#include <algorithm>
#include <array>

#include "base/log.h"
#include "engine/engine_impl.h"
#include "engine/loader_priority.h"
#include "engine/resident_memory.h"

namespace fastserve {
namespace {

// Where nobody said otherwise; a request is refused when both are exceeded.
constexpr std::int64_t kDefaultMaxQueueRequests = 1024;
constexpr Nanos kDefaultMaxQueueAge = kSecond;

std::string version_text(std::string_view model, std::int64_t number) {
  return "model '" + std::string(model) + "' version " + std::to_string(number);
}

// Formats that OpenVINO reads; a configuration that names no backend is completed by the file's name.
Result<std::string> backend_by_file(const std::string& path) {
  constexpr std::array<std::string_view, 5> kOpenVino{".xml", ".onnx", ".pb", ".tflite", ".pdmodel"};
  for (const std::string_view ending : kOpenVino) {
    if (path.ends_with(ending)) return std::string("openvino");
  }
  return invalid_argument("backend: not given, and none is known for a file named \"" + path + "\"");
}

Status check_spec(const LoadSpec& spec) {
  if (spec.model.empty()) return invalid_argument("name: got \"\", want a model name");
  if (spec.version < 0) {
    return invalid_argument("version: got " + std::to_string(spec.version) + ", want 0 or more");
  }
  if (spec.limits.max_queue_requests < 0) {
    return invalid_argument("max_queue_requests: got " + std::to_string(spec.limits.max_queue_requests) +
                            ", want 0 or more");
  }
  if (spec.limits.max_queue_delay_ns < 0) {
    return invalid_argument("max_queue_delay_ns: got " + std::to_string(spec.limits.max_queue_delay_ns) +
                            ", want 0 or more");
  }
  return check_queue_limits(spec.queue);
}

LoadSpec completed(LoadSpec spec, const EngineOptions& options) {
  std::int64_t& most = spec.limits.max_queue_requests;
  if (most == 0) most = options.default_max_queue_requests;
  if (most == 0) {
    most = kDefaultMaxQueueRequests;
    spec.limits.max_queue_age_ns = kDefaultMaxQueueAge;
  }
  if (const auto named = backend_by_file(spec.path); spec.backend.empty() && named.is_ok())
    spec.backend = named.value();
  return spec;
}

}  // namespace

Nanos deadline_in(Nanos duration) {
  const Nanos now = monotonic_now();
  return duration > kNever - now ? kNever : now + duration;
}

Engine::Impl::Record* Engine::Impl::find_record(std::string_view model, std::int64_t number) {
  const auto versions = models.find(model);
  if (versions == models.end()) return nullptr;
  const auto record = versions->second.find(number);
  return record == versions->second.end() ? nullptr : &record->second;
}

Status Engine::load(const LoadSpec& spec, const Progress& progress) {
  std::shared_ptr<ModelVersion> version;
  FS_RETURN_IF_ERROR(impl_->admit_load(spec, version));
  const Nanos began = monotonic_now();
  const bool first = impl_->loads.fetch_add(1, std::memory_order_relaxed) == 0;
  const std::uint64_t loads = impl_->load_count.fetch_add(1, std::memory_order_relaxed) + 1;
  const std::int64_t before = resident_bytes();
  const Status loaded = impl_->run_load(*version, progress);
  const std::int64_t grown = resident_bytes() - before;
  const bool alone = first && impl_->load_count.load(std::memory_order_relaxed) == loads;
  impl_->loads.fetch_sub(1, std::memory_order_relaxed);
  if (loaded.is_ok()) {
    version->load_ns.store(monotonic_now() - began, std::memory_order_relaxed);
    if (alone) version->memory_bytes.store(std::max<std::int64_t>(grown, 0), std::memory_order_relaxed);
  }
  Status finished = impl_->finish_load(version, loaded);
  if (!loaded.is_ok()) give_memory_back();
  return finished;
}

Status Engine::Impl::admit_load(const LoadSpec& spec, std::shared_ptr<ModelVersion>& out) {
  FS_RETURN_IF_ERROR(check_spec(spec));
  const std::lock_guard lock(mutex);
  if (refuses) return unavailable("the server is shutting down");
  Record& record = models[spec.model][spec.version];
  if (record.loading)
    return {Code::kAlreadyExists, version_text(spec.model, spec.version) + " is loading already"};
  out = record.loading = std::make_shared<ModelVersion>(completed(spec, options), timer, &limiter);
  attach_cache(*out);
  record.failed.reset();
  publish(spec.model);
  return Status::ok();
}

std::unique_ptr<ResponseCache> Engine::Impl::make_cache(const EngineOptions& options) {
  if (options.response_cache_bytes == 0) return nullptr;
  return std::make_unique<ResponseCache>(options.response_cache_bytes);
}

// As in Triton both must be on, the server's cache and the model's.
void Engine::Impl::attach_cache(ModelVersion& version) {
  if (!version.spec().response_cache) return;
  if (cache != nullptr) {
    version.cached = cache->make_version();
  } else {
    log(LogLevel::kWarning, version_text(version.name, version.number) +
                                " asks for the response cache, which is off (--response-cache-bytes 0): "
                                "served uncached");
  }
}

Status Engine::Impl::run_load(ModelVersion& version, const Progress& progress) {
  const auto find_backend = [&]() -> Result<Backend*> {
    if (version.spec().backend.empty()) return backend_by_file(version.spec().path).status();
    return registry.find(version.spec().backend);
  };
  {
    const LoaderPriority low(options.loader_nice, loads_when_idle.load(std::memory_order_relaxed));
    const Result<Backend*> backend = find_backend();
    if (!backend.is_ok()) {
      version.fail(backend.status());
      return backend.status();
    }
    FS_RETURN_IF_ERROR(version.load(*backend.value(), progress));
  }
  return version.start();
}

Status Engine::Impl::finish_load(const std::shared_ptr<ModelVersion>& version, const Status& loaded) {
  std::shared_ptr<ModelVersion> replaced;
  bool refused = false;
  {
    std::unique_lock lock(mutex);
    Record* const found = find_record(version->name, version->number);
    if (found == nullptr || found->loading != version) {
      lock.unlock();
      return finish_given_up(version, loaded);
    }
    Record& record = *found;
    record.loading.reset();
    refused = loaded.is_ok() && refuses;  // the engine began to drain meanwhile
    if (!loaded.is_ok()) {
      record.failed = version;
    } else {
      replaced = std::exchange(record.serving, version);
      if (replaced) record.draining = replaced;
    }
    publish(version->name);
    if (refused) version->drain_begin();
  }
  if (replaced) {
    retire(replaced, kNever);
    forget(replaced);
  }
  return refused ? unavailable("the server is shutting down") : loaded;
}

void Engine::load_when_idle() { impl_->loads_when_idle.store(true, std::memory_order_relaxed); }

Status Engine::unload(std::string_view model, std::int64_t version, Nanos drain_ns) {
  FS_ASSIGN_OR_RETURN(const auto found, impl_->begin_unload(model, version));
  if (found->view().state != VersionState::kFailed) impl_->retire(found, drain_ns);
  impl_->forget(found);
  return Status::ok();
}

Result<std::shared_ptr<ModelVersion>> Engine::Impl::begin_unload(std::string_view model,
                                                                 std::int64_t number) {
  const std::lock_guard lock(mutex);
  Record* record = find_record(model, number);
  if (record == nullptr) return not_found(version_text(model, number) + " is not found");
  if (record->loading) return Status(Code::kFailedPrecondition, version_text(model, number) + " is loading");
  if (record->serving) {
    if (record->draining) {
      return Status(Code::kFailedPrecondition, version_text(model, number) + " is being replaced");
    }
    record->failed.reset();
    record->draining = std::exchange(record->serving, nullptr);
    publish(model);
    return record->draining;
  }
  if (record->failed && !record->draining) return record->failed;
  return not_found(version_text(model, number) + " is being unloaded already");
}

// Unpublished before. On the calling thread: drain, then destroy.
void Engine::Impl::retire(const std::shared_ptr<ModelVersion>& version, Nanos drain_ns) {
  version->drain_begin();
  if (!version->wait_unused(deadline_in(drain_ns))) {
    // A request that is admitted just now still runs: what is pushed after this is answered like any other.
    version->refuse_waiting();
    version->wait_unused(kNever);
  }
  if (version->cached != nullptr) cache->forget(*version->cached);
  const LoaderPriority low(options.loader_nice, loads_when_idle.load(std::memory_order_relaxed));
  version->destroy();
  give_memory_back();
}

void Engine::Impl::forget(const std::shared_ptr<ModelVersion>& version) {
  const std::lock_guard lock(mutex);
  const auto versions = models.find(version->name);
  Record& record = versions->second[version->number];
  if (record.draining == version) record.draining.reset();
  if (record.failed == version) record.failed.reset();
  if (record.empty()) versions->second.erase(version->number);
  if (versions->second.empty()) models.erase(versions);
  publish(version->name);
}

}  // namespace fastserve
