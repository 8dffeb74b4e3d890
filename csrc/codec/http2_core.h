// The nghttp2 side of Http2Session: its state and the callbacks. Included by codec/http2_*.cc only.
#pragma once

#include <nghttp2/nghttp2.h>

#include <string_view>
#include <vector>

#include "codec/http2_session.h"
#include "codec/http2_stream.h"
#include "memory/byte_buffer.h"

namespace fastserve {

// nghttp2's own view of our headers; `fixed` ones are not copied by nghttp2.
nghttp2_nv to_nv(const Http2Header& header);

constexpr Http2Error flood_error(Http2Flood flood) {
  switch (flood) {
    case Http2Flood::kContinuationTooLarge:
      return Http2Error::kFrameSizeError;
    case Http2Flood::kPriorityOfNoStream:
      return Http2Error::kProtocolError;
    default:
      return Http2Error::kEnhanceYourCalm;
  }
}

struct Http2Core {
  enum class Drain { kNo, kNoticed, kLast };

  Http2Core(Http2Events& events, const Http2Limits& limits);
  ~Http2Core();
  Http2Core(const Http2Core&) = delete;
  Http2Core& operator=(const Http2Core&) = delete;

  Http2Stream* find(StreamId id) const {
    return static_cast<Http2Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }
  Http2Stream* open(StreamId id);                        // at the first header of a request
  void close(Http2Stream& stream, std::uint32_t error);  // tells the front end, returns it to the pool
  void close_all();

  // The connection is over: GOAWAY with `reason` as debug data. The first call counts. Streams are closed by the caller
  // (close_all) once nghttp2 has returned: it still holds their data providers while it runs.
  void fail(Http2Error error, std::string_view reason);
  Status status() const;  // why it failed
  void flood(Http2Flood flood) {
    if (flood != Http2Flood::kNone) fail(flood_error(flood), flood_reason(flood));
  }
  void submit_drain_ping();
  void finish_drain();

  void submit_head(Http2Stream& stream, std::span<const Http2Header> headers, bool with_body);
  // Appends the trailers to nghttp2's queue; true when there are any.
  bool submit_trailers(Http2Stream& stream);
  void announce(Http2Stream& stream, bool end_stream);
  void end(Http2Stream& stream);

  Http2Events& events;
  const Http2Limits limits;
  Http2FloodGuard guard;
  nghttp2_session* session = nullptr;
  Nanos now = 0;
  WriteQueue* out = nullptr;  // during write()
  bool blocked = false;
  bool failed = false;
  bool greeted = false;
  Http2Error error = Http2Error::kNoError;
  std::string_view reason;  // a literal
  Drain drain = Drain::kNo;

  Http2Stream* live = nullptr;
  Http2Stream* pool = nullptr;
  std::size_t pooled = 0;
  std::size_t announced = 0;

  // The header block that is being received (they never interleave): text, and where each name and value ends in it.
  struct Field {
    std::size_t name_end;
    std::size_t value_end;
  };
  ByteBuffer head_text;
  std::vector<Field> head_fields;
  std::size_t head_list_bytes = 0;
  std::size_t head_count = 0;
  std::vector<Http2Header> head_views;
};

}  // namespace fastserve
