// The rival of `mlp`: a gRPC C++ callback server that runs one OpenVINO inference for each request, on the thread that read it.
// No queue, no batching, one infer request per thread: what a team would write in a day.
#include <grpcpp/grpcpp.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <openvino/openvino.hpp>
#include <string>

#include "common/args.h"
#include "common/process.h"
#include "inference.grpc.pb.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp =
    R"(grpc_openvino_server: one OpenVINO inference per request on the gRPC C++ callback API.

  grpc_openvino_server --model FILE [--address 127.0.0.1:0] [--ready-file PATH]

One FP32 input and output, [1, ...] in raw_input_contents. FP32 precision, one stream, one thread.
Ends on SIGTERM or SIGINT.
)";

class OneByOne final : public inference::GRPCInferenceService::CallbackService {
 public:
  explicit OneByOne(const std::string& path) {
    std::shared_ptr<ov::Model> model = core_.read_model(path);
    ov::PartialShape shape = model->input().get_partial_shape();
    shape[0] = 1;
    model->reshape(shape);
    compiled_ = core_.compile_model(
        model, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::hint::inference_precision(ov::element::f32), ov::num_streams(1), ov::inference_num_threads(1));
    output_ = compiled_.output().get_any_name();
  }

 private:
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(answer(*request, *response));
    return reactor;
  }

  grpc::Status answer(const inference::ModelInferRequest& request, inference::ModelInferResponse& response) {
    static thread_local ov::InferRequest mine;
    if (!mine) mine = compiled_.create_infer_request();
    ov::Tensor input = mine.get_input_tensor();
    if (request.raw_input_contents_size() != 1 ||
        request.raw_input_contents(0).size() != input.get_byte_size()) {
      return {grpc::StatusCode::INVALID_ARGUMENT,
              "want one input of " + std::to_string(input.get_byte_size()) + " bytes"};
    }
    std::memcpy(input.data(), request.raw_input_contents(0).data(), input.get_byte_size());
    mine.infer();
    const ov::Tensor result = mine.get_output_tensor();
    response.set_model_name(request.model_name());
    response.set_model_version("1");
    response.set_id(request.id());
    auto* output = response.add_outputs();
    output->set_name(output_);
    output->set_datatype("FP32");
    for (const std::size_t dim : result.get_shape()) output->add_shape(static_cast<std::int64_t>(dim));
    response.add_raw_output_contents(result.data(), result.get_byte_size());
    return grpc::Status::OK;
  }

  ov::Core core_;
  ov::CompiledModel compiled_;
  std::string output_;
};

// Other processes wait for the file, so it appears whole.
bool write_ready_file(const std::string& path, int port) {
  const std::string part = path + ".part";
  std::FILE* file = std::fopen(part.c_str(), "w");
  if (file == nullptr) return false;
  std::fprintf(file, "{\"grpc\": \"127.0.0.1:%d\"}\n", port);
  std::fclose(file);
  return std::rename(part.c_str(), path.c_str()) == 0;
}

int run(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const std::string model = args.text("--model");
  const std::string address = args.text("--address", "127.0.0.1:0");
  const std::string ready_file = args.text("--ready-file");
  args.finish();
  if (model.empty()) args.fail("want --model (see --help)");

  sigset_t stop;  // blocked before any library starts threads, so that only sigwait() sees them
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);

  OneByOne service(model);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) args.fail("cannot listen on " + address);
  if (!ready_file.empty() && !write_ready_file(ready_file, port)) args.fail("cannot write " + ready_file);
  int signal = 0;
  sigwait(&stop, &signal);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
  return 0;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) {
  try {
    return fastserve::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "grpc_openvino_server: %s\n", error.what());
    return 2;
  }
}
