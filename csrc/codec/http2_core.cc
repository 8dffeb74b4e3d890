#include "codec/http2_core.h"

#include <algorithm>
#include <array>
#include <new>

namespace fastserve {
namespace {

using Core = Http2Core;

constexpr std::size_t kPooledStreams = 64;
constexpr std::size_t kFieldOverhead = 32;  // RFC 9113 section 6.5.2
constexpr std::array<std::uint8_t, 8> kDrainPing = {'d', 'r', 'a', 'i', 'n', 0, 0, 0};

Core& core_of(void* user_data) { return *static_cast<Core*>(user_data); }

// --- receiving

// Called for each frame that nghttp2 acts on. Its queue of PING ACKs, SETTINGS ACKs, RST_STREAMs is the peer's doing.
int on_begin_frame(nghttp2_session* session, const nghttp2_frame_hd*, void* user_data) {
  Core& core = core_of(user_data);
  if (nghttp2_session_get_outbound_queue_size(session) > core.limits.max_outbound_frames + core.announced) {
    core.fail(Http2Error::kEnhanceYourCalm, "too_many_frames_to_answer");
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  return 0;
}

int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
  Core& core = core_of(user_data);
  core.begin_head();
  if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) core.open(frame->hd.stream_id);
  return 0;
}

// A list that is too long ends the connection: skipping the rest of the block would leave HPACK's table out of step, and
// decoding it without end is the attack.
int on_header(nghttp2_session*, const nghttp2_frame* frame, nghttp2_rcbuf* name, nghttp2_rcbuf* value,
              std::uint8_t, void* user_data) {
  Core& core = core_of(user_data);
  core.head_list_bytes += nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len + kFieldOverhead;
  if (core.head_list_bytes > core.limits.max_header_list_bytes ||
      core.head_count >= core.limits.max_headers) {
    core.fail(Http2Error::kEnhanceYourCalm, "header_list_too_large");
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) core.keep_field(name, value);  // trailers are dropped
  ++core.head_count;
  return 0;
}

int on_frame_recv(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
  Core& core = core_of(user_data);
  const bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
      if (Http2Stream* stream = core.find(frame->hd.stream_id)) {
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) core.announce(*stream, end_stream);
        if (end_stream) core.end(*stream);
      }
      break;
    case NGHTTP2_DATA:
      if (end_stream) {
        if (Http2Stream* stream = core.find(frame->hd.stream_id)) core.end(*stream);
      } else if (frame->hd.length != 0 && frame->hd.length == frame->data.padlen) {
        core.flood(core.guard.padding_only(core.now));
      }
      break;
    case NGHTTP2_SETTINGS:
      core.greeted = true;
      core.ok_trailer = 0;  // a smaller table drops entries, and the next block must say so
      break;
    case NGHTTP2_PING:
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 && core.drain == Core::Drain::kNoticed &&
          std::equal(kDrainPing.begin(), kDrainPing.end(), frame->ping.opaque_data)) {
        core.finish_drain();
      }
      break;
    default:
      break;
  }
  return core.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

