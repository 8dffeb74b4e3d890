// What Engine and Submitter share. Private to csrc/engine and its tests.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/cache_line.h"
#include "engine/engine.h"
#include "engine/response_cache.h"
#include "engine/trace.h"
#include "engine/waiting_rooms.h"
#include "memory/region_table.h"
#include "model/model_version.h"
#include "model/version_table.h"
#include "sched/expiry_timer.h"

namespace fastserve {

struct Engine::Impl {
  // Everything known about one number of one model. At most one of each; a version moves from loading to serving to draining.
  struct Record {
    std::shared_ptr<ModelVersion> serving;
    std::shared_ptr<ModelVersion> loading;
    std::shared_ptr<ModelVersion> draining;
    std::shared_ptr<ModelVersion> failed;  // the last load, when it failed
    bool empty() const { return !serving && !loading && !draining && !failed; }
  };
  using Versions = std::map<std::int64_t, Record>;

  explicit Impl(EngineOptions options_in)
      : options(std::move(options_in)),
        limiter(options.rate_limits),
        cache(make_cache(options)),
        rooms(options.parking, timer) {}

  const EngineOptions options;
  std::atomic<bool> loads_when_idle{false};  // relaxed: of the loads that begin after it
  BackendRegistry registry;
  ExpiryTimer timer;
  RegionTable regions;
  RateLimiter limiter;  // outlives the instances of `models`
  Tracer tracer;
  const std::unique_ptr<ResponseCache> cache;  // nullptr: no answers are kept. Outlives the versions

  WaitingRooms rooms;
  std::atomic<int> loads{0};                 // that run
  std::atomic<std::uint64_t> load_count{0};  // that began, ever: whether a load was alone

  mutable std::mutex mutex;  // guards the three below; never held while a backend works or a drain waits
  std::map<std::string, Versions, std::less<>> models;
  std::map<std::string, std::vector<std::shared_ptr<VersionLabel>>, std::less<>> labels;
  bool refuses = false;
  // Guards the table, which is made while only `mutex` is held: whoever submits never waits for who reads the models.
  mutable std::mutex table_mutex;
  std::shared_ptr<const VersionTable> table = std::make_shared<VersionTable>();
  std::atomic<unsigned> submitters{
      0};  // so many were made: a submitter's number is its shard of a label's counts
  // Number of the table. Written under table_mutex (release), read by every submit (acquire).
  alignas(kCacheLine) std::atomic<std::uint64_t> generation{1};

  std::shared_ptr<const VersionTable> snapshot(std::uint64_t& generation_out) const;
  void publish(std::string_view model);  // mutex held: the model as it is now, beside the others as they were
  void publish(std::shared_ptr<const VersionTable> fresh);
  std::shared_ptr<const PublishedModel> published(std::string_view model) const;  // nullptr: there is none

  Status admit_load(const LoadSpec& spec, std::shared_ptr<ModelVersion>& out);
  Status run_load(ModelVersion& version, const Progress& progress);
  Status finish_load(const std::shared_ptr<ModelVersion>& version, const Status& loaded);
  Status finish_given_up(const std::shared_ptr<ModelVersion>& version, const Status& loaded);
  Result<std::shared_ptr<ModelVersion>> begin_unload(std::string_view model, std::int64_t number);
  void retire(const std::shared_ptr<ModelVersion>& version, Nanos drain_ns);
  void forget(const std::shared_ptr<ModelVersion>& version);  // after retire
  static std::unique_ptr<ResponseCache> make_cache(const EngineOptions& options);
  void attach_cache(ModelVersion& version);  // when its configuration asks for it, before it is published
  // Engine::resolve and Engine::ask.
  Result<ServedVersion*> find_served(std::string_view model, std::string_view version, bool asks);
  Record* find_record(std::string_view model, std::int64_t number);
  // The one that serves, else the one that drains.
  Result<std::shared_ptr<ModelVersion>> find_contents(std::string_view model, std::int64_t number);
};

// `duration` from now, without overflow.
Nanos deadline_in(Nanos duration);

VersionStatus status_of(const ModelVersion& version);
VersionStatistics read_statistics(ModelVersion& version);

}  // namespace fastserve
