#include "codec/http2_session.h"

#include "codec/http2_core.h"

namespace fastserve {
namespace {

// nghttp2's fatal results of reading, as what the peer is told.
struct Fatal {
  Http2Error error;
  std::string_view reason;
};
Fatal fatal(ssize_t rc) {
  switch (rc) {
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
      return {Http2Error::kProtocolError, "no HTTP/2 connection preface"};
    case NGHTTP2_ERR_FLOODED:
      return {Http2Error::kEnhanceYourCalm, "too_many_frames_to_answer"};
    case NGHTTP2_ERR_TOO_MANY_SETTINGS:
      return {Http2Error::kEnhanceYourCalm, "too_many_settings"};
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
      return {Http2Error::kEnhanceYourCalm, "too_many_continuations"};
    case NGHTTP2_ERR_NOMEM:
      return {Http2Error::kInternalError, "out of memory"};
    default:
      return {Http2Error::kProtocolError, "protocol error"};
  }
}

}  // namespace

Http2Session::Http2Session(Http2Events& events, const Http2Limits& limits)
    : core_(std::make_unique<Http2Core>(events, limits)) {}

Http2Session::~Http2Session() = default;

Status Http2Session::feed(std::span<const std::byte> bytes, Nanos now) {
  Http2Core& core = *core_;
  core.now = now;
  if (!core.failed) core.flood(core.guard.scan(bytes, now));
  if (!core.failed) {
    const ssize_t rc = nghttp2_session_mem_recv(
        core.session, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    if (rc < 0) core.fail(fatal(rc).error, fatal(rc).reason);
  }
  if (core.failed) core.close_all();
  return core.status();
}

void Http2Session::send_headers(StreamId id, std::span<const Http2Header> headers, bool end_stream) {
  Http2Stream* stream = core_->find(id);
  if (stream != nullptr && !stream->answered) core_->submit_head(*stream, headers, !end_stream);
}

void Http2Session::send_message(StreamId id, OutMessage&& message) {
  Http2Stream* stream = core_->find(id);
  if (stream == nullptr || stream->ended || stream->reset) return message.clear();
  stream->push(std::move(message));
  core_->guard.message_queued();
  nghttp2_session_resume_data(core_->session,
                              id);  // fails when the head is not out yet: then there is nothing to resume
}

void Http2Session::send_trailers(StreamId id, std::span<const Http2Header> trailers) {
  Http2Stream* stream = core_->find(id);
  if (stream == nullptr || stream->ended || stream->reset) return;
  stream->set_trailers(trailers);
  stream->ended = true;
  nghttp2_session_resume_data(core_->session, id);
}

void Http2Session::respond(StreamId id, std::span<const Http2Header> headers, OutMessage&& message,
                           std::span<const Http2Header> trailers) {
  Http2Stream* stream = core_->find(id);
  if (stream == nullptr || stream->answered) return message.clear();
  stream->push(std::move(message));
  stream->ok_trailers = trailers.data() == kGrpcOkTrailers;
  if (!stream->ok_trailers) stream->set_trailers(trailers);
  stream->ended = true;
  core_->submit_head(*stream, headers, true);
}

// A local window of 0 makes nghttp2 give nothing back; what the client already has stays valid.
void Http2Session::hold_window(StreamId id, bool held) {
  const Http2Stream* stream = core_->find(id);
  if (stream == nullptr || stream->reset || stream->remote_end) return;
  const auto window = static_cast<std::int32_t>(core_->limits.stream_window_bytes);
  nghttp2_session_set_local_window_size(core_->session, NGHTTP2_FLAG_NONE, id, held ? 0 : window);
}

void Http2Session::reset(StreamId id, Http2Error error) {
  Http2Stream* stream = core_->find(id);
  if (stream == nullptr || stream->reset) return;
  stream->reset = stream->answered = stream->ended = true;
  stream->drop_messages();
  nghttp2_submit_rst_stream(core_->session, NGHTTP2_FLAG_NONE, id, static_cast<std::uint32_t>(error));
}

std::size_t Http2Session::queued_bytes(StreamId id) const {
  const Http2Stream* stream = core_->find(id);
  return stream == nullptr ? 0 : stream->queued_bytes();
}

void Http2Session::shutdown() {
  Http2Core& core = *core_;
  if (core.failed || core.drain == Http2Core::Drain::kLast) return;
  if (core.drain == Http2Core::Drain::kNoticed) return core.finish_drain();
  core.drain = Http2Core::Drain::kNoticed;
  nghttp2_submit_shutdown_notice(core.session);
  core.submit_drain_ping();
}

void Http2Session::ping() {
  if (!core_->failed) nghttp2_submit_ping(core_->session, NGHTTP2_FLAG_NONE, nullptr);
}

void Http2Session::write(WriteQueue& out) {
  Http2Core& core = *core_;
  core.blocked = false;
  core.out = &out;
  const int rc = nghttp2_session_send(core.session);
  core.out = nullptr;
  if (rc != 0) core.fail(Http2Error::kInternalError, "sending failed");
  if (core.failed) core.close_all();
}

bool Http2Session::blocked() const { return core_->blocked; }

bool Http2Session::want_write() const { return nghttp2_session_want_write(core_->session) != 0; }

bool Http2Session::want_close() const {
  return !want_write() && (core_->failed || nghttp2_session_want_read(core_->session) == 0);
}

Status Http2Session::status() const { return core_->status(); }

bool Http2Session::greeted() const { return core_->greeted; }

std::size_t Http2Session::open_streams() const { return core_->announced; }

void* Http2Session::stream_data(StreamId id) const {
  const Http2Stream* stream = core_->find(id);
  return stream == nullptr ? nullptr : stream->data;
}

void Http2Session::set_stream_data(StreamId id, void* data) {
  if (Http2Stream* stream = core_->find(id)) stream->data = data;
}

}  // namespace fastserve
