// Open-loop load client over gRPC and REST: Poisson arrivals in phases, deadlines, two priorities. One thread, one epoll set.
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/closed_loop.h"
#include "common/open_loop.h"
#include "common/process.h"
#include "common/tool.h"
#include "common/version_check.h"
#include "loadgen/connection_set.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp =
    R"(open_load: open-loop load on an Open Inference Protocol server over gRPC.

  open_load --grpc HOST:PORT [--rest HOST:PORT] --phases RATE:SECONDS,... [options]

  --rest HOST:PORT     every other connection sends POST /v2/models/NAME/infer with binary tensor data, pipelined
  --verify-version     the first output begins with the number of the version (FP32): replies have to say the same, and to come
                       from no older version than the newest that had answered when the request was sent
  --phases R:S,...     R requests/s (Poisson) for S seconds, then the next, without a gap
  --high-share X       share of the requests sent with priority 1, the others with 2 [0: no priorities]
  --good-ms MS         an answer within so long of its due time is goodput [50]
  --deadline-ms MS     sent as grpc-timeout [none]
  Latencies count from the time at which a request was due, not from when it was sent.
  --connections N      in all [16]. More than N x --in-flight outstanding requests wait in the client, and their time counts

Output: one line of JSON, {"phases": [{offered, good, late, refused, expired, failed, ok: {p99_us}, refusals: {p99_us}, ...}]}.
--warmup, --seconds, --count and --verify-echo have no meaning here.
)";

class Client {
 public:
  Client(const std::string& address, const std::string& rest, const LoadOptions& options,
         const OpenLoopOptions& shape)
      : low_(options),
        high_(options),
        loop_(shape, options.server_pids),
        payload_(options.input, options.seed) {
    if (shape.high_share > 0) {
      low_.priority = 2;
      high_.priority = 1;
    }
    for (int i = 0; i < options.connections; ++i) {
      const bool high = shape.high_share > 0 && i % 2 == 1;
      const auto on_reply = [this](const Reply& reply) { finish(reply, now_ns()); };
      const LoadOptions& own = high ? high_ : low_;
      connections_.add(!rest.empty() && i % 2 == 1
                           ? make_rest_connection(rest, own, payload_, RestForm::kBinary, true, on_reply)
                           : make_grpc_connection(address, own, payload_, on_reply));
      lanes_[high ? 1 : 0].members.push_back(static_cast<std::size_t>(i));
    }
    dirty_.resize(connections_.size());
    connections_.watch(timer_, kTimer);
  }
  ~Client() { close(timer_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // False: a connection broke, or the server left requests without an answer.
  bool run(double stall_s);
  std::string report() const {
    JsonObject checked;
    checked.add("wrong_versions", check_.wrong());
    checked.add("versions", static_cast<std::uint64_t>(check_.versions()));
    std::string text = checked.str();
    text.back() = ',';
    return text + " " + loop_.report().substr(1);
  }

 private:
  void finish(const Reply& reply, std::int64_t now) {
    const std::string fault =
        low_.read_replies && reply.error.empty() ? check_.fault(reply, now) : std::string(reply.error);
    loop_.finish(reply.tag, fault, now);
  }
  static constexpr std::uint64_t kTimer = UINT64_MAX;
  struct Lane {  // the connections of one priority
    std::vector<std::size_t> members;
    std::deque<std::uint64_t> waiting;  // due, and no connection had room
    std::size_t turn = 0;
  };

  void submit_due(std::int64_t now);
  void submit(Lane& lane);
  void arm();
  // False: the connection is over, and stderr says why.
  bool receive(std::size_t index);
  bool send(std::size_t index);

  LoadOptions low_, high_;
  OpenLoop loop_;
  VersionCheck check_;
  Payload payload_;
  int timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  ConnectionSet connections_;
  std::vector<char> dirty_;  // per connection: something was submitted since the last send
  Lane lanes_[2];
};

void Client::submit_due(std::int64_t now) {
  for (const OpenLoop::Arrival* next = loop_.next(); next != nullptr && next->due_ns <= now;
       next = loop_.next()) {
    Lane& lane = lanes_[next->high && !lanes_[1].members.empty() ? 1 : 0];
    lane.waiting.push_back(loop_.pop());
  }
  for (Lane& lane : lanes_) submit(lane);
}

// Round robin over the lane's connections, as far as they have room.
void Client::submit(Lane& lane) {
  std::size_t full = 0;
  while (!lane.waiting.empty() && full < lane.members.size()) {
    const std::size_t index = lane.members[lane.turn++ % lane.members.size()];
    Connection& connection = *connections_[index];
    if (connection.in_flight() >= connection.capacity()) {
      ++full;
      continue;
    }
    full = 0;
    connection.submit(lane.waiting.front());
    lane.waiting.pop_front();
    dirty_[index] = 1;
  }
}

void Client::arm() {
  const OpenLoop::Arrival* next = loop_.next();
  const std::int64_t at = next != nullptr ? next->due_ns : loop_.ends_ns();
  if (next == nullptr && at <= now_ns()) return;  // nothing but answers to wait for
  itimerspec spec{};
  spec.it_value = {static_cast<time_t>(at / 1'000'000'000), static_cast<long>(at % 1'000'000'000)};
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &spec, nullptr);
}

bool Client::receive(std::size_t index) {
  if (connections_[index]->receive()) return true;
  std::fprintf(stderr, "open_load: %s\n", connections_[index]->failure().c_str());
  return false;
}

bool Client::send(std::size_t index) {
  dirty_[index] = 0;
  if (connections_.send(index)) return true;
  std::fprintf(stderr, "open_load: %s\n", connections_[index]->failure().c_str());
  return false;
}

bool Client::run(double stall_s) {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (!send(i)) return false;  // the prefaces, so that the first request pays for none
  }
  loop_.start(now_ns() + 100'000'000);
  std::int64_t last_ns = now_ns();
  while (!loop_.done() || now_ns() < loop_.ends_ns()) {
    submit_due(now_ns());
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (dirty_[i] != 0 && !send(i)) return false;
    }
    arm();
    for (const epoll_event& event : connections_.wait(1000)) {
      const std::uint64_t index = event.data.u64;
      if (index == kTimer) {
        std::uint64_t times = 0;
        [[maybe_unused]] const ssize_t got = ::read(timer_, &times, sizeof(times));
        continue;
      }
      last_ns = now_ns();
      if (!receive(index) || !send(index)) return false;
    }
    loop_.note_cpu(now_ns());
    if (loop_.next() != nullptr)
      last_ns = now_ns();  // it is time to give up only when nothing is due any more
    if (static_cast<double>(now_ns() - last_ns) > stall_s * 1e9) return false;
  }
  loop_.note_cpu(now_ns());
  return true;
}