int on_data_chunk_recv(nghttp2_session*, std::uint8_t, StreamId id, const std::uint8_t* data,
                       std::size_t size, void* user_data) {
  Core& core = core_of(user_data);
  Http2Stream* stream = core.find(id);
  if (stream != nullptr && stream->announced && !stream->reset && size != 0) {
    core.events.on_data(id, std::as_bytes(std::span(data, size)));
  }
  return core.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

int on_stream_close(nghttp2_session*, StreamId id, std::uint32_t error, void* user_data) {
  Core& core = core_of(user_data);
  if (Http2Stream* stream = core.find(id)) core.close(*stream, error);
  return 0;
}

// --- sending

// The session's frames, DATA excepted.
ssize_t on_send(nghttp2_session*, const std::uint8_t* data, std::size_t size, int, void* user_data) {
  Core& core = core_of(user_data);
  if (core.out->bytes() >= core.limits.write_high_water_bytes) {
    core.blocked = true;
    return NGHTTP2_ERR_WOULDBLOCK;
  }
  const std::span frame(data, size);
  core.out->append(std::as_bytes(frame));
  if (size >= kHttp2FrameHeadBytes && data[3] == NGHTTP2_HEADERS) core.note_sent_head(frame);
  return static_cast<ssize_t>(size);
}

// Says how many bytes of the stream's messages the next DATA frame takes; on_send_data moves them. The stream is looked up
// by id and not taken from the source, because it may be gone after a failure.
ssize_t on_read_body(nghttp2_session*, StreamId id, std::uint8_t*, std::size_t length, std::uint32_t* flags,
                     nghttp2_data_source*, void* user_data) {
  Core& core = core_of(user_data);
  Http2Stream* stream = core.find(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const std::size_t n = std::min(length, stream->queued_bytes());
  if (n == 0 && !stream->ended) return NGHTTP2_ERR_DEFERRED;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (n == stream->queued_bytes() && stream->ended) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    stream->own_trailer = n != 0 && stream->ok_trailers ? core.ok_trailer : std::uint8_t{0};
    if (stream->own_trailer == 0 && core.submit_trailers(*stream)) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  }
  return static_cast<ssize_t>(n);
}

int on_send_data(nghttp2_session*, nghttp2_frame* frame, const std::uint8_t* head, std::size_t length,
                 nghttp2_data_source*, void* user_data) {
  Core& core = core_of(user_data);
  if (core.out->bytes() >= core.limits.write_high_water_bytes) {
    core.blocked = true;
    return NGHTTP2_ERR_WOULDBLOCK;
  }
  Http2Stream* stream = core.find(frame->hd.stream_id);
  // Reset between reading and sending: nothing of this frame is out yet, drop it.
  if (stream == nullptr || stream->queued_bytes() < length) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && stream->own_trailer != 0) {
    core.send_with_own_trailer(
        *stream, std::span<const std::uint8_t, kHttp2FrameHeadBytes>(head, kHttp2FrameHeadBytes), length);
    return 0;
  }
  core.out->append(std::as_bytes(std::span(head, kHttp2FrameHeadBytes)));
  stream->pop(length, *core.out);
  return 0;
}

int on_frame_send(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
  Core& core = core_of(user_data);
  switch (frame->hd.type) {
    case NGHTTP2_RST_STREAM:
      core.flood(core.guard.reset_sent(core.now));
      break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
      core.guard.useful_frame_sent();
      if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        const Http2Stream* stream = core.find(frame->hd.stream_id);
        if (stream != nullptr && !stream->remote_end) {
          nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
        }
      }
      break;
    default:
      break;
  }
  return 0;
}

// Both are made once and only read afterwards, by any thread.
const nghttp2_session_callbacks* callbacks() {
  static const nghttp2_session_callbacks* const made = [] {
    nghttp2_session_callbacks* c = nullptr;
    if (nghttp2_session_callbacks_new(&c) != 0) throw std::bad_alloc();
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(c, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk_recv);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_send_callback(c, on_send);
    nghttp2_session_callbacks_set_send_data_callback(c, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    return c;
  }();
  return made;
}

nghttp2_session* new_session(Core* core) {
  nghttp2_option* option = nullptr;
  if (nghttp2_option_new(&option) != 0) throw std::bad_alloc();
  nghttp2_option_set_no_closed_streams(option, 1);  // kept only for RFC 7540 priorities, which we switch off
  nghttp2_option_set_max_continuations(option, core->limits.max_continuations);
  // Its own allowance of RST_STREAMs goes by the wall clock; Http2FloodGuard counts them, and earlier.
  nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX);
  nghttp2_session* session = nullptr;
  nghttp2_mem memory = core->memory->for_session();  // the session copies it
  const int rc = nghttp2_session_server_new3(&session, callbacks(), core, option, &memory);
  nghttp2_option_del(option);
  if (rc != 0) throw std::bad_alloc();
  return session;
}

}  // namespace

