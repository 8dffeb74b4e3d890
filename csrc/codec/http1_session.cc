#include "codec/http1_session.h"

#include <algorithm>
#include <cstring>

#include "codec/http1_parser.h"
#include "codec/http1_response.h"
#include "codec/json_writer.h"

namespace fastserve {
namespace {

constexpr std::size_t kReserveBytes = 1024 * 1024;  // of a body at once: a Content-Length is only a claim
constexpr std::size_t kKeepHeldBytes = 64 * 1024;
constexpr Http1Header kJsonHeaders[] = {{"content-type", "application/json"}};

}  // namespace

// One exchange goes through these: head -> (receiving and answering, in either order or at once) -> next.
struct Http1Session::State final : Http1ParserEvents {
  State(Http1Events& events_in, const Http1Limits& limits_in)
      : events(events_in), limits(limits_in), parser(*this, limits) {}

  bool on_head(const Http1Head& head) override;
  void on_piece(std::span<const std::byte> piece) override;
  void on_message_end();

  Status run(std::span<const std::byte>& input);
  Status run_held();
  void hold(std::span<const std::byte> input);
  void drop_held() {
    held.clear();
    held_at = 0;
  }
  std::size_t held_bytes() const { return held.size() - held_at; }
  // The session's own answer to the request that is being read, then the end.
  void refuse(int status, std::string_view reason);
  void answered();
  void next_exchange();
  void no_more_input();
  void close() {
    closing = true;
    receiving = open = false;
    body = nullptr;
    drop_held();
  }
  // The open request is complete and waits for its answer: nothing is parsed meanwhile.
  bool waiting() const { return open && !receiving; }
  // The client has to read before its next request is looked at.
  bool full() const {
    return !parser.in_message() && queued_bytes + response.pending_bytes() >= limits.write_high_water_bytes;
  }

  Http1Events& events;
  const Http1Limits limits;
  Http1Parser parser;
  Http1Response response;

  std::size_t queued_bytes = 0;  // in the WriteQueue, at the last write()
  ByteBuffer held;
  std::size_t held_at = 0;

  bool open = false;         // on_request was called, the response is not complete
  bool receiving = false;    // the head was read, the end of the message was not
  bool expects_100 = false;  // the client waits for 100 Continue
  bool closing = false;      // nothing more is parsed; close when the output is out
  bool draining = false;     // the next response says Connection: close
  bool end_seen = false;     // the client sent FIN
  ByteBuffer* body = nullptr;

