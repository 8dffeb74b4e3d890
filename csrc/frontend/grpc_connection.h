// gRPC over one HTTP/2 connection: ModelInfer goes straight to the engine, ModelStreamInfer is a GrpcStream whose requests do,
// every other method becomes a cold call.
// Thread: the loop's.
#pragma once

#include <memory>
#include <vector>

#include "codec/http2_session.h"
#include "frontend/connection.h"
#include "frontend/grpc_stream.h"

namespace fastserve {

class GrpcConnection final : public Connection, private Http2Events {
 public:
  GrpcConnection(IoLoop& loop, int fd, void* driver);
  ~GrpcConnection() override;

  void feed(std::span<const std::byte> bytes, Nanos now) override;
  void opened(Nanos now) override { opened_ = now_ = now; }
  void end_of_input() override { input_ended_ = true; }
  void deliver(Call& call, Nanos now) override;
  void shutdown() override;
  bool tick(Nanos now) override;  // deadlines of streams, and whether a silent peer is still there
  bool wants_input() const override { return !session_.blocked(); }

  // Cold calls.
  void send(Call& call, std::span<const std::byte> message);
  void finish(Call& call, Code code, std::string_view message,
              std::span<const std::pair<std::string, std::string>> trailers);
  void took_message(Call& call);

 private:
  friend class GrpcStream;

  void pump(WriteQueue& out) override;
  bool session_done() const override { return failed_ || input_ended_ || session_.want_close(); }
  bool gives_up() const override { return failed_; }

  void on_request(StreamId stream, const Http2Head& head) override;
  void on_data(StreamId stream, std::span<const std::byte> bytes) override;
  void on_end(StreamId stream) override;
  void on_closed(StreamId stream, Http2Error error) override;

  Call* call_of(StreamId stream) const { return static_cast<Call*>(session_.stream_data(stream)); }
  bool is_plain_infer(const Http2Head& head) const;
  Call& open_call(StreamId stream, CallKind kind);
  bool too_many_calls(Call& call);  // refuses it
  void begin_call(StreamId stream, const Http2Head& head);
  void begin_stream(Call& rpc, const Http2Head& head);
  void end_stream(Call& rpc);
  void begin_messages(Call& call);
  void on_cold_data(Call& call, std::span<const std::byte> bytes);
  void on_cold_end(Call& call);
  void infer(Call& call);
  // Decodes the message of `call` and gives it to the engine.
  Status submit(Call& call);
  Status unpack(GrpcDeframer& deframer, ByteBuffer& message);  // a compressed one
  Status classify(Call& call);
  void refuse(Call& call, const Status& status);
  void finish_with(Call& call, Code code, std::string_view message,
                   std::span<const std::pair<std::string, std::string>> trailers,
                   std::uint16_t retry_after_s = 0);

  // Response headers, before the first message of a call.
  std::span<const Http2Header> answer_head(const Call& call);

  // --- for GrpcStream
  Call& new_stream_call(GrpcStream& stream);
  void mark_work(GrpcStream& stream);
  // One message of `rpc`, encoded from the response of `source`.
  void send_framed(Call& rpc, Call& source, OutMessage& message);

  std::vector<std::unique_ptr<GrpcStream>>
      streams_;  // these three outlive the session, which reports their end
  std::vector<GrpcStream*> with_work_;
  std::size_t stream_calls_ = 0;  // of calls_, those that are requests of open streams
  Http2Session session_;
  ByteBuffer unpacked_;       // where messages are decompressed to
  bool announced_ = false;    // the client knows which encodings we take
  bool plain_infer_ = false;  // what the last request's head asks for, see is_plain_infer
  Nanos now_ = 0;             // of the current feed, which is the last sign of life
  Nanos opened_ = 0;
  Nanos pinged_ = 0;          // when we asked for one; 0: not since the last
  bool failed_ = false;       // the session refused its peer
  bool input_ended_ = false;  // the peer closed its side: a gRPC client that does is gone
};

}  // namespace fastserve
