#include "engine/engine.h"

#include "engine/engine_impl.h"

namespace fastserve {

Engine::Engine(EngineOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

Engine::~Engine() {
  drain(kNever);
  std::vector<std::pair<std::string, std::int64_t>> all;
  for (const VersionStatus& version : status()) all.emplace_back(version.model, version.version);
  for (const auto& [model, version] : all) {
    [[maybe_unused]] const Status ignored = unload(model, version);  // NOT_FOUND: somebody else was faster
  }
}

BackendRegistry& Engine::backends() { return impl_->registry; }

Tracer& Engine::tracer() { return impl_->tracer; }

RegionTable& Engine::regions() { return impl_->regions; }

void Engine::set_asleep(std::string_view model, const Sleep& sleep) { impl_->rooms.set_asleep(model, sleep); }

void Engine::set_awake(std::string_view model, const std::string& reason) {
  impl_->rooms.set_awake(*this, model, reason);
}

std::vector<std::string> Engine::take_asked() { return impl_->rooms.take_asked(); }

int Engine::asked_fd() const { return impl_->rooms.asked_fd(); }

ParkingTotals Engine::parking() const { return impl_->rooms.totals(); }

bool Engine::drain(Nanos drain_ns) {
  const Nanos until = deadline_in(drain_ns);
  impl_->rooms.close(unavailable("the server is shutting down"));
  std::vector<std::shared_ptr<ModelVersion>> admitted;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->refuses = true;
    auto refusing = std::make_shared<VersionTable>(*impl_->table);
    refusing->refuse_all();
    impl_->publish(std::move(refusing));
    for (const auto& [model, versions] : impl_->models) {
      for (const auto& [number, record] : versions) {
        if (record.serving) admitted.push_back(record.serving);
        if (record.draining) admitted.push_back(record.draining);
      }
    }
    for (const auto& version : admitted) version->drain_begin();
  }
  bool all = true;
  for (const auto& version : admitted) all = version->wait_answered(until) && all;
  return all;
}

std::vector<VersionStatus> Engine::status() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<VersionStatus> out;
  for (const auto& [model, versions] : impl_->models) {
    for (const auto& [number, record] : versions) {
      const auto& shown = record.serving    ? record.serving
                          : record.loading  ? record.loading
                          : record.draining ? record.draining
                                            : record.failed;
      if (!shown) continue;
      out.push_back(status_of(*shown));
      if (record.serving && record.failed)
        out.back().reason = "the last load failed: " + record.failed->view().reason;
    }
  }
  return out;
}

Result<ServedVersion*> Engine::Impl::find_served(std::string_view model, std::string_view version,
                                                 bool asks) {
  for (;;) {
    std::uint64_t seen = 0;
    const auto published_now = snapshot(seen);
    const Result<ModelVersion*> found = published_now->find(model, version);
    if (!found.is_ok()) {
      Status status = rooms.asleep_or(model, found.status(), asks);
      if (generation.load(std::memory_order_acquire) == seen) return status;
      continue;  // published meanwhile
    }
    if (found.value()->try_retain()) return static_cast<ServedVersion*>(found.value());
    // It drains, so it left the published table before: look into the new one.
  }
}

Result<ServedVersion*> Engine::resolve(std::string_view model, std::string_view version) const {
  return impl_->find_served(model, version, false);
}

Result<ServedVersion*> Engine::ask(std::string_view model, std::string_view version) {
  return impl_->find_served(model, version, true);
}

bool Engine::ready(std::string_view model, std::string_view version) const {
  std::uint64_t generation = 0;
  return impl_->snapshot(generation)->find(model, version).is_ok();
}

Result<std::shared_ptr<ModelVersion>> Engine::Impl::find_contents(std::string_view model,
                                                                  std::int64_t number) {
  const std::lock_guard lock(mutex);
  if (Record* record = find_record(model, number); record != nullptr) {
    if (record->serving) return record->serving;
    if (record->draining) return record->draining;
  }
  return not_found("Request for unknown model: '" + std::string(model) + "' version " +
                   std::to_string(number) + " is not found");
}

Result<VersionStatistics> Engine::statistics(std::string_view model, std::int64_t version) const {
  FS_ASSIGN_OR_RETURN(const auto found, impl_->find_contents(model, version));
  return read_statistics(*found);
}

ResponseCacheTotals Engine::response_cache() const {
  return impl_->cache == nullptr ? ResponseCacheTotals{} : impl_->cache->totals();
}

Result<SchedulingView> Engine::scheduling(std::string_view model, std::int64_t version) const {
  FS_ASSIGN_OR_RETURN(const auto found, impl_->find_contents(model, version));
  return read_scheduling(*found);
}

}  // namespace fastserve
