// The rival: an identity ModelInfer on gRPC C++'s callback API, as its documentation shows it. It answers on
// the thread that read the request: no queue, no validation, no hand-off, which is the least a gRPC C++ server
// can do.
#include <memory>
#include <string>

#include "common/args.h"
#include "common/grpc_serving.h"
#include "common/process.h"
#include "common/tool.h"
#include "inference.grpc.pb.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp = R"(grpc_callback_server: identity ModelInfer on the gRPC C++ callback API.

  grpc_callback_server [--address 127.0.0.1:0] [--ready-file PATH] [--cpu N] [--tls-cert FILE --tls-key FILE]

  --ready-file PATH    written when the server listens: {"grpc": "127.0.0.1:PORT"}
Ends on SIGTERM or SIGINT.
)";

class Identity final : public inference::GRPCInferenceService::CallbackService {
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (request->inputs_size() != request->raw_input_contents_size()) {
      reactor->Finish({grpc::StatusCode::INVALID_ARGUMENT, "want one raw_input_contents per input"});
      return reactor;
    }
    response->set_model_name(request->model_name());
    response->set_model_version("1");
    response->set_id(request->id());
    for (int i = 0; i < request->inputs_size(); ++i) {
      auto* output = response->add_outputs();
      output->set_name("OUTPUT" + std::to_string(i));
      output->set_datatype(request->inputs(i).datatype());
      *output->mutable_shape() = request->inputs(i).shape();
      response->add_raw_output_contents(request->raw_input_contents(i));
    }
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::shared_ptr<grpc::ServerCredentials> credentials(const std::string& cert, const std::string& key) {
  if (cert.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({read_file(key), read_file(cert)});
  return grpc::SslServerCredentials(options);
}

int run(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const std::string address = args.text("--address", "127.0.0.1:0");
  const std::string ready_file = args.text("--ready-file");
  const std::string tls_cert = args.text("--tls-cert");
  const std::string tls_key = args.text("--tls-key");
  const int cpu = static_cast<int>(args.integer("--cpu", -1, -1, 1023));
  args.finish();
  if (!pin_to_cpu(cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(cpu));

  const StopSignals stop;
  Identity service;
  serve_grpc(service, address, credentials(tls_cert, tls_key), ready_file, stop);
  return 0;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
