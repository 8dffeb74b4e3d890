#include "common/closed_loop.h"

#include <unistd.h>

#include <algorithm>

namespace fastserve::bench {
namespace {

constexpr std::size_t kMaxNotes = 8;

double per(std::int64_t amount, std::uint64_t requests) {
  return static_cast<double>(amount) / static_cast<double>(requests);
}

}  // namespace

const std::string_view kLoadHelp = R"(Load
  --connections N      connections, each with --in-flight requests outstanding   [1]
  --in-flight K                                                                  [1]
  --seconds S          length of the measuring window                            [5]
  --count N            exactly N requests instead of a duration
  --warmup S           seconds before the window, never counted                  [1]
  --stall S            no reply for so long ends the run                         [30]
  --cpu N              pin this client to one CPU

Request
  --model NAME         [identity]            --model-version V   [the server's choice]
  --input NAME         [INPUT0]              --output NAME       [the model's first]
  --dtype D            [FP32]                --shape A,B,...     [1,16]; batch dimension included
  --seed N             of the tensor values  [1]
  --deadline-ms MS     gRPC: a grpc-timeout  [none]
  --priority N         gRPC: the parameter `priority`, 1 is the highest [none]

Checks
  --verify-echo        every request has its own bytes and id; every reply is compared with exactly those
  --server-pid P,...   report the CPU time of these processes (user + system) per request

Output: one line of JSON on stdout. Exit code 1 if a request failed, got lost or was crossed with another.
)";

LoadOptions LoadOptions::parse(Args& args) {
  LoadOptions options;
  options.model = args.text("--model", "identity");
  options.version = args.text("--model-version");
  options.input.name = args.text("--input", "INPUT0");
  options.input.dtype = args.text("--dtype", "FP32");
  options.input.shape = args.integers("--shape", {1, 16});
  options.output = args.text("--output");
  options.connections = static_cast<int>(args.integer("--connections", 1, 1, 4096));
  options.in_flight = static_cast<int>(args.integer("--in-flight", 1, 1, 65536));
  options.seconds = args.real("--seconds", 5, 0.01, 86400);
  options.count = static_cast<std::uint64_t>(args.integer("--count", 0, 0, INT64_MAX));
  options.warmup_s = args.real("--warmup", 1, 0, 3600);
  options.stall_s = args.real("--stall", 30, 0.1, 3600);
  options.verify_echo = args.flag("--verify-echo");
  options.deadline_ms = args.real("--deadline-ms", 0, 0, 99999);
  options.priority = static_cast<int>(args.integer("--priority", 0, 0, INT32_MAX));
  options.seed = static_cast<std::uint64_t>(args.integer("--seed", 1, 0, INT64_MAX));
  options.cpu = static_cast<int>(args.integer("--cpu", -1, -1, 1023));
  for (const std::int64_t pid : args.integers("--server-pid", {})) {
    options.server_pids.push_back(static_cast<pid_t>(pid));
  }
  if (options.input.byte_size() == 0) {
    args.fail("--dtype " + options.input.dtype + " with this --shape: unknown dtype or no bytes");
  }
  return options;
}

void write_request_id(std::uint64_t tag, char* out) {
  for (std::size_t i = kIdBytes; i-- > 0; tag >>= 4) out[i] = "0123456789abcdef"[tag & 15];
}

ClosedLoop::ClosedLoop(const LoadOptions& options)
    : options_(options),
      payload_(options.input, options.seed),
      server_cpu_(options.server_pids),
      own_cpu_({getpid()}),
      last_reply_ns_(now_ns()) {
  warmup_end_ns_ = last_reply_ns_ + static_cast<std::int64_t>(options.warmup_s * 1e9);
}

std::optional<std::uint64_t> ClosedLoop::claim() {
  if (phase_ != Phase::kWarmUp && phase_ != Phase::kWindow) return std::nullopt;
  if (phase_ == Phase::kWindow) {
    if (options_.count != 0 && claimed_in_window_ == options_.count) return std::nullopt;
    ++claimed_in_window_;
  }
  ++in_flight_;
  return next_tag_++;
}

void ClosedLoop::finish(const Reply& reply, std::int64_t now_ns) {
  --in_flight_;
  last_reply_ns_ = now_ns;
  if (!reply.error.empty()) {
    ++errors_;
    note(std::string(reply.error));
    return;
  }
  if (options_.verify_echo) {
    if (std::string why = what_is_crossed(reply); !why.empty()) {
      ++crossed_;
      note(std::move(why));
      return;
    }
    ++verified_;
  }
  if (phase_ != Phase::kWindow) return;
  ++requests_;
  latencies_.add(now_ns - reply.started_ns);
}

void ClosedLoop::lose(std::uint64_t n, std::string_view why) {
  in_flight_ -= n;
  lost_ += n;
  note("connection lost with " + std::to_string(n) + " unanswered: " + std::string(why));
}

bool ClosedLoop::advance(std::int64_t now_ns) {
  if (in_flight_ > 0 && static_cast<double>(now_ns - last_reply_ns_) > options_.stall_s * 1e9) {
    if (phase_ == Phase::kWindow) close_window(now_ns);
    lose(in_flight_, "no reply within --stall");
    phase_ = Phase::kDone;
  }
  if (phase_ == Phase::kWarmUp && now_ns >= warmup_end_ns_) {
    phase_ = options_.count != 0 ? Phase::kWarmUpDrain : Phase::kWindow;
    if (phase_ == Phase::kWindow) open_window(now_ns);
  }
  if (phase_ == Phase::kWarmUpDrain && in_flight_ == 0) {
    phase_ = Phase::kWindow;
    open_window(now_ns);
    return true;
  }
  if (phase_ == Phase::kWindow) {
    const bool over = options_.count != 0
                          ? claimed_in_window_ == options_.count && in_flight_ == 0
                          : static_cast<double>(now_ns - opened_ns_) >= options_.seconds * 1e9;
    if (over) {
      close_window(now_ns);
      phase_ = Phase::kDrain;
    }
  }
  if (phase_ == Phase::kDrain && in_flight_ == 0) phase_ = Phase::kDone;
  return phase_ != Phase::kDone;
}

void ClosedLoop::open_window(std::int64_t now_ns) {
  opened_ns_ = now_ns;
  server_cpu_ns_ = -server_cpu_.now_ns();
  own_cpu_ns_ = -own_cpu_.now_ns();
}

void ClosedLoop::close_window(std::int64_t now_ns) {
  closed_ns_ = now_ns;
  server_cpu_ns_ += server_cpu_.now_ns();
  own_cpu_ns_ += own_cpu_.now_ns();
}

void ClosedLoop::note(std::string message) {
  if (notes_.size() < kMaxNotes && std::find(notes_.begin(), notes_.end(), message) == notes_.end()) {
    notes_.push_back(std::move(message));
  }
}

std::string ClosedLoop::what_is_crossed(const Reply& reply) {
  char id[kIdBytes];
  write_request_id(reply.tag, id);
  const std::string_view want(id, kIdBytes);
  if (reply.id != want)
    return "crossed: id: got \"" + std::string(reply.id) + "\", want \"" + std::string(want) + "\"";
  if (reply.dtype != options_.input.dtype) return "crossed: datatype: got " + std::string(reply.dtype);
  if (reply.shape != options_.input.shape) return "crossed: shape differs from the request's";
  if (reply.bytes.size() != payload_.size()) {
    return "crossed: bytes: got " + std::to_string(reply.bytes.size()) + ", want " +
           std::to_string(payload_.size());
  }
  if (!payload_.matches(reply.tag, reply.bytes))
    return "crossed: the bytes are not those of request " + std::string(want);
  return "";
}

JsonObject ClosedLoop::report() const {
  JsonObject out;
  const bool closed = closed_ns_ != 0;  // false: every connection broke inside the window
  const double window_s = closed ? static_cast<double>(closed_ns_ - opened_ns_) / 1e9 : 0;
  out.add("requests", requests_).add("errors", errors_).add("lost", lost_).add("crossed", crossed_);
  out.add("verified", verified_).add("window_s", window_s);
  out.add("qps", window_s > 0 ? static_cast<double>(requests_) / window_s : 0.0);
  latencies_.report(out);
  const bool any = closed && requests_ > 0;
  if (any && !server_cpu_.empty()) {
    out.add("server_cpu_us_per_request", per(server_cpu_ns_, requests_) / 1e3);
    out.add("server_cpu_cores", static_cast<double>(server_cpu_ns_) / 1e9 / window_s);
  } else {
    out.add_null("server_cpu_us_per_request").add_null("server_cpu_cores");
  }
  if (any) out.add("client_cpu_us_per_request", per(own_cpu_ns_, requests_) / 1e3);
  out.add("model", options_.model).add("bytes_in", static_cast<std::uint64_t>(payload_.size()));
  out.add("connections", options_.connections).add("in_flight", options_.in_flight);
  return out.add("notes", notes_);
}

}  // namespace fastserve::bench
