// REST over HTTP/1.1: one exchange at a time (the codec holds pipelined requests). Thread: the loop's.
#pragma once

#include "codec/http1_session.h"
#include "frontend/rest_session.h"

namespace fastserve {

class Http1Rest final : public RestSession, private Http1Events {
 public:
  Http1Rest(IoLoop& loop, HttpConnection& connection);

  void feed(std::span<const std::byte> bytes, Nanos now) override;
  void end_of_input() override;
  void shutdown() override { session_.close_after_response(); }
  bool tick(Nanos now) override { return session_.expire(now); }
  bool wants_input() const override { return session_.wants_input(); }
  void write(WriteQueue& out) override;
  bool done() const override { return session_.want_close(); }
  bool lingers() const override { return lingers_; }

  void answer(Call& call, RestAnswer& answer, Nanos now) override;
  void begin(Call& call, int status, RestFields headers) override;
  void chunk(Call&, std::span<const std::byte> piece) override { session_.respond_chunk(piece); }
  void end(Call& call) override;
  void abort(Call& call) override;

 private:
  ByteBuffer* on_request(const Http1Head& head) override;
  void on_body(std::span<const std::byte>) override {}
  void on_end() override;
  void on_error(int http_status, std::string_view reason) override;

  void refuse(Call& call, const RestRefusal& why);
  void closed(Call& call);  // the request was answered, or will never be
  void resume(Nanos now);   // the next pipelined request

  Http1Session session_;
  Call* current_ = nullptr;
  Nanos now_ = 0;
  bool lingers_ = false;
  bool parsing_ = false;  // inside feed or resume: the session goes on by itself
};

}  // namespace fastserve
