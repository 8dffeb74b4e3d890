// One side of an HttpConnection: REST over HTTP/1.1 or over HTTP/2. It turns bytes into exchanges (rest_exchange.h) and
// their answers into bytes; the connection owns socket and calls. Thread: the loop's.
#pragma once

#include <cstddef>
#include <span>

#include "base/clock.h"
#include "codec/write_queue.h"
#include "frontend/call.h"
#include "frontend/rest_exchange.h"

namespace fastserve {

class HttpConnection;

class RestSession {
 public:
  RestSession(IoLoop& loop, HttpConnection& connection) : loop_(loop), connection_(connection) {}
  virtual ~RestSession() = default;
  RestSession(const RestSession&) = delete;
  RestSession& operator=(const RestSession&) = delete;

  virtual void feed(std::span<const std::byte> bytes, Nanos now) = 0;
  virtual void end_of_input() = 0;
  virtual void shutdown() = 0;       // drain
  virtual bool tick(Nanos now) = 0;  // see Connection
  virtual bool wants_input() const = 0;
  virtual void write(WriteQueue& out) = 0;
  virtual bool done() const = 0;  // nothing more will come
  virtual bool lingers() const { return false; }
  virtual bool gives_up() const { return false; }

  // Answers of an open exchange: `answer`, or begin, chunk*, end (or abort). Never for a call whose stream is closed.
  virtual void answer(Call& call, RestAnswer& answer, Nanos now) = 0;  // takes the body
  virtual void begin(Call& call, int status, RestFields headers) = 0;
  virtual void chunk(Call& call, std::span<const std::byte> piece) = 0;
  virtual void end(Call& call) = 0;
  virtual void abort(Call& call) = 0;

 protected:
  IoLoop& loop_;
  HttpConnection& connection_;
};

}  // namespace fastserve
