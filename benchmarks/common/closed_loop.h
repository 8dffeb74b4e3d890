// A closed loop: every slot sends its next request when its last reply is in. Decides when a request may start,
// which replies belong to the measuring window, and what is wrong with a reply. No I/O: a client library drives
// it. One thread.
//
//   warm-up ──(seconds)──> window ──(seconds | count)──> drain ──> done
//
// With a duration, the window opens in the running stream: only replies that arrive inside it count. With a
// count, the warm-up's requests are drained first, so that the window holds exactly that many requests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/args.h"
#include "common/json.h"
#include "common/latency.h"
#include "common/payload.h"
#include "common/process.h"

namespace fastserve::bench {

struct LoadOptions {
  std::string model;
  std::string version;
  TensorSpec input;
  std::string output;  // its name; empty: the model's first one
  int connections = 1;
  int in_flight = 1;  // per connection
  double seconds = 5;
  std::uint64_t count = 0;  // 0: by seconds
  double warmup_s = 1;
  double stall_s = 30;  // no reply for so long ends the run
  bool verify_echo = false;
  bool read_replies = false;  // replies are taken apart although nothing is verified by the loop itself
  double deadline_ms = 0;     // gRPC: sent as grpc-timeout; 0: none
  int priority = 0;           // gRPC: sent as the parameter `priority`; 0: none
  std::uint64_t seed = 1;
  int cpu = -1;
  std::vector<pid_t> server_pids;

  // Takes the options that both load clients share from `args`.
  static LoadOptions parse(Args& args);
};
extern const std::string_view kLoadHelp;  // the text of --help for them

struct Reply {
  std::uint64_t tag = 0;  // of the request that this reply is taken to answer
  std::int64_t started_ns = 0;
  std::string_view error;  // empty: the request succeeded
  // Filled for a successful reply when verify_echo or read_replies is set; `id` is what request_id(tag) sent.
  std::string_view version;
  std::string_view id;
  std::string_view dtype;
  std::vector<std::int64_t> shape;
  std::string_view bytes;
};

// 16 hexadecimal digits: fixed width, so that it can be patched into a prepared message.
constexpr std::size_t kIdBytes = 16;
void write_request_id(std::uint64_t tag, char* out);

class ClosedLoop {
 public:
  explicit ClosedLoop(const LoadOptions& options);

  // The tag of a request that may start now, or nothing (drain, count used up).
  std::optional<std::uint64_t> claim();
  void finish(const Reply& reply, std::int64_t now_ns);
  // A connection broke with `n` requests unanswered.
  void lose(std::uint64_t n, std::string_view why);
  // Call once per pass: moves from phase to phase. True while the run goes on.
  bool advance(std::int64_t now_ns);

  const Payload& payload() const { return payload_; }
  JsonObject report() const;
  // No request lost, crossed or refused, and at least one answered.
  bool clean() const { return errors_ == 0 && lost_ == 0 && crossed_ == 0 && requests_ > 0; }

 private:
  enum class Phase { kWarmUp, kWarmUpDrain, kWindow, kDrain, kDone };

  void open_window(std::int64_t now_ns);
  void close_window(std::int64_t now_ns);
  void note(std::string message);
  std::string what_is_crossed(const Reply& reply);

  const LoadOptions options_;
  Payload payload_;
  CpuClock server_cpu_;
  CpuClock own_cpu_;
  Phase phase_ = Phase::kWarmUp;
  std::int64_t warmup_end_ns_ = 0;
  std::int64_t last_reply_ns_ = 0;
  std::int64_t opened_ns_ = 0, closed_ns_ = 0;
  std::int64_t server_cpu_ns_ = 0, own_cpu_ns_ = 0;
  std::uint64_t next_tag_ = 0;
  std::uint64_t in_flight_ = 0;
  std::uint64_t claimed_in_window_ = 0;
  std::uint64_t requests_ = 0;                         // answered well inside the window
  std::uint64_t errors_ = 0, lost_ = 0, crossed_ = 0;  // over the whole run, warm-up and drain included
  std::uint64_t verified_ = 0;
  mutable Latencies latencies_;
  std::vector<std::string> notes_;  // the first few things that went wrong
};

}  // namespace fastserve::bench
