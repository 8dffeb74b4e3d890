// The engine: loads versions, takes requests, runs batches, answers. Opens no socket, starts no loop, installs no signal
// handler, reads no environment; several may live in one process.
//
// Control calls (load, unload, status) block and belong on a loader thread. The hot path is a Submitter.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/registry.h"
#include "base/status.h"
#include "batch/request.h"
#include "batch/served_version.h"
#include "engine/read_scheduling.h"
#include "model/version_label.h"
#include "model/version_state.h"
#include "sched/rate_limiter.h"

namespace fastserve {

class RegionTable;
class Tracer;

// Count and total nanoseconds of a stage, as Triton's statistics extension has them.
struct StageTotal {
  std::uint64_t count = 0;
  std::uint64_t ns = 0;
};

// A histogram with fixed bounds (base/histogram.h).
struct Histogram {
  std::vector<double> upper_bounds;   // ascending, without +Inf
  std::vector<std::uint64_t> counts;  // one more than bounds; not cumulative
  double sum = 0;
};

struct BatchSizeTotal {
  std::int64_t rows = 0;
  StageTotal compute_input, compute_infer, compute_output;
};

// Read without stopping anyone: relaxed counters, each consistent with itself.
struct VersionStatistics {
  std::uint64_t inference_count = 0;   // rows
  std::uint64_t execution_count = 0;   // batches
  std::int64_t last_inference_ms = 0;  // wall clock, since the epoch; 0 = never
  StageTotal success;                  // whole request, as the next four
  StageTotal cancel;                   // in the queue, by their owner
  StageTotal rejected;                 // too many waited, too late to be in time, or the queue timeout passed
  StageTotal fail;                     // all others: by the backend, or `other`
  StageTotal
      other;  // the part of `fail` that no backend is to blame for: deadline, unloaded, the client's memory
  // A hit is a success with no time in the queue and nothing computed; a miss is counted when it is looked up.
  StageTotal cache_hit, cache_miss;
  StageTotal queue, compute_input, compute_infer, compute_output;
  std::vector<BatchSizeTotal> batches;
  std::int64_t pending = 0;    // waiting now
  std::int64_t in_flight = 0;  // accepted, not yet answered
  // By reason; they are what `rejected`, `cancel` and `other` sum up: "queue_full", "too_late", "queue_timeout",
  // "cancelled", "deadline", "unloading", "client_memory".
  std::map<std::string, std::uint64_t> requests_rejected;
  // "queue", "gather", "execute", "total" of successful requests, "encode" of answers that were written to a socket.
  std::map<std::string, Histogram> stage_seconds;
  Histogram batch_rows;                // sizes of executed batches; upper bounds are rows
  std::uint64_t copied_bytes = 0;      // of tensors, into batches and out of them
  std::uint64_t expired_executed = 0;  // requests handed to the device after their deadline: 0
};

struct VersionStatus {
  std::string model;
  std::int64_t version = 0;
  VersionState state = VersionState::kNew;
  std::string reason;   // of FAILED (the error); READY: of a replacement that failed; else "compiling" ...
  double progress = 0;  // 0..1 while loading
  double load_seconds = 0;  // load, warm-up and start; 0 until READY
  std::string backend, platform;
  Signature signature;  // meaningful from WARMING on
  int instance_count = 0;
  std::vector<std::int64_t> buckets;
  std::map<std::string, std::string> properties;  // device, precision, streams ...
  // What the process grew by while it was loaded; 0: unknown, because other loads ran beside it, or not loaded yet.
  std::int64_t memory_bytes = 0;
};

// One version of a label.
struct LabelStatus {
  std::string model, label;
  std::int64_t version = 0;
  std::int64_t weight = 1;
  bool ready = false;
  std::uint64_t requests = 0;  // by this label, for this version, since it was first given to it
};

// Of the response cache (engine/response_cache.h), which all models share.
struct ResponseCacheTotals {
  std::uint64_t capacity_bytes = 0;  // 0: there is none
  std::uint64_t bytes = 0;
  std::uint64_t entries = 0;
  std::uint64_t evictions = 0;  // for want of room
  std::uint64_t too_large = 0;  // answers that were not kept, because they are larger than the cache
};

// Requests to models that sleep, which are held until these are loaded; one more is refused with UNAVAILABLE.
struct ParkingLimits {
  std::int64_t requests_per_model = 256;
  std::int64_t requests = 1024;  // of all models
  std::uint64_t bytes_per_model = std::uint64_t{64} << 20U;
  std::uint64_t bytes = std::uint64_t{256} << 20U;  // of all models
};

struct ParkingTotals {
  std::int64_t requests = 0;  // that wait now
  std::uint64_t bytes = 0;    // theirs
  std::uint64_t parked = 0;   // requests, ever
  std::uint64_t refused = 0;  // while the model slept, ever
};

// What a model that sleeps does with a request.
struct Sleep {
  bool holds =
      true;  // until the model is loaded; else UNAVAILABLE, with the seconds after which to try again
  std::uint16_t load_s = 1;  // how long its load takes, as far as is known
};

struct EngineOptions {
  int loader_nice = 10;  // so many steps lower is the priority of a thread that loads
  // LoadSpec.limits may say otherwise. 0: 1024, or as many as are served within 1 s
  std::int64_t default_max_queue_requests = 0;
  std::uint64_t response_cache_bytes = 0;  // for LoadSpec.response_cache; 0: such models are served uncached
  RateLimits rate_limits;                  // --rate-limit, --rate-limit-resource (sched/rate_limiter.h)
  ParkingLimits parking;
};

class Engine {
 public:
  explicit Engine(EngineOptions options = {});
  ~Engine();  // drains everything
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  BackendRegistry& backends();
  Tracer& tracer();        // engine/trace.h
  RegionTable& regions();  // memory/region_table.h: named shared memory of clients, off until allow()

