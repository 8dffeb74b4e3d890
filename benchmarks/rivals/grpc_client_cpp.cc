// The same closed loop as loadgen's, sent by the real gRPC C++ library (completion-queue API, one thread), so
// that no comparison rests on our own client alone.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/closed_loop.h"
#include "common/tool.h"
#include "inference.grpc.pb.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp =
    R"(grpc_client_cpp: closed-loop ModelInfer load by the gRPC C++ library; one channel per connection.

  grpc_client_cpp --grpc HOST:PORT [--tls-ca FILE] [options]

  --tls-ca FILE       speak TLS, trusting the authorities in this PEM file
)";
constexpr std::string_view kExamples = R"(
Examples
  grpc_client_cpp --grpc 127.0.0.1:8001 --connections 4 --seconds 5 --cpu 1 --server-pid $(pidof server)
)";

struct Call {
  inference::GRPCInferenceService::Stub* stub = nullptr;
  std::optional<grpc::ClientContext> context;  // good for one call only
  inference::ModelInferRequest request;
  inference::ModelInferResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<inference::ModelInferResponse>> reader;
  std::uint64_t tag = 0;
  std::int64_t started_ns = 0;
};

class Client {
 public:
  Client(const std::string& address, const std::string& tls_ca, const LoadOptions& options);
  bool run();
  JsonObject report() const { return loop_.report(); }

 private:
  void start(Call& call, std::uint64_t tag);
  void finish(Call& call);

  const LoadOptions& options_;
  ClosedLoop loop_;
  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<inference::GRPCInferenceService::Stub>> stubs_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<Call*> idle_;
};

std::shared_ptr<grpc::ChannelCredentials> credentials(const std::string& tls_ca) {
  if (tls_ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = read_file(tls_ca);
  return grpc::SslCredentials(options);
}

Client::Client(const std::string& address, const std::string& tls_ca, const LoadOptions& options)
    : options_(options), loop_(options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // each channel its own TCP connection
  arguments.SetMaxReceiveMessageSize(-1);
  for (int i = 0; i < options.connections; ++i) {
    const auto channel = grpc::CreateCustomChannel(address, credentials(tls_ca), arguments);
    if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
      throw std::runtime_error(address + ": no connection within 10 s");
    }
    stubs_.push_back(inference::GRPCInferenceService::NewStub(channel));
    for (int k = 0; k < options.in_flight; ++k) {
      auto call = std::make_unique<Call>();
      call->stub = stubs_.back().get();
      call->request.set_model_name(options.model);
      call->request.set_model_version(options.version);
      auto* input = call->request.add_inputs();
      input->set_name(options.input.name);
      input->set_datatype(options.input.dtype);
      for (const std::int64_t dim : options.input.shape) input->add_shape(dim);
      if (!options.output.empty()) call->request.add_outputs()->set_name(options.output);
      call->request.add_raw_input_contents()->resize(loop_.payload().size());
      loop_.payload().fill(0, call->request.mutable_raw_input_contents(0)->data());
      idle_.push_back(call.get());
      calls_.push_back(std::move(call));
    }
  }
}

void Client::start(Call& call, std::uint64_t tag) {
  call.tag = tag;
  if (options_.verify_echo) {
    call.request.mutable_id()->resize(kIdBytes);
    write_request_id(tag, call.request.mutable_id()->data());
    loop_.payload().fill(tag, call.request.mutable_raw_input_contents(0)->data());
  }
  call.context.emplace();
  call.started_ns = now_ns();
  call.reader = call.stub->AsyncModelInfer(&*call.context, call.request, &queue_);
  call.reader->Finish(&call.response, &call.status, &call);
}

void Client::finish(Call& call) {
  Reply reply;
  reply.tag = call.tag;
  reply.started_ns = call.started_ns;
  const std::string error = call.status.ok() ? ""
                                             : "grpc-status " + std::to_string(call.status.error_code()) +
                                                   ": " + call.status.error_message();
  reply.error = error;
  if (options_.verify_echo && call.status.ok()) {
    reply.id = call.response.id();
    if (call.response.outputs_size() > 0) {
      reply.dtype = call.response.outputs(0).datatype();
      reply.shape.assign(call.response.outputs(0).shape().begin(), call.response.outputs(0).shape().end());
    }
    if (call.response.raw_output_contents_size() > 0) reply.bytes = call.response.raw_output_contents(0);
  }
  loop_.finish(reply, now_ns());
  idle_.push_back(&call);
}

bool Client::run() {
  while (loop_.advance(now_ns())) {
    while (!idle_.empty()) {
      const auto tag = loop_.claim();
      if (!tag) break;
      Call* call = idle_.back();
      idle_.pop_back();
      start(*call, *tag);
    }
    void* done = nullptr;
    bool ok = false;
    const auto soon = std::chrono::system_clock::now() + std::chrono::milliseconds(20);
    if (queue_.AsyncNext(&done, &ok, soon) == grpc::CompletionQueue::GOT_EVENT)
      finish(*static_cast<Call*>(done));
  }
  return loop_.clean();
}

int run(int argc, char** argv) {
  Args args(argc, argv, std::string(kHelp) + "\n" + std::string(kLoadHelp) + std::string(kExamples));
  const std::string address = args.text("--grpc");
  const std::string tls_ca = args.text("--tls-ca");
  const LoadOptions options = LoadOptions::parse(args);
  args.finish();
  if (address.empty()) args.fail("want --grpc HOST:PORT (see --help)");
  if (!pin_to_cpu(options.cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(options.cpu));
  Client client(address, tls_ca, options);
  const bool clean = client.run();
  JsonObject out = client.report();
  std::printf("%s\n", out.add("protocol", "grpc").str().c_str());
  std::fflush(stdout);
  std::_Exit(clean ? 0 : 1);  // calls that --stall gave up on may still be out: do not wait for them
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
