// gRPC over one HTTP/2 connection: ModelInfer goes straight to the engine, every other method becomes a cold call.
// Thread: the loop's.
#pragma once

#include "codec/http2_session.h"
#include "frontend/connection.h"

namespace fastserve {

class GrpcConnection final : public Connection, private Http2Events {
 public:
  GrpcConnection(IoLoop& loop, int fd, void* driver);
  ~GrpcConnection() override;

  void feed(std::span<const std::byte> bytes, Nanos now) override;
  void end_of_input() override { input_ended_ = true; }
  void deliver(Call& call, Nanos now) override;
  void shutdown() override { session_.shutdown(); }
  bool wants_input() const override { return !session_.blocked(); }

  // Cold calls.
  void send(Call& call, std::span<const std::byte> message);
  void finish(Call& call, Code code, std::string_view message,
              std::span<const std::pair<std::string, std::string>> trailers);

 private:
  void pump() override { session_.write(out_); }
  bool session_done() const override { return failed_ || input_ended_ || session_.want_close(); }
  bool gives_up() const override { return failed_; }

  void on_request(StreamId stream, const Http2Head& head) override;
  void on_data(StreamId stream, std::span<const std::byte> bytes) override;
  void on_end(StreamId stream) override;
  void on_closed(StreamId stream, Http2Error error) override;

  Call* call_of(StreamId stream) const { return static_cast<Call*>(session_.stream_data(stream)); }
  void begin_call(StreamId stream, const Http2Head& head);
  void infer(Call& call);
  void refuse(Call& call, const Status& status);
  void finish_with(Call& call, Code code, std::string_view message,
                   std::span<const std::pair<std::string, std::string>> trailers);

  Http2Session session_;
  Nanos now_ = 0;             // of the current feed
  bool failed_ = false;       // the session refused its peer
  bool input_ended_ = false;  // the peer closed its side: a gRPC client that does is gone
};

}  // namespace fastserve