std::vector<LoadPhase> parse_phases(const std::string& text, const Args& args) {
  std::vector<LoadPhase> phases;
  for (const char* at = text.c_str();; ++at) {
    LoadPhase phase{};
    int read = 0;
    if (std::sscanf(at, "%lf:%lf%n", &phase.per_s, &phase.seconds, &read) != 2 || phase.per_s <= 0 ||
        phase.seconds <= 0) {
      args.fail("--phases: got " + text + ", want RATE:SECONDS,... such as 400:2,1000:3");
    }
    phases.push_back(phase);
    at += read;
    if (*at == '\0') return phases;
    if (*at != ',') args.fail("--phases: got " + text + ", want RATE:SECONDS,... such as 400:2,1000:3");
  }
}

int run(int argc, char** argv) {
  const std::string help = std::string(kHelp) + "\n" + std::string(kLoadHelp);
  Args args(argc, argv, help);
  const std::string address = args.text("--grpc");
  const std::string rest = args.text("--rest");
  const bool verify_version = args.flag("--verify-version");
  OpenLoopOptions shape;
  shape.phases = parse_phases(args.text("--phases"), args);
  shape.high_share = args.real("--high-share", 0, 0, 1);
  shape.good_ms = args.real("--good-ms", 50, 0.01, 1e6);
  LoadOptions options = LoadOptions::parse(args);
  args.finish();
  options.read_replies = verify_version;
  shape.seed = options.seed;
  if (address.empty()) args.fail("want --grpc (see --help)");
  if (shape.high_share > 0 && options.connections < 2)
    args.fail("--high-share wants --connections of 2 and more");
  if (!pin_to_cpu(options.cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(options.cpu));
  if (shape.high_share > 0 && !rest.empty()) args.fail("--high-share wants no --rest");
  Client client(address, rest, options, shape);
  const bool clean = client.run(options.stall_s);
  std::printf("%s\n", client.report().c_str());
  return clean ? 0 : 1;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
