// The rival of `mlp`: a gRPC C++ callback server that runs one OpenVINO inference for each request, on the thread that read it.
// No queue, no batching, one infer request per thread: what a team would write in a day.
#include <cstring>
#include <openvino/openvino.hpp>
#include <string>

#include "common/args.h"
#include "common/grpc_serving.h"
#include "common/openvino_model.h"
#include "common/tool.h"
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
    compiled_ = core_.compile_model(read_with_batch(core_, path, 1), "CPU",
                                    ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                    ov::hint::inference_precision(ov::element::f32), ov::num_streams(1),
                                    ov::inference_num_threads(1));
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

int run(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const std::string model = args.text("--model");
  const std::string address = args.text("--address", "127.0.0.1:0");
  const std::string ready_file = args.text("--ready-file");
  args.finish();
  if (model.empty()) args.fail("want --model (see --help)");

  const StopSignals stop;
  OneByOne service(model);
  serve_grpc(service, address, grpc::InsecureServerCredentials(), ready_file, stop);
  return 0;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
