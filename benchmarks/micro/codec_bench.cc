// What the codec costs per gRPC request: HTTP/2 session, deframing, decoding, encoding, framing the answer. No sockets and no
// engine: the answer is the request's own input. The client (nghttp2) works outside the timing, which is this thread's CPU time.
//   unary/<bytes>/<requests per feed>   the whole way, one ModelInfer with one raw input of that size
//   decode, encode                      the protobuf part of it alone
#include <benchmark/benchmark.h>
#include <nghttp2/nghttp2.h>
#include <time.h>

#include <array>
#include <cstdint>
#include <memory>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <vector>

#include "codec/grpc_framing.h"
#include "codec/http2_session.h"
#include "codec/oip_infer.h"

namespace fastserve {
namespace {

std::span<const std::byte> span_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string infer_request(std::size_t tensor_bytes) {
  std::string out;
  protozero::pbf_writer request(out);
  request.add_string(1, "identity");
  request.add_string(3, "42");
  std::string input;
  protozero::pbf_writer tensor(input);
  tensor.add_string(1, "x");
  tensor.add_string(2, "FP32");
  const std::array<std::int64_t, 2> shape = {1, static_cast<std::int64_t>(tensor_bytes / 4)};
  tensor.add_packed_int64(3, shape.begin(), shape.end());
  request.add_message(5, input);
  request.add_bytes(7, std::string(tensor_bytes, 'x'));
  return out;
}

class Version : public ServedVersion {
 public:
  Version() : ServedVersion("identity", 1) {
    signature.outputs.push_back({"y", DType::kFp32, Shape{-1, -1}, false});
  }
};

// The front end's part, as thin as it can be.
struct Call {
  Request request;
  Response response;
  GrpcDeframer deframer;
};

class Identity : public Http2Events {
 public:
  Http2Session* session = nullptr;
  std::size_t answered = 0;

  void on_request(StreamId id, const Http2Head& head) override {
    if (head.path != "/inference.GRPCInferenceService/ModelInfer" ||
        !is_grpc_content_type(head.find("content-type"))) {
      return session->reset(id, Http2Error::kCancel);
    }
    benchmark::DoNotOptimize(parse_grpc_timeout(head.find("grpc-timeout")));
    if (free_.empty()) free_.push_back(std::make_unique<Call>());
    session->set_stream_data(id, free_.back().release());
    free_.pop_back();
  }
  void on_data(StreamId id, std::span<const std::byte> bytes) override {
    Call& call = *static_cast<Call*>(session->stream_data(id));
    if (!call.deframer.feed_unary(bytes, call.request.message)) std::abort();
  }
  void on_end(StreamId id) override {
    auto call =
        std::shared_ptr<Call>(static_cast<Call*>(session->stream_data(id)), [this](Call* c) { recycle(c); });
    session->set_stream_data(id, nullptr);
    if (!call->deframer.finish_unary() || !decode_model_infer(call->request.message.span(), call->request))
      std::abort();
    const TensorView& x = call->request.inputs.front();
    call->response.outputs.push_back({0, x.dtype, x.shape, x.data});
    if (!encode_model_infer(call->response, version_, call->request, out_)) std::abort();
    if (out_.needs_keep()) out_.keep = call;
    session->respond(id, kGrpcOkHeaders, std::move(out_), kGrpcOkTrailers);
    ++answered;
  }
  void on_closed(StreamId, Http2Error) override {}

 private:
  void recycle(Call* call) {
    call->request.reset();
    call->response.release();
    call->deframer.reset();
    free_.emplace_back(call);
  }
  Version version_;
  OutMessage out_;
  std::vector<std::unique_ptr<Call>> free_;
};

class Client {
 public:
  Client() {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 24};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 1 << 28);
  }
  ~Client() { nghttp2_session_del(session_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void request(const std::string& body) {
    const auto nv = [](std::string_view n, std::string_view v) {
      const auto b = [](std::string_view s) {
        return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(s.data()));
      };
      return nghttp2_nv{b(n), b(v), n.size(), v.size(), NGHTTP2_NV_FLAG_NONE};
    };
    const nghttp2_nv headers[] = {nv(":method", "POST"),
                                  nv(":scheme", "http"),
                                  nv(":path", "/inference.GRPCInferenceService/ModelInfer"),
                                  nv(":authority", "localhost:8001"),
                                  nv("te", "trailers"),
                                  nv("content-type", "application/grpc"),
                                  nv("user-agent", "grpc-bench/1.0"),
                                  nv("grpc-accept-encoding", "identity, deflate, gzip")};
    body_ = &body;
    at_ = 0;
    const nghttp2_data_provider provider{
        {.ptr = this},
        [](nghttp2_session*, std::int32_t, std::uint8_t* to, std::size_t size, std::uint32_t* flags,
           nghttp2_data_source*, void* user) {
          auto& self = *static_cast<Client*>(user);
          const std::size_t n = std::min(size, self.body_->size() - self.at_);
          std::copy_n(self.body_->data() + self.at_, n, to);
          self.at_ += n;
          if (self.at_ == self.body_->size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
          return static_cast<ssize_t>(n);
        }};
    nghttp2_submit_request(session_, nullptr, headers, std::size(headers), &provider, nullptr);
  }
  void take(std::string& out) {
    const std::uint8_t* data = nullptr;
    for (ssize_t n = 0; (n = nghttp2_session_mem_send(session_, &data)) > 0;) {
      out.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(n));
    }
  }
  void feed(const std::string& bytes) {
    if (nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                 bytes.size()) < 0)
      std::abort();
  }

