// The server's side of one HTTP/1.1 (and 1.0) connection: bytes in, events out, response bytes into a WriteQueue. No I/O.
// RFC 9112 (syntax, framing) and RFC 9110 (semantics) over llhttp in strict mode, no lenient flag set.
//
// One request at a time: while a request is open (its on_request was called and its response is not complete), what the
// client sent behind it is held unparsed, so that responses leave in the order of the requests. The driver stops reading
// the socket while wants_input() is false; that bounds what is held.
//
// Errors in framing (RFC 9112, limits) are answered by the session itself, `{"error":"..."}` and Connection: close, then
// reported with on_error; nothing more is parsed. A 4xx that the front end gives to a well-framed request keeps the
// connection.
//
// Thread: one. Events are called from feed(), resume(), end_of_input() and expire() only; respond*() may be called from
// inside an event or later. After a response that was given outside of an event call resume().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "codec/http1_head.h"
#include "codec/out_message.h"
#include "codec/write_queue.h"
#include "memory/byte_buffer.h"

namespace fastserve {

// Implemented by the front end. May call respond*() on the session, must not feed or destroy it.
class Http1Events {
 public:
  virtual ~Http1Events() = default;

  // The head of the next request. Returns where the body goes: the session appends it there (Content-Length up to 1 MiB
  // reserved at once, no copy but from the socket's bytes), or nullptr: on_body gets the pieces. The buffer must stay until
  // on_end or on_error, or until the request was answered. A request answered from within gets none of the events below;
  // its body is read and dropped.
  virtual ByteBuffer* on_request(const Http1Head& head) = 0;
  virtual void on_body(std::span<const std::byte> piece) = 0;  // valid during the call
  // The request is complete (a request without body: right after on_request). Not called once it was answered.
  virtual void on_end() = 0;
  // The connection ends with this HTTP status. An open request is gone: the session answered in its place, or, when a
  // response had begun, cut it off. No request may be open (a bad request line). 0: the client closed in the middle of the
  // open request.
  virtual void on_error(int http_status, std::string_view reason) = 0;
};

class Http1Session {
 public:
  explicit Http1Session(Http1Events& events, const Http1Limits& limits = {});
  ~Http1Session();
  Http1Session(const Http1Session&) = delete;
  Http1Session& operator=(const Http1Session&) = delete;

  // Bytes from the socket; `now` is for the timeouts (the clock of an untouched connection starts with an empty feed()).
  // INVALID_ARGUMENT at a framing error (the answer is queued and want_close() follows); later input is dropped, OK.
  Status feed(std::span<const std::byte> input, Nanos now);
  // Parses what was held while a request was open. Call after a response was completed outside of an event.
  Status resume(Nanos now);
  // The client sent FIN. Requests that came whole still get their responses (half-closed clients; call resume() after each,
  // as ever), a half-received one is reported with on_error(0, ...); want_close() follows when nothing is left to send.
  void end_of_input();
  bool wants_input() const;  // false: stop reading the socket (pipelined requests wait)

  // --- the response to the open request: either respond(), or respond_begin(), respond_chunk()*, respond_end(). Without an
  // open request all of them do nothing (a completion may come after an error). It may come before the request is complete:
  // the rest of the body is then read and dropped (the connection closes when the client waits for 100 Continue).
  // Content-Length, Transfer-Encoding and Connection are the session's: such headers in `headers` are dropped, but
  // "connection: close" closes, and "content-length" in respond_begin (or for HEAD) is kept. CR, LF and NUL inside a name
  // or value become blanks. No body is written for HEAD, 1xx, 204, 304.
  // `body` is left empty, with the capacity of an earlier one, so that the caller can encode the next answer into it.
  void respond(int status, std::span<const Http1Header> headers, OutMessage&& body);
  void respond(int status, std::span<const Http1Header> headers, std::string_view body);
  // Streaming. Chunked; with a content-length header, that many raw bytes (more are cut off; fewer close the connection);
  // to an HTTP/1.0 client raw until close.
  void respond_begin(int status, std::span<const Http1Header> headers);
  void respond_chunk(std::span<const std::byte> piece);  // copies; empty pieces write nothing
  void respond_end();
  // The application failed in the middle of a streamed response: closes without the last chunk, so that the client sees it.
  void respond_abort();

  bool request_open() const;    // on_request was called and the response is not complete
  bool response_begun() const;  // of the open request
  void
  close_after_response();  // drain: the next response (or nothing, when idle) is the last; says Connection: close

  // Moves what is to be sent behind what the queue holds; how much that is says whether requests have to wait
  // (write_high_water_bytes): call it again when the queue has drained.
  void write(WriteQueue& queue);
  bool can_resume() const;  // requests that were held back could go on: resume(), then write() again
  bool has_output() const;
  // Everything was given to write() and the connection ends there: close when the WriteQueue is empty. The client may still
  // be sending (413): shut the sending side down and read on for a moment, or the reset eats the answer.
  bool want_close() const;

  // When expire() is to be called; kNever while the front end works on a request.
  Nanos deadline() const;
  // Does nothing when deadline() > now. Idle: want_close(). Within a head or body: 408 and want_close().
  bool expire(Nanos now);  // true: the deadline had passed

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastserve
