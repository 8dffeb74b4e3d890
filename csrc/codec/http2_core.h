// The nghttp2 side of Http2Session: its state and the callbacks. Included by codec/http2_*.cc only.
#pragma once

#include <nghttp2/nghttp2.h>

#include <string_view>
#include <vector>

#include "codec/http2_memory.h"
#include "codec/http2_session.h"
#include "codec/http2_stream.h"

namespace fastserve {

inline constexpr std::size_t kHttp2FrameHeadBytes = 9;

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

  Http2Stream* find(StreamId id) const {  // nullptr: closed, or never opened
    if (found != nullptr && found->id == id) return found;
    auto* const stream = static_cast<Http2Stream*>(nghttp2_session_get_stream_user_data(session, id));
    if (stream != nullptr) found = stream;
    return stream;
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

  // The header block that is being received (they never interleave).
  void begin_head() { head_count = head_list_bytes = 0, head_repeats = true; }
  void keep_field(nghttp2_rcbuf* name, nghttp2_rcbuf* value);
  void drop_fields_from(std::size_t first);
  void read_head();  // head_fields -> head

  void note_sent_head(std::span<const std::uint8_t> frame);  // a HEADERS frame of nghttp2's leaves
  void send_with_own_trailer(Http2Stream& stream,
                             std::span<const std::uint8_t, kHttp2FrameHeadBytes> head_of_data,
                             std::size_t length);

  Http2Events& events;
  const Http2Limits limits;
  Http2FloodGuard guard;
  const std::shared_ptr<Http2Memory> memory = Http2Memory::of_this_thread();  // the session's
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
  mutable Http2Stream* found = nullptr;  // by the last find(): a call is looked for some ten times
  Http2Stream* pool = nullptr;
  std::size_t pooled = 0;
  std::size_t announced = 0;

  // The last request's header section, held until the next one differs: clients repeat theirs, HPACK then refers to the very
  // same entries of its table, and as long as we hold these nothing else can lie at their addresses. So a repeated section
  // is recognised by its pointers, and `head` is as good as new.
  struct Field {
    nghttp2_rcbuf* name;
    nghttp2_rcbuf* value;
  };
  std::vector<Field> head_fields;
  std::vector<Http2Header> head_views;
  Http2Head head;
  std::size_t head_list_bytes = 0;
  std::size_t head_count = 0;
  bool head_repeats = false;  // so far
  bool head_is_read =
      false;  // `head` is that of head_fields: not so when a section in between was never announced

  // The HPACK index byte of `grpc-status: 0` in the peer's table; 0: not known. Learned from what nghttp2 sends and forgotten
  // with the first block that is not all indexed fields, which alone leave the table as it is.
  std::uint8_t ok_trailer = 0;
};

}  // namespace fastserve