 private:
  nghttp2_session* session_ = nullptr;
  const std::string* body_ = nullptr;
  std::size_t at_ = 0;
};

// This thread's CPU time: neighbours on the machine do not count.
Nanos cpu_now() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + t.tv_nsec;
}

// As a socket would: every byte is read once by somebody else.
void flush(Http2Session& session, WriteQueue& queue, std::string& out) {
  std::array<iovec, 64> iov;
  do {
    session.write(queue);
    while (!queue.empty()) {
      std::size_t n = 0;
      for (const iovec& v : std::span(iov).first(queue.gather(iov))) {
        out.append(static_cast<const char*>(v.iov_base), v.iov_len);
        n += v.iov_len;
      }
      queue.consume(n);
    }
  } while (session.blocked());
}

void unary(benchmark::State& state) {
  const auto tensor_bytes = static_cast<std::size_t>(state.range(0));
  const auto per_feed = static_cast<std::size_t>(state.range(1));
  const std::string message = infer_request(tensor_bytes);
  std::string body(kGrpcPrefixBytes, '\0');
  write_grpc_prefix(reinterpret_cast<std::byte*>(body.data()), message.size());
  body += message;

  Identity events;
  Http2Session session(events);
  events.session = &session;
  Client client;
  WriteQueue queue;
  std::string up;
  std::string down;
  for (int i = 0; i < 3; ++i) {  // SETTINGS both ways
    client.take(up);
    if (!session.feed(span_of(up), 0)) std::abort();
    up.clear();
    flush(session, queue, down);
    client.feed(down);
    down.clear();
  }
  const std::size_t feeds =
      std::max<std::size_t>(1, std::min<std::size_t>(64, (std::size_t{1} << 20) / body.size()) / per_feed);
  std::vector<std::string> wire(feeds);
  Nanos now = 0;
  for (auto _ : state) {
    for (std::string& w : wire) {
      w.clear();
      for (std::size_t i = 0; i < per_feed; ++i) client.request(body), client.take(w);
    }
    const Nanos start = cpu_now();
    for (const std::string& w : wire) {
      if (!session.feed(span_of(w), now)) std::abort();
      flush(session, queue, down);
    }
    state.SetIterationTime(static_cast<double>(cpu_now() - start) * 1e-9);
    now += kMillisecond;
    client.feed(down);
    down.clear();
  }
  const auto requests = static_cast<double>(events.answered);
  if (events.answered != static_cast<std::size_t>(state.iterations()) * feeds * per_feed)
    state.SkipWithError("lost requests");
  state.counters["per_request"] =
      benchmark::Counter(requests, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(unary)
    ->Args({64, 1})
    ->Args({64, 16})
    ->Args({4096, 1})
    ->Args({4096, 16})
    ->Args({602112, 1})
    ->UseManualTime();

void decode(benchmark::State& state) {
  const std::string message = infer_request(64);
  Request request;
  for (auto _ : state) {
    request.reset();
    if (!decode_model_infer(span_of(message), request)) std::abort();
    benchmark::DoNotOptimize(request.inputs.data());
  }
}
BENCHMARK(decode);

void encode(benchmark::State& state) {
  const std::string data(64, 'x');
  const Version version;
  Request request;
  request.id = "42";
  Response response;
  response.outputs.push_back({0, DType::kFp32, Shape{1, 16}, span_of(data)});
  OutMessage out;
  for (auto _ : state) {
    if (!encode_model_infer(response, version, request, out)) std::abort();
    benchmark::DoNotOptimize(out.own.data());
  }
}
BENCHMARK(encode);

}  // namespace
}  // namespace fastserve
