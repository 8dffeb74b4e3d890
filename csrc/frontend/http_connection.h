// HTTP/1.1 on one connection: POST .../infer goes straight to the engine, every other route becomes a cold call.
// One request at a time (the session holds pipelined ones). Thread: the loop's.
#pragma once

#include "codec/http1_session.h"
#include "frontend/connection.h"

namespace fastserve {

class HttpConnection final : public Connection, private Http1Events {
 public:
  HttpConnection(IoLoop& loop, int fd, void* driver);
  ~HttpConnection() override;

  void feed(std::span<const std::byte> bytes, Nanos now) override;
  void opened(Nanos now) override;
  void end_of_input() override {
    lingers_ = false;
    session_.end_of_input();
  }
  bool lingers() const override { return lingers_; }
  void deliver(Call& call, Nanos now) override;
  void shutdown() override { session_.close_after_response(); }
  void tick(Nanos now) override { session_.expire(now); }
  bool wants_input() const override { return session_.wants_input(); }

  // Cold calls.
  using Fields = std::span<const std::pair<std::string, std::string>>;
  void respond(Call& call, int status, Fields headers, std::span<const std::byte> body);
  void begin(int status, Fields headers);
  void chunk(std::span<const std::byte> piece) { session_.respond_chunk(piece); }
  void end(Call& call);
  void abort(Call& call);

 private:
  void pump() override { session_.write(out_); }
  bool session_done() const override { return session_.want_close(); }

  ByteBuffer* on_request(const Http1Head& head) override;
  void on_body(std::span<const std::byte>) override {}
  void on_end() override;
  void on_error(int http_status, std::string_view reason) override;

  Status decode(Call& call);
  void refuse(Call& call, int http_status, std::string_view message);
  void closed(Call& call);  // the request was answered, or will never be

  Http1Session session_;
  Call* current_ = nullptr;
  Nanos now_ = 0;
  bool lingers_ = false;
  bool parsing_ = false;  // inside feed or resume: the session goes on by itself
};

}  // namespace fastserve