  Nanos now = kNever;           // of the last feed, resume; kNever: none yet
  Nanos head_started = kNever;  // first byte of the head that is being read
};

bool Http1Session::State::on_head(const Http1Head& head) {
  head_started = kNever;
  receiving = open = true;
  body = nullptr;
  response.begin_exchange({head.method == "HEAD", head.keep_alive && !draining, head.minor_version});
  const bool has_body = head.chunked || head.content_length.value_or(0) != 0;
  if (const auto expect = head.header("expect"); expect && head.minor_version == 1) {
    if (!equals_lower(*expect, "100-continue")) {
      refuse(417, "Expect: want 100-continue");
      return false;
    }
    expects_100 = has_body;
  }
  ByteBuffer* const destination = events.on_request(head);
  if (closing) return false;
  if (open) {
    body = destination;
    if (body != nullptr && head.content_length) {
      body->reserve(body->size() +
                    std::min<std::size_t>(static_cast<std::size_t>(*head.content_length), kReserveBytes));
    }
    if (expects_100 && !response.begun()) response.continue_100();
  }
  expects_100 = false;
  return true;
}

void Http1Session::State::on_piece(std::span<const std::byte> piece) {
  if (!open) return;  // answered before its end
  if (body != nullptr) {
    body->append(piece);
  } else {
    events.on_body(piece);
  }
}

void Http1Session::State::on_message_end() {
  receiving = false;
  body = nullptr;
  if (open) {
    events.on_end();
  } else {
    next_exchange();
  }
}

// Called when the last byte of the response is queued.
void Http1Session::State::answered() {
  open = false;
  body = nullptr;
  if (expects_100)
    response.forbid_keep_alive();  // whether the body comes is the client's guess, and would be ours
  if (!response.keep_alive()) {
    close();
  } else if (!receiving) {
    next_exchange();
  }
}

void Http1Session::State::next_exchange() {
  if (draining) close();
}

void Http1Session::State::refuse(int status, std::string_view reason) {
  const bool answer = !(receiving && (!open || response.begun()));  // not behind a response, nor into one
  if (answer) {
    if (!open) response.begin_exchange({});
    response.forbid_keep_alive();
    response.whole(status, kJsonHeaders, error_body(reason));
  }
  close();
  events.on_error(status, reason);
}

Status Http1Session::State::run(std::span<const std::byte>& input) {
  while (!closing && !waiting() && !full() && !input.empty()) {
    if (!parser.in_message()) head_started = now;
    switch (parser.parse(input)) {
      case Http1Parser::Step::kMore:
        break;
      case Http1Parser::Step::kMessageEnd:
        on_message_end();
        break;
      case Http1Parser::Step::kStopped:
        input = {};
        break;
      case Http1Parser::Step::kError:
        input = {};
        refuse(parser.error_status(), parser.error_reason());
        return invalid_argument(parser.error_reason());
    }
  }
  if (closing) input = {};
  return Status::ok();
}

Status Http1Session::State::run_held() {
  std::span<const std::byte> input = held.span().subspan(held_at);
  const std::size_t before = input.size();
  Status status = run(input);
  if (closing || input.empty()) {
    drop_held();
    held.shrink(kKeepHeldBytes);
  } else {
    held_at += before - input.size();
  }
  if (end_seen) no_more_input();
  return status;
}

// The client sent FIN and everything that can be parsed was.
void Http1Session::State::no_more_input() {
  if (closing || waiting() || (full() && held_bytes() != 0)) return;
  const bool unanswered = open;
  close();
  if (unanswered) events.on_error(0, "the client closed the connection in the middle of a request");
}

void Http1Session::State::hold(std::span<const std::byte> input) {
  if (held_at * 2 >= held.size() && held_at != 0) {  // amortised: each byte moves at most once
    const std::size_t size = held_bytes();
    std::memmove(held.data(), held.data() + held_at, size);
    held.truncate(size);
    held_at = 0;
  }
  held.append(input);
}

Http1Session::Http1Session(Http1Events& events, const Http1Limits& limits)
    : state_(std::make_unique<State>(events, limits)) {}
Http1Session::~Http1Session() = default;

Status Http1Session::feed(std::span<const std::byte> input, Nanos now) {
  State& s = *state_;
  s.now = now;
  if (s.closing) return Status::ok();
  if (s.held_bytes() != 0) {
    s.hold(input);
    return s.run_held();
  }
  Status status = s.run(input);
  if (!input.empty()) s.hold(input);
  return status;
}

Status Http1Session::resume(Nanos now) {
  State& s = *state_;
  s.now = now;
  return s.closing ? Status::ok() : s.run_held();
}

void Http1Session::end_of_input() {
  state_->end_seen = true;
  state_->no_more_input();
}

bool Http1Session::wants_input() const {
  const State& s = *state_;
  return !s.closing && !s.end_seen && !s.full() && s.held_bytes() < s.limits.held_bytes;
}

void Http1Session::respond(int status, std::span<const Http1Header> headers, OutMessage&& body) {
  State& s = *state_;
  if (!s.open || s.response.begun()) return body.clear();
  if (s.draining || s.expects_100) s.response.forbid_keep_alive();
  s.response.whole(status, headers, std::move(body));
  s.answered();
}

void Http1Session::respond(int status, std::span<const Http1Header> headers, std::string_view body) {
  OutMessage message;
  message.own.append(body);
  respond(status, headers, std::move(message));
}

void Http1Session::respond_begin(int status, std::span<const Http1Header> headers) {
  State& s = *state_;
  if (!s.open || s.response.begun()) return;
  if (s.draining || s.expects_100) s.response.forbid_keep_alive();
  s.response.begin(status, headers);
}

void Http1Session::respond_chunk(std::span<const std::byte> piece) {
  State& s = *state_;
  if (s.open && s.response.begun()) s.response.chunk(piece);
}

void Http1Session::respond_end() {
  State& s = *state_;
  if (!s.open || !s.response.begun()) return;
  s.response.end();
  s.answered();
}

void Http1Session::respond_abort() {
  if (state_->open) state_->close();
}

bool Http1Session::request_open() const { return state_->open; }
bool Http1Session::response_begun() const { return state_->open && state_->response.begun(); }

void Http1Session::close_after_response() {
  State& s = *state_;
  s.draining = true;
  if (!s.open && !s.receiving && !s.parser.in_message()) s.close();
}

void Http1Session::write(WriteQueue& queue) {
  state_->response.write(queue);
  state_->queued_bytes = queue.bytes();
}

bool Http1Session::can_resume() const {
  const State& s = *state_;
  return !s.closing && !s.waiting() && !s.full() && s.held_bytes() != 0;
}

bool Http1Session::has_output() const { return state_->response.pending(); }
bool Http1Session::want_close() const { return state_->closing && !state_->response.pending(); }

Nanos Http1Session::deadline() const {
  const State& s = *state_;
  if (s.closing || s.waiting() || s.now == kNever) return kNever;
  if (s.receiving) return s.now + s.limits.body_timeout_ns;
  if (s.parser.in_message()) return s.head_started + s.limits.head_timeout_ns;
  return s.now + s.limits.idle_timeout_ns;
}

bool Http1Session::expire(Nanos now) {
  State& s = *state_;
  if (now < deadline()) return false;
  if (s.receiving || s.parser.in_message()) {
    s.refuse(408, s.receiving ? "timed out waiting for the request body"
                              : "timed out waiting for the request head");
  } else {
    s.close();
  }
  return true;
}

}  // namespace fastserve
