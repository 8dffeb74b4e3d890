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
      : options(std::move(options_in)), limiter(options.rate_limits), cache(make_cache(options)) {}

  const EngineOptions options;
  BackendRegistry registry;
  ExpiryTimer timer;
  RegionTable regions;
  RateLimiter limiter;  // outlives the instances of `models`
  Tracer tracer;
  const std::unique_ptr<ResponseCache> cache;  // nullptr: no answers are kept. Outlives the versions

  mutable std::mutex mutex;  // guards the four below; never held while a backend works or a drain waits
  std::map<std::string, Versions, std::less<>> models;
  std::shared_ptr<const VersionTable> table = std::make_shared<VersionTable>();
  bool refuses = false;
  // Number of the table. Written under the mutex (release), read by every submit (acquire).
  alignas(kCacheLine) std::atomic<std::uint64_t> generation{1};

  std::shared_ptr<const VersionTable> snapshot(std::uint64_t& generation_out) const;
  void publish();  // mutex held: makes the table anew from `models`

  Status admit_load(const LoadSpec& spec, std::shared_ptr<ModelVersion>& out);
  Status run_load(ModelVersion& version, const Progress& progress);
  Status finish_load(const std::shared_ptr<ModelVersion>& version, const Status& loaded);
  Result<std::shared_ptr<ModelVersion>> begin_unload(std::string_view model, std::int64_t number);
  void retire(const std::shared_ptr<ModelVersion>& version, Nanos drain_ns);
  void forget(const std::shared_ptr<ModelVersion>& version);  // after retire
  static std::unique_ptr<ResponseCache> make_cache(const EngineOptions& options);
  void attach_cache(ModelVersion& version);  // when its configuration asks for it, before it is published
  Record* find_record(std::string_view model, std::int64_t number);
  // The one that serves, else the one that drains.
  Result<std::shared_ptr<ModelVersion>> find_contents(std::string_view model, std::int64_t number);
};

// `duration` from now, without overflow.
Nanos deadline_in(Nanos duration);

VersionStatus status_of(const ModelVersion& version);
VersionStatistics read_statistics(ModelVersion& version);

}  // namespace fastserve
