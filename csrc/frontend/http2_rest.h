// REST over HTTP/2 (RFC 9113): every stream is an exchange, as many at a time as a gRPC connection may have calls.
// Thread: the loop's.
#pragma once

#include "codec/http2_session.h"
#include "frontend/rest_session.h"

namespace fastserve {

class Http2Rest final : public RestSession, private Http2Events {
 public:
  Http2Rest(IoLoop& loop, HttpConnection& connection);
  ~Http2Rest() override;

  void feed(std::span<const std::byte> bytes, Nanos now) override;
  void end_of_input() override { input_ended_ = true; }  // a client that closes its side is gone
  void shutdown() override { session_.shutdown(); }
  bool tick(Nanos now) override;
  bool wants_input() const override { return !session_.blocked(); }
  void write(WriteQueue& out) override { session_.write(out); }
  bool done() const override { return failed_ || input_ended_ || session_.want_close(); }
  bool gives_up() const override { return failed_; }

  void answer(Call& call, RestAnswer& answer, Nanos now) override;
  void begin(Call& call, int status, RestFields headers) override;
  void chunk(Call& call, std::span<const std::byte> piece) override;
  void end(Call& call) override;
  void abort(Call& call) override;

 private:
  void on_request(StreamId stream, const Http2Head& head) override;
  void on_data(StreamId stream, std::span<const std::byte> bytes) override;
  void on_end(StreamId stream) override;
  void on_closed(StreamId stream, Http2Error error) override;

  Call* call_of(StreamId stream) const { return static_cast<Call*>(session_.stream_data(stream)); }
  RestVerdict check_head(const Http2Head& head) const;
  void refuse(Call& call, const RestRefusal& why);
  void copy_head(const Http2Head& head, Call& call);

  Http2Session session_;
  Nanos now_ = 0;  // of the last feed
  bool failed_ = false;
  bool input_ended_ = false;
};

}  // namespace fastserve
