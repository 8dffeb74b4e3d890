// One HTTP/2 connection, server side (RFC 9113, h2c with prior knowledge or behind TLS): bytes in, events out, and back.
// No I/O, no clock, no engine. Built on libnghttp2, which this header does not show.
//
// Use, by the owner of a socket:
//   session.feed(what was read, now)      -> Http2Events calls, from inside feed()
//   session.respond(stream, ...)          at any time, also from inside an event
//   session.write(out)                    after each pass; moves frames into the WriteQueue, may call on_closed
//   close the socket when want_close() and the WriteQueue is empty, or when feed() failed and what write() gave is out
//
// Every stream function is a no-op for a stream that is already closed: completions may come late.
// Thread: one (the owner of the socket). Not to be called from inside an event: feed, write, the destructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "codec/http2_flood.h"
#include "codec/out_message.h"
#include "codec/write_queue.h"

namespace fastserve {

using StreamId = std::int32_t;  // odd, rising, never reused within a connection

// RFC 9113 section 7.
enum class Http2Error : std::uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kInternalError = 2,
  kFlowControlError = 3,
  kSettingsTimeout = 4,
  kStreamClosed = 5,
  kFrameSizeError = 6,
  kRefusedStream = 7,
  kCancel = 8,
  kCompressionError = 9,
  kConnectError = 10,
  kEnhanceYourCalm = 11,
  kInadequateSecurity = 12,
  kHttp11Required = 13,
};

struct Http2Header {
  std::string_view name;  // lower case
  std::string_view value;
  bool fixed = false;  // outgoing only: both are literals (live as long as the process) and are not copied
};

// What every successful gRPC answer starts and ends with. respond() knows these trailers by their address: they are the short way
// (codec/http2_trailers.cc).
inline constexpr Http2Header kGrpcOkHeaders[] = {{":status", "200", true},
                                                 {"content-type", "application/grpc", true}};
inline constexpr Http2Header kGrpcOkTrailers[] = {{"grpc-status", "0", true}};

// A request's header section. The views are valid during on_request only.
struct Http2Head {
  std::string_view method;
  std::string_view path;
  std::string_view authority;
  std::string_view scheme;
  std::span<const Http2Header> fields;  // without the pseudo-headers, in the order received
  bool end_stream = false;              // no body: on_end follows at once
  bool repeated =
      false;  // but for end_stream all is as in the last request of the connection: what was read from it holds

  std::string_view find(std::string_view name) const {  // the first of that name; "" when absent
    for (const Http2Header& f : fields) {
      if (f.name == name) return f.value;
    }
    return {};
  }
};

// Implemented by the front end. Must not throw.
class Http2Events {
 public:
  virtual ~Http2Events() = default;
  virtual void on_request(StreamId stream, const Http2Head& head) = 0;
  // Any cut, also one byte at a time; `bytes` is valid during the call only. Never empty.
  virtual void on_data(StreamId stream, std::span<const std::byte> bytes) = 0;
  // The client has finished (END_STREAM on DATA, on the request's headers or on trailers, which are dropped).
  virtual void on_end(StreamId stream) = 0;
  // Exactly once for every stream that on_request was called for, also when the session dies or is destroyed: answered,
  // reset by either side, or the connection failed. stream_data() still works inside and not after. kNoError: complete.
  virtual void on_closed(StreamId stream, Http2Error error) = 0;
};

struct Http2Core;  // nghttp2's side, codec/http2_core.h

class Http2Session {
 public:
  // `events` outlives the session. The first write() carries our SETTINGS.
  explicit Http2Session(Http2Events& events, const Http2Limits& limits = {});
  ~Http2Session();  // on_closed(kCancel) for the streams that are left
  Http2Session(const Http2Session&) = delete;
  Http2Session& operator=(const Http2Session&) = delete;

  // Bytes from the peer. `now` is what the flood accounting of this call and of the next write() goes by.
  // Not OK: the connection is over. GOAWAY is queued, all streams were closed, further bytes are refused: write(), flush, close.
  // RESOURCE_EXHAUSTED: a limit of Http2Limits (GOAWAY ENHANCE_YOUR_CALM); INVALID_ARGUMENT: not HTTP/2, or a violation that
  // nghttp2 calls fatal. Violations that RFC 9113 answers with GOAWAY are OK here and show as want_close() after write().
  Status feed(std::span<const std::byte> bytes, Nanos now);

  // --- answers, in this order per stream: [respond] or [send_headers, send_message*, send_trailers]
  // Headers start with ":status". With end_stream they are the whole answer (gRPC: Trailers-Only).
  void send_headers(StreamId stream, std::span<const Http2Header> headers, bool end_stream);
  // `message` is left empty with the capacity of an earlier one, so that the caller can encode the next answer into it.
  void send_message(StreamId stream, OutMessage&& message);
  // Sent when all messages are out; ends the stream. Before or after they have drained.
  void send_trailers(StreamId stream, std::span<const Http2Header> trailers);
  // All three in one pass: the hot path. Empty `trailers`: the message's last DATA frame ends the stream.
  void respond(StreamId stream, std::span<const Http2Header> headers, OutMessage&& message,
               std::span<const Http2Header> trailers);
  // Back-pressure: while held, what the client sends on the stream still arrives but earns it no further window, so that at most
  // stream_window_bytes more can come. Call it with `true` again whenever data came meanwhile (a change of the settings may
  // have opened the window).
  void hold_window(StreamId stream, bool held);
  // RST_STREAM. What was queued for the stream is dropped. When we end a stream before its client does, RST_STREAM NO_ERROR
  // follows by itself (RFC 9113 section 8.1).
  void reset(StreamId stream, Http2Error error);
  // Bytes of messages queued on the stream and not yet pumped (flow control holds them back): bound what a slow reader of a
  // streaming answer may pile up. 0 for a closed stream.
  std::size_t queued_bytes(StreamId stream) const;

  // Drain: GOAWAY(2^31-1) and a PING now, GOAWAY(last stream) when the PING came back (RFC 9113 section 6.8); streams that are
  // in run on. A second call sends the last GOAWAY at once.
  void shutdown();

  void ping();  // asks the peer for a sign of life: its answer comes by feed()

  // Moves frames into `out` until there are none, flow control stops, or `out` holds write_high_water_bytes.
  void write(WriteQueue& out);
  // The last write() stopped because `out` was full: do not feed() until it has drained (else a peer that does not read makes
  // us queue), then write() again.
  bool blocked() const;
  bool want_write() const;  // there are frames that write() could move
  // Nothing more to say and nothing to hear: close once the WriteQueue is empty.
  bool want_close() const;

  Status status()
      const;  // as feed() gave it; not OK also when write() found the limit (too many RST_STREAMs of ours)

  bool greeted() const;  // the peer's preface is complete: its first SETTINGS came

  std::size_t open_streams() const;  // on_request called, on_closed not yet
  // The front end's own pointer per stream; nullptr at first and for closed streams.
  void* stream_data(StreamId stream) const;
  void set_stream_data(StreamId stream, void* data);

 private:
  std::unique_ptr<Http2Core> core_;
};

}  // namespace fastserve
