// One loaded version: the backend's model, its instances, their queue, and the state that the outside sees.
//
// The object itself is a shell that published tables share; the contents (weights, threads, device buffers) are made by
// load() and destroyed by destroy(), both on the loader thread. A submitter that still looks at an old table therefore
// finds a shell that refuses it, never freed memory.
// Thread: load .. destroy from one loader thread at a time; the rest as said.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "batch/served_version.h"
#include "model/cached_version.h"
#include "model/version_state.h"
#include "sched/expiry_timer.h"
#include "sched/instance_set.h"
#include "sched/model_queue.h"
#include "sched/order_gate.h"
#include "sched/rate_limiter.h"

namespace fastserve {

class ModelVersion final : public ServedVersion {
 public:
  // `limiter` outlives the contents; nullptr: no rate limits.
  ModelVersion(const LoadSpec& spec, ExpiryTimer& timer, RateLimiter* limiter = nullptr);
  ~ModelVersion();

  // --- loader thread, in this order
  // NEW > LOADING > WARMING; every instance has run every bucket. On error FAILED(reason), contents destroyed.
  Status load(Backend& backend, const Progress& progress);
  Status start();                 // WARMING > READY; threads come with the first ring (sched/instance_set.h)
  void drain_begin();             // READY > DRAINING: no new handle, what was admitted is answered
  bool wait_unused(Nanos until);  // handles back to zero; false at `until`
  bool wait_answered(Nanos until);  // every admitted request answered; false at `until`
  void refuse_waiting();            // the queue's rest is answered UNAVAILABLE
  void destroy();                   // DRAINING > UNLOADED; unused

  // --- submitters that hold a handle
  ModelQueue& queue() { return *queue_; }
  Instance* claim_idle() {
    return instances_.claim_idle();
  }  // nullptr: all busy. Else run_claimed() must follow
  // Runs or starts on this thread, which has other things to do, what waits and takes it no time; false: ring the queue's bell.
  bool start_here();
  void notice_cancel() override;

  // Set before the version is published: its answers are cached (engine/response_cache.h).
  std::unique_ptr<CachedVersion> cached;

  // --- any thread
  struct View {
    VersionState state = VersionState::kNew;
    std::string reason;
    double progress = 0;
  };
  View view() const;
  void fail(const Status& status);
  void give_up() { given_up_.request_stop(); }  // the load: whatever of it can be ended ends
  // How long load and start took; 0 until READY. Set by whoever loads it.
  std::atomic<Nanos> load_ns{0};
  std::atomic<std::int64_t> memory_bytes{0};  // what the process grew by; 0: unknown. Likewise
  const LoadSpec& spec() const { return spec_; }
  // What the backend said; empty before WARMING, kept after destroy().
  const std::string& platform() const { return platform_; }
  const std::vector<std::int64_t>& buckets() const { return buckets_; }
  const std::map<std::string, std::string>& properties() const { return properties_; }
  int instance_count() const { return instance_count_; }
  std::size_t threads() const { return instances_.threads(); }
  bool described() const;  // from WARMING on the above and `signature` are fixed

 private:
  void enter(VersionState next, std::string reason = {});
  Status load_contents(Backend& backend, const Progress& progress);
  Status adopt(std::unique_ptr<LoadedModel> model);
  Status make_instances();
  Result<InstanceSetup> setup_of(int index);
  Progress observed(const Progress& progress);
  void tear_down();

  std::stop_source given_up_;
  const LoadSpec spec_;
  ExpiryTimer& timer_;
  RateLimiter* const limiter_;
  std::string platform_;
  std::vector<std::int64_t> buckets_;
  std::map<std::string, std::string> properties_;
  int instance_count_ = 0;

  std::unique_ptr<ModelQueue> queue_;  // part of the shell: late submitters ring its bell
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<OrderGate> order_;  // preserve_ordering
  InstanceSet instances_;

  mutable std::mutex view_mutex_;  // guards view_ and described_
  View view_;
  bool described_ = false;
};

}  // namespace fastserve
