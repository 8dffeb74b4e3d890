// Traces of single requests: when each stage began and ended, for one of `rate` requests, kept until somebody takes them.
// What Triton's trace extension calls level TIMESTAMPS, with its names (contracts: TraceSetting).
//
// The times were taken anyway, so a traced request costs nothing before it is answered. Off, it costs one relaxed load for each
// answer; on, a mutex, which the metrics never take.
// Thread: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cache_line.h"
#include "base/clock.h"
#include "base/status.h"
#include "batch/request.h"

namespace fastserve {

struct TraceSetting {
  bool on = false;
  std::int64_t rate = 1000;  // one of so many requests, the first included; 1 or more
  std::int64_t count = -1;   // so many traces and no more; -1 = no limit
};

struct Trace {
  std::uint64_t id = 0;    // numbered from 1
  std::string request_id;  // the client's, "" when it gave none
  std::string model;
  std::int64_t version = 0;
  std::vector<std::pair<std::string_view, Nanos>>
      timestamps;  // CLOCK_MONOTONIC, in order of time; static names
};

// Who received the request, for the names of the times outside the engine.
enum class TraceSource : std::uint8_t { kEmbedded, kGrpc, kHttp };

class Tracer {
 public:
  static constexpr std::size_t kMaxKept =
      16384;  // traces that wait to be taken; later ones are dropped and counted

  bool on() const { return on_.load(std::memory_order_relaxed); }  // whether any request may be traced

  // `model` "" = all models without a setting of their own. The count begins anew. INVALID_ARGUMENT: rate or count out of range.
  Status set(std::string_view model, TraceSetting setting);
  void clear(std::string_view model);  // the model follows the setting for all again

  // Answered requests, at most once each, when on(): the trace if this is one of the sampled. `answered`: when the front end took
  // the response up; 0 = it was delivered to the caller. To be handed to keep().
  std::optional<Trace> sample(const Request& request, TraceSource source, Nanos answered);
  // `sent`: when the answer was given to the socket; 0 = unknown.
  void keep(Trace trace, TraceSource source, Nanos sent);

  // Both in one, for a request whose answer went to its caller.
  void record(const Request& request) {
    if (on()) sample_and_keep(request);
  }

  std::vector<Trace> take();
  std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  struct Sampler {
    TraceSetting setting;
    std::uint64_t seen = 0;
    bool live() const { return setting.on && setting.count != 0; }
    bool pick();
  };
  void update_on();
  void sample_and_keep(const Request& request);

  alignas(kCacheLine) std::atomic<bool> on_{false};  // relaxed: a setting may take effect a request late
  std::atomic<std::uint64_t> dropped_{0};
  std::mutex mutex_;  // guards what follows
  Sampler all_;
  std::map<std::string, Sampler, std::less<>> own_;
  std::uint64_t next_id_ = 1;
  std::vector<Trace> kept_;
};

}  // namespace fastserve
