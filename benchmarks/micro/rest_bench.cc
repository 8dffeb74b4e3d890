// The REST codec on one core: decode + encode of a small binary request, JSON of an image, HTTP/1.1 framing; and simdjson's
// On Demand on the same JSON, the figure behind the reader of codec/json_reader.h.
#include <benchmark/benchmark.h>
#include <simdjson.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "codec/http1_session.h"
#include "codec/json_tensor.h"
#include "codec/json_writer.h"
#include "codec/rest_infer.h"

namespace fastserve {
namespace {

constexpr std::int64_t kImage = std::int64_t{3} * 224 * 224;

struct BenchVersion final : ServedVersion {
  using ServedVersion::ServedVersion;
};

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::vector<float> image() {
  std::mt19937 random(1);
  std::normal_distribution<float> pixel(0, 1);
  std::vector<float> out(kImage);
  for (float& f : out) f = pixel(random);
  return out;
}

// As a client writes it: numbers of floats (shortest, 1.4 MB), or of floats widened to double (Python's, 2.9 MB).
std::string image_json(bool widened) {
  ByteBuffer out;
  out.append(R"({"inputs":[{"name":"x","shape":[1,3,224,224],"datatype":"FP32","data":)");
  JsonWriter json(out);
  const std::vector<float> pixels = image();
  if (widened) {
    const std::vector<double> wide(pixels.begin(), pixels.end());
    json.elements(DType::kFp64, std::as_bytes(std::span(wide)));
  } else {
    json.elements(DType::kFp32, std::as_bytes(std::span(pixels)));
  }
  out.append("}]}");
  return std::string(out.view());
}

void clear(Request& request) {  // what Request::reset does for the codec's part
  request.inputs.clear();
  request.requested_outputs.clear();
  request.parameters.clear();
  request.scratch.reset();
}

// FP32 [1,16] in and out, binary, as tritonclient sends it.
void small_binary(benchmark::State& state) {
  const std::string json =
      R"({"id":"1234","inputs":[{"name":"x","shape":[1,16],"datatype":"FP32","parameters":{"binary_data_size":64}}],)"
      R"("outputs":[{"name":"y","parameters":{"binary_data":true}}]})";
  const std::string body = json + std::string(64, 'b');
  const std::string length = std::to_string(json.size());
  BenchVersion version("model", 1);
  version.signature.outputs.push_back({"y", DType::kFp32, {-1, 16}, false});
  Response response;
  response.outputs.push_back({0, DType::kFp32, {1, 16}, bytes_of(body).last(64)});
  Request request;
  OutMessage out;
  RestHead head;
  RestForm form;
  for (auto _ : state) {
    clear(request);
    if (!decode_rest_infer(bytes_of(body), length, request, form).is_ok()) state.SkipWithError("decode");
    if (!encode_rest_infer(response, version, request, out, head).is_ok()) state.SkipWithError("encode");
    benchmark::DoNotOptimize(out.own.data());
  }
}
BENCHMARK(small_binary);

void decode_image(benchmark::State& state) {
  const std::string body = image_json(state.range(0) != 0);
  Request request;
  RestForm form;
  for (auto _ : state) {
    clear(request);
    if (!decode_rest_infer(bytes_of(body), std::nullopt, request, form).is_ok())
      state.SkipWithError("decode");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(body.size()));
}
BENCHMARK(decode_image)->ArgName("widened")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void simdjson_image(benchmark::State& state) {
  const simdjson::padded_string body(image_json(state.range(0) != 0));
  std::vector<float> pixels(kImage);
  simdjson::ondemand::parser parser;
  for (auto _ : state) {
    auto document = parser.iterate(body);
    std::size_t i = 0;
    for (auto input : document["inputs"]) {
      for (auto value : input["data"]) pixels[i++] = static_cast<float>(value.get_double().value());
    }
    if (i != pixels.size()) state.SkipWithError("count");
    benchmark::DoNotOptimize(pixels.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(body.size()));
}
BENCHMARK(simdjson_image)->ArgName("widened")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void encode_image(benchmark::State& state) {
  const std::vector<float> pixels = image();
  BenchVersion version("model", 1);
  version.signature.outputs.push_back({"y", DType::kFp32, {-1, 3, 224, 224}, false});
  Response response;
  response.outputs.push_back({0, DType::kFp32, {1, 3, 224, 224}, std::as_bytes(std::span(pixels))});
  const Request request;
  OutMessage out;
  RestHead head;
  for (auto _ : state) {
    if (!encode_rest_infer(response, version, request, out, head).is_ok()) state.SkipWithError("encode");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(out.bytes()));
}
BENCHMARK(encode_image)->Unit(benchmark::kMillisecond);

class Echo final : public Http1Events {
 public:
  ByteBuffer* on_request(const Http1Head& head) override {
    benchmark::DoNotOptimize(head.header("inference-header-content-length"));
    body.clear();
    return &body;
  }
  void on_body(std::span<const std::byte>) override {}
  void on_end() override { session->respond(200, {}, body.view()); }
  void on_error(int, std::string_view) override { failed = true; }

  Http1Session* session = nullptr;
  ByteBuffer body;
  bool failed = false;
};

// Parse one POST of 300 bytes and write its answer: framing only.
void http1_echo(benchmark::State& state) {
  const std::string request =
      "POST /v2/models/model/infer HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: client/1.0\r\nAccept: "
      "*/*\r\n"
      "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: 170\r\nContent-Length: "
      "234\r\n\r\n" +
      std::string(234, 'b');
  Echo echo;
  Http1Session session(echo);
  echo.session = &session;
  WriteQueue queue;
  for (auto _ : state) {
    if (!session.feed(bytes_of(request), 0).is_ok() || echo.failed) state.SkipWithError("feed");
    session.write(queue);
    queue.consume(queue.bytes());
  }
}
BENCHMARK(http1_echo);

}  // namespace
}  // namespace fastserve
