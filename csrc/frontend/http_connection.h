// REST on one connection: HTTP/1.1, or HTTP/2 when the client starts with its connection preface (RFC 9113 section 3.4:
// prior knowledge; behind TLS a client that agreed on "h2" by ALPN starts with the same bytes). Thread: the loop's.
#pragma once

#include <memory>

#include "frontend/connection.h"
#include "frontend/rest_session.h"

namespace fastserve {

class HttpConnection final : public Connection {
 public:
  HttpConnection(IoLoop& loop, int fd, void* driver);
  ~HttpConnection() override;

  void feed(std::span<const std::byte> bytes, Nanos now) override;
  void opened(Nanos now) override { session_->feed({}, now); }
  void end_of_input() override;
  void deliver(Call& call, Nanos now) override;
  void shutdown() override { session_->shutdown(); }
  bool tick(Nanos now) override;
  bool wants_input() const override { return session_->wants_input(); }

  // Cold calls.
  void respond(Call& call, int status, RestFields headers, std::span<const std::byte> body);
  void begin(Call& call, int status, RestFields headers) { session_->begin(call, status, headers); }
  void chunk(Call& call, std::span<const std::byte> piece) { session_->chunk(call, piece); }
  void end(Call& call) { session_->end(call); }
  void abort(Call& call) { session_->abort(call); }

  // --- for its session
  std::span<Call* const> calls() const { return calls_; }
  // Nobody waits any more: what has not started never runs, and gives its place in the queue back.
  void cancel_inferences();

 private:
  void pump(WriteQueue& out) override { session_->write(out); }
  bool session_done() const override { return session_->done(); }
  bool gives_up() const override { return session_->gives_up(); }
  bool session_lingers() const override { return session_->lingers(); }
  void settle_for_http1(Nanos now);

  std::unique_ptr<RestSession> session_;  // HTTP/1.1 until the preface was seen whole
  bool decided_ = false;
  std::size_t preface_bytes_ = 0;  // so many came, and nothing else: held back until it is decided
  Nanos first_byte_at_ = 0;
};

}  // namespace fastserve
