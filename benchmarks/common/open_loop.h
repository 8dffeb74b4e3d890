// An open loop: requests are due at times drawn beforehand (Poisson), whatever the server does, and every latency is counted from
// the time at which its request was due. So a server that stalls, or a client that comes late, shows in the latencies (no
// "coordinated omission"). The run is a row of phases of different rates without a gap between them. No I/O. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/latency.h"
#include "common/process.h"

namespace fastserve::bench {

struct LoadPhase {
  double per_s;
  double seconds;
};

struct OpenLoopOptions {
  std::vector<LoadPhase> phases;
  double high_share = 0;   // of the requests: sent with high priority
  double good_ms = 50;     // an answer within so long of its due time is goodput
  double settle_ms = 200;  // window in which a phase counts as settled when 99 % of its requests were good
  std::uint64_t seed = 1;
};

class OpenLoop {
 public:
  struct Arrival {
    std::int64_t due_ns;
    bool high;
  };

  OpenLoop(const OpenLoopOptions& options, const std::vector<pid_t>& server_pids);

  void start(std::int64_t now_ns);
  // The next request, or nullptr when all were handed out. `pop` hands it out: its tag is its number.
  const Arrival* next() const { return next_ < arrivals_.size() ? &arrivals_[next_] : nullptr; }
  std::uint64_t pop() { return next_++; }
  const Arrival& arrival(std::uint64_t tag) const { return arrivals_[tag]; }
  // `error`: empty, or what the server or the connection said.
  void finish(std::uint64_t tag, std::string_view error, std::int64_t now_ns);
  void note_cpu(std::int64_t now_ns);  // once per pass: the server's CPU clock at the phases' borders
  bool done() const { return next_ == arrivals_.size() && answered_ == arrivals_.size(); }
  std::int64_t ends_ns() const { return ends_.back(); }

  std::string report() const;  // a JSON list, one object per phase

 private:
  struct Phase {
    std::uint64_t offered = 0, good = 0, late = 0, refused = 0, expired = 0, failed = 0;
    std::uint64_t high_offered = 0, high_ok = 0;
    Latencies ok, refusals;
    std::int64_t cpu_ns = 0, client_cpu_ns = 0;
  };
  enum class End : std::uint8_t { kNone, kGood, kBad };

  std::size_t phase_of(std::uint64_t tag) const;
  double settled_after_s(std::size_t phase) const;

  const OpenLoopOptions options_;
  CpuClock server_cpu_, own_cpu_;
  std::vector<Arrival> arrivals_;        // due_ns from the start on until start(), absolute afterwards
  std::vector<std::uint64_t> first_of_;  // per phase: its first arrival; one more at the end
  std::vector<std::int64_t> ends_;       // per phase
  std::vector<End> ends_of_;             // per arrival
  mutable std::vector<Phase> phases_;
  std::map<std::string, std::uint64_t> notes_;  // messages and how often
  std::size_t cpu_phase_ = 0;
  std::size_t next_ = 0, answered_ = 0;
  std::int64_t began_ns_ = 0;
};

}  // namespace fastserve::bench