nghttp2_nv to_nv(const Http2Header& header) {
  // nghttp2 takes non-const pointers and does not write through them.
  const auto bytes = [](std::string_view text) {
    return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(text.data()));  // NOLINT
  };
  const int flags =
      header.fixed ? NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE : NGHTTP2_NV_FLAG_NONE;
  return {bytes(header.name), bytes(header.value), header.name.size(), header.value.size(),
          static_cast<std::uint8_t>(flags)};
}

Http2Core::Http2Core(Http2Events& events_in, const Http2Limits& limits_in)
    : events(events_in), limits(limits_in), guard(limits) {
  session = new_session(this);
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.max_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window_bytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.max_header_list_bytes},
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},  // no dependency tree to attack
  };
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0,
                                        static_cast<std::int32_t>(limits.connection_window_bytes));
}

Http2Core::~Http2Core() {
  error = failed ? error : Http2Error::kCancel;
  close_all();
  drop_fields_from(0);
  nghttp2_session_del(session);
  while (pool != nullptr) delete std::exchange(pool, pool->next);
}

Http2Stream* Http2Core::open(StreamId id) {
  Http2Stream* stream = pool;
  if (stream != nullptr) {
    pool = stream->next;
    --pooled;
  } else {
    stream = new Http2Stream;
  }
  stream->id = id;
  stream->prev = nullptr;
  stream->next = live;
  if (live != nullptr) live->prev = stream;
  live = stream;
  found = stream;
  nghttp2_session_set_stream_user_data(session, id, stream);
  return stream;
}

void Http2Core::close(Http2Stream& stream, std::uint32_t code) {
  if (stream.announced) {
    --announced;
    events.on_closed(stream.id, static_cast<Http2Error>(code));
  }
  nghttp2_session_set_stream_user_data(session, stream.id, nullptr);
  found = nullptr;
  (stream.prev != nullptr ? stream.prev->next : live) = stream.next;
  if (stream.next != nullptr) stream.next->prev = stream.prev;
  stream.recycle();
  if (pooled == kPooledStreams) {
    delete &stream;
    return;
  }
  stream.next = pool;
  pool = &stream;
  ++pooled;
}

void Http2Core::close_all() {
  while (live != nullptr) close(*live, static_cast<std::uint32_t>(error));
}

void Http2Core::fail(Http2Error code, std::string_view why) {
  if (failed) return;
  failed = true;
  error = code;
  reason = why;
  nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session),
                        static_cast<std::uint32_t>(code), reinterpret_cast<const std::uint8_t*>(why.data()),
                        why.size());
}

Status Http2Core::status() const {
  if (!failed) return Status::ok();
  const Code code = error == Http2Error::kEnhanceYourCalm ? Code::kResourceExhausted : Code::kInvalidArgument;
  return {code, "HTTP/2 connection closed: " + std::string(reason)};
}

void Http2Core::submit_drain_ping() { nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, kDrainPing.data()); }

void Http2Core::finish_drain() {
  drain = Drain::kLast;
  nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session),
                        NGHTTP2_NO_ERROR, nullptr, 0);
}

void Http2Core::submit_head(Http2Stream& stream, std::span<const Http2Header> headers, bool with_body) {
  constexpr std::size_t kOnStack = 16;
  std::array<nghttp2_nv, kOnStack> few;
  std::vector<nghttp2_nv> many;
  if (headers.size() > kOnStack) many.resize(headers.size());
  nghttp2_nv* nv = many.empty() ? few.data() : many.data();
  for (std::size_t i = 0; i < headers.size(); ++i) nv[i] = to_nv(headers[i]);
  nghttp2_data_provider body{{.ptr = nullptr}, on_read_body};
  stream.answered = true;
  stream.ended = stream.ended || !with_body;
  nghttp2_submit_response(session, stream.id, nv, headers.size(), with_body ? &body : nullptr);
}

void Http2Core::end(Http2Stream& stream) {
  if (stream.remote_end) return;
  stream.remote_end = true;
  if (stream.announced && !stream.reset) events.on_end(stream.id);
}

}  // namespace fastserve
