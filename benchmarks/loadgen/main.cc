// Closed-loop load client: one thread, one epoll set, gRPC and REST connections side by side.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/closed_loop.h"
#include "common/process.h"
#include "common/tool.h"
#include "loadgen/connection_set.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp =
    R"(loadgen: closed-loop load on an Open Inference Protocol server, gRPC and REST binary.

  loadgen --grpc HOST:PORT [--rest HOST:PORT] [options]

Where
  --grpc HOST:PORT     send ModelInfer over gRPC
  --rest HOST:PORT     send POST /v2/models/NAME/infer with binary tensor data
  --mix                both at once: connections alternate between gRPC and REST
  --pipeline           REST: --in-flight requests per connection (otherwise 1: most servers want that)
  --json               REST: tensors as JSON text, FP32 only; cannot be verified
  --spin               poll instead of sleeping: lower client latency, a whole core
)";
constexpr std::string_view kExamples = R"(
Examples
  loadgen --grpc 127.0.0.1:8001 --connections 16 --seconds 5 --cpu 1 --server-pid $(pidof server)
  loadgen --grpc 127.0.0.1:8001 --rest 127.0.0.1:8000 --mix --connections 16 --in-flight 4 \
          --count 100000 --verify-echo --model identity_any --shape 1,16
  loadgen --rest 127.0.0.1:8000 --model resnet50 --input input --shape 1,3,224,224
)";

struct Target {
  std::string grpc, rest;
  bool mix = false, pipeline = false, spin = false, json = false;
};

class Client {
 public:
  Client(const Target& target, const LoadOptions& options)
      : target_(target), options_(options), loop_(options) {
    for (int i = 0; i < options.connections; ++i) {
      const bool rest = target.mix ? i % 2 == 1 : target.grpc.empty();
      connections_.add(connect(rest));
    }
  }

  bool run();
  JsonObject report() const { return loop_.report(); }

 private:
  std::unique_ptr<Connection> connect(bool rest) {
    const auto on_reply = [this](const Reply& reply) { loop_.finish(reply, now_ns()); };
    return rest ? make_rest_connection(target_.rest, options_, loop_.payload(),
                                       target_.json ? RestForm::kJson : RestForm::kBinary, target_.pipeline,
                                       on_reply)
                : make_grpc_connection(target_.grpc, options_, loop_.payload(), on_reply);
  }
  // Starts what may start and sends it; drops the connection if it broke.
  void serve(std::size_t index, bool readable);
  void drop(std::size_t index);

  const Target& target_;
  const LoadOptions& options_;
  ClosedLoop loop_;
  ConnectionSet connections_;
};

void Client::drop(std::size_t index) {
  Connection& connection = *connections_[index];
  loop_.lose(static_cast<std::uint64_t>(connection.in_flight()), connection.failure());
  connections_.drop(index);
}

void Client::serve(std::size_t index, bool readable) {
  if (connections_[index] == nullptr) return;
  Connection& connection = *connections_[index];
  bool alive = !readable || connection.receive();
  while (alive && connection.in_flight() < connection.capacity()) {
    const auto tag = loop_.claim();
    if (!tag) break;
    connection.submit(*tag);
  }
  if (!alive || !connections_.send(index)) drop(index);
}

bool Client::run() {
  loop_.advance(now_ns());  // without a warm-up the window opens before the first request
  for (std::size_t i = 0; i < connections_.size(); ++i) serve(i, false);
  bool starved = false;  // a phase ended: connections without a request in flight get no event
  while (loop_.advance(now_ns())) {
    if (starved) {
      for (std::size_t i = 0; i < connections_.size(); ++i) serve(i, false);
    }
    for (const epoll_event& event : connections_.wait(target_.spin ? 0 : 20)) serve(event.data.u64, true);
    starved = false;
    bool any = false;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      const Connection* connection = connections_[i];
      any = any || connection != nullptr;
      starved = starved || (connection != nullptr && connection->in_flight() < connection->capacity());
    }
    if (!any) break;
  }
  return loop_.clean();
}

int run(int argc, char** argv) {
  const std::string help = std::string(kHelp) + "\n" + std::string(kLoadHelp) + std::string(kExamples);
  Args args(argc, argv, help);
  Target target{args.text("--grpc"),     args.text("--rest"), args.flag("--mix"),
                args.flag("--pipeline"), args.flag("--spin"), args.flag("--json")};
  const LoadOptions options = LoadOptions::parse(args);
  args.finish();
  if (target.grpc.empty() && target.rest.empty()) args.fail("want --grpc or --rest (see --help)");
  if (target.mix && (target.grpc.empty() || target.rest.empty())) args.fail("--mix wants --grpc and --rest");
  if (!target.mix && !target.grpc.empty() && !target.rest.empty()) args.fail("--grpc and --rest want --mix");
  if (target.json && (options.verify_echo || options.input.dtype != "FP32")) {
    args.fail("--json wants FP32 and no --verify-echo");
  }
  if (!pin_to_cpu(options.cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(options.cpu));
  Client client(target, options);
  const bool clean = client.run();
  JsonObject out = client.report();
  out.add("protocol", target.mix ? "mix" : target.grpc.empty() ? "rest" : "grpc");
  std::printf("%s\n", out.str().c_str());
  return clean ? 0 : 1;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