  // Blocks: load -> warm up every bucket -> publish. On error the version's state is FAILED with the reason and whatever
  // served before serves on. Loading a version that is READY replaces it (the old one is drained after the new one is
  // published, and destroyed before this returns). ALREADY_EXISTS while the same version is loading.
  Status load(const LoadSpec& spec, const Progress& progress = {});

  // From now on loads and unloads get only the CPU time that nobody else wants. Whoever says so calls LoaderPriority::hurry() for
  // those that do not get far (engine/loader_priority.h). Thread: any.
  void load_when_idle();

  // A backend cannot be interrupted: the load of this version that runs now runs on, its contents are destroyed when it ends, and
  // it returns DEADLINE_EXCEEDED. From here on it is as if it had failed: what served serves on, and the version may be loaded
  // again beside it. False: no load of it runs. Does not block (engine/give_up_load.cc).
  bool give_up_load(std::string_view model, std::int64_t version);

  // Blocks: unpublish -> drain -> destroy. New requests are refused at once, admitted ones are answered.
  // NOT_FOUND when it is not there; OK and forgotten when it is FAILED. `drain_ns`: after that, requests that still wait in the
  // queue are answered UNAVAILABLE; running ones are always waited for.
  Status unload(std::string_view model, std::int64_t version, Nanos drain_ns = kNever);

  // Refuses new requests (UNAVAILABLE) and waits until everything admitted was answered, at most drain_ns. True when it was.
  bool drain(Nanos drain_ns);

  // Replaces all labels of a model at once; none: it has no labels. The model and the versions need not be there: a label stands
  // for those of its versions that are ready. Does not block. Errors: check_labels (model/version_label.h).
  Status set_labels(std::string_view model, std::vector<LabelSpec> labels);

  // A model that sleeps is wanted and not loaded (engine/waiting_rooms.h); said before it is unloaded. Does not block.
  void set_asleep(std::string_view model, const Sleep& sleep);
  // Its load ended, well (`reason` "") or not: requests that were held are submitted, and answered where that fails.
  void set_awake(std::string_view model, const std::string& reason = {});
  // Sleeping models that were asked for since they sleep. asked_fd becomes readable with the first request to each; reading
  // them makes it unreadable.
  std::vector<std::string> take_asked();
  int asked_fd() const;
  ParkingTotals parking() const;

  // --- reading, any thread
  std::vector<LabelStatus> labels() const;  // by model, label, version
  std::vector<VersionStatus> status() const;
  // Counted handle (release() it) of a ready version, by number or label (of several versions that with most weight); "" = what
  // the label "default" stands for, else the highest ready one. Errors in Triton's words: NOT_FOUND
  // "Request for unknown model: 'x' is not found", "... 'x' version N is not found", "... has no available versions",
  // UNAVAILABLE "... is not at ready state"; FAILED_PRECONDITION for a label none of whose versions is ready.
  // A model that sleeps: UNAVAILABLE.
  Result<ServedVersion*> resolve(std::string_view model, std::string_view version) const;
  // For who needs the signature before there is a request that could be held: as resolve, and a model that sleeps is woken.
  Result<ServedVersion*> ask(std::string_view model, std::string_view version);
  bool ready(std::string_view model, std::string_view version) const;
  Result<VersionStatistics> statistics(std::string_view model, std::int64_t version) const;
  ResponseCacheTotals response_cache() const;
  Result<SchedulingView> scheduling(std::string_view model, std::int64_t version) const;

  struct Impl;  // engine/engine_impl.h
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// The hot path of one submitting thread (an I/O loop, or a thread that embeds the engine). Not shared between threads.
// Caches the published table; a load or unload elsewhere is seen at the next submit.
class Submitter {
 public:
  explicit Submitter(Engine& engine);
  ~Submitter();
  Submitter(Submitter&&) noexcept;

  // resolve -> validate -> admit -> queue. OK: the engine owns the request until its final response is delivered to
  // request.completions. Not OK: the request is still the caller's, nothing was delivered. Does not wake an instance: see flush.
  Status submit(Request& request);

  // Whether the version's statistics have the last refusal already (queue full, too late): who counts refusals leaves it out.
  bool refusal_counted() const;

  // Wakes the instances that got work since the last flush: once per loop pass, not once per request.
  void flush();

  // Blocking inference for embedding: submit + flush + wait; runs the batch on the calling thread when an instance is idle
  // (no thread hop). request.completions must be a kFutex queue used by nobody else meanwhile. Returns the final response
  // (== &request.response), or the error of submit.
  Result<Response*> infer(Request& request);

  // The same in parts, for a caller that has to look up from its wait, or holds a lock that it lets go for long runs only.
  // OK: submitted. kNever: an instance's thread has it, or it is answered already. Else an idle instance was claimed, and
  // exactly one of the next two must follow: it would run on this thread for about so long (0: not known).
  Result<Nanos> begin_infer(Request& request);
  void run_begun();          // on this thread; the request may still wait for company afterwards
  void leave_to_instance();  // on the instance's own

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fastserve
