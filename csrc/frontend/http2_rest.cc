#include "frontend/http2_rest.h"

#include <array>
#include <deque>
#include <string>

#include "codec/http1_response.h"
#include "frontend/http_connection.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

Http2Limits limits_of(const IoLimits& limits) {
  Http2Limits out;
  out.max_streams = limits.max_streams;
  return out;
}

std::string_view path_of(std::string_view target) { return target.substr(0, target.find('?')); }

// RFC 9113 section 8.2.2: fields of the connection have no place here; the length is ours to say.
bool is_dropped(std::string_view name) {
  for (const std::string_view each :
       {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "content-length"}) {
    if (equals_lower(name, each)) return true;
  }
  return false;
}

bool needs_no_cleaning(std::string_view name, std::string_view value) {
  for (const char c : name) {
    if (c >= 'A' && c <= 'Z') return false;
  }
  return value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

// The headers of a response in nghttp2's form. Names in lower case, no line breaks in values.
class ResponseHead {
 public:
  explicit ResponseHead(int status) {
    add(":status", keep(std::to_string(status < 100 || status > 999 ? 500 : status)));
  }
  void field(std::string_view name, std::string_view value) {
    if (is_dropped(name)) return;
    if (needs_no_cleaning(name, value)) return add(name, value);
    std::string lower(name);
    for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    std::string clean(value);
    for (char& c : clean) c = c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
    add(keep(std::move(lower)), keep(std::move(clean)));
  }
  void length(std::uint64_t bytes) { add("content-length", keep(std::to_string(bytes))); }
  std::span<const Http2Header> view() const { return headers_; }

 private:
  void add(std::string_view name, std::string_view value) { headers_.push_back({name, value}); }
  std::string_view keep(std::string text) { return texts_.emplace_back(std::move(text)); }

  std::vector<Http2Header> headers_;
  std::deque<std::string> texts_;
};

}  // namespace

Http2Rest::Http2Rest(IoLoop& loop, HttpConnection& connection)
    : RestSession(loop, connection), session_(*this, limits_of(loop.limits())) {}

Http2Rest::~Http2Rest() {
  if (const Status status = session_.status(); !status.is_ok()) loop_.count_refused(status.code());
}

void Http2Rest::feed(std::span<const std::byte> bytes, Nanos now) {
  now_ = now;
  if (!session_.feed(bytes, now).is_ok()) failed_ = true;
}

// The limits of a request line, of a body and of calls in work, as HTTP/1.1 and gRPC have them.
RestVerdict Http2Rest::check_head(const Http2Head& head) const {
  const IoLimits& limits = loop_.limits();
  const std::size_t line_bytes = Http1Limits{}.line_bytes;
  if (head.method == "CONNECT") return RestRefusal{501, Code::kUnimplemented, "method not implemented"};
  if (head.path.empty() || (head.path[0] != '/' && !(head.path == "*" && head.method == "OPTIONS"))) {
    return RestRefusal{400, Code::kInvalidArgument, ":path: want a path that starts with /"};
  }
  if (head.path.size() > line_bytes) {
    return RestRefusal{414, Code::kResourceExhausted,
                       ":path longer than " + std::to_string(line_bytes) + " bytes"};
  }
  if (const auto length = parse_decimal(head.find("content-length")); length > limits.max_message_bytes) {
    return RestRefusal{413, Code::kResourceExhausted,
                       "request body of " + std::to_string(*length) + " bytes, want " +
                           std::to_string(limits.max_message_bytes) + " or fewer"};
  }
  // Work of streams that were reset still counts: a client cannot pile up more than it may have open.
  if (const std::size_t open = connection_.open_calls(); open > limits.max_streams) {
    return RestRefusal{503, Code::kUnavailable,
                       "connection has " + std::to_string(open) + " calls in work, want " +
                           std::to_string(limits.max_streams) + " or fewer"};
  }
  return std::nullopt;
}

void Http2Rest::on_request(StreamId stream, const Http2Head& head) {
  Call& call = loop_.new_call(connection_, CallKind::kHttpCold);
  call.stream = stream;
  session_.set_stream_data(stream, &call);
  call.request.times.received = now_;
  call.method = head.method;
  RestRequestHead view{head.method, path_of(head.path), head.find("content-encoding"),
                       head.find("accept-encoding"), std::nullopt};
  for (const Http2Header& field : head.fields) {
    if (field.name == "inference-header-content-length") view.json_length = field.value;
  }
  RestVerdict wrong = check_head(head);
  if (!wrong) wrong = begin_exchange(view, call);
  if (wrong) return refuse(call, *wrong);
  if (call.kind == CallKind::kHttpCold) copy_head(head, call);
}

void Http2Rest::copy_head(const Http2Head& head, Call& call) {
  call.target = head.path;
  if (!head.authority.empty()) call.fields.emplace_back("host", head.authority);
  for (const Http2Header& field : head.fields) {
    if (field.name == "host" && !head.authority.empty()) continue;
    call.fields.emplace_back(field.name, field.value);
  }
}

void Http2Rest::on_data(StreamId stream, std::span<const std::byte> bytes) {
  Call* call = call_of(stream);
  if (call == nullptr || call->answered) return;
  ByteBuffer& message = call->request.message;
  const std::size_t limit = loop_.limits().max_message_bytes;
  if (bytes.size() > limit - message.size()) {
    return refuse(*call, {413, Code::kResourceExhausted,
                          "request body larger than " + std::to_string(limit) + " bytes"});
  }
  message.append(bytes);
}

void Http2Rest::on_end(StreamId stream) {
  Call* call = call_of(stream);
  if (call == nullptr || call->answered) return;
  if (const RestVerdict wrong = complete_exchange(loop_, *call)) refuse(*call, *wrong);
}

void Http2Rest::on_closed(StreamId stream, Http2Error /*error*/) {
  Call* call = call_of(stream);
  if (call == nullptr) return;
  call->stream_open = false;
  loop_.abandon(*call);
  loop_.let_go(*call);
}

void Http2Rest::refuse(Call& call, const RestRefusal& why) {
  loop_.count_refused(why.code);
  RestAnswer out;
  answer_refusal(call, why, out);
  answer(call, out, now_);
}

void Http2Rest::answer(Call& call, RestAnswer& answer, Nanos /*now*/) {
  ResponseHead head(answer.status);
  const std::size_t bytes = answer.body.bytes();
  const bool no_content = answer.status < 200 || answer.status == 204 || answer.status == 304;
  const bool is_head = call.method == "HEAD";
  std::uint64_t length = bytes;
  for (const Http1Header& h : answer.headers) {
    head.field(h.name, h.value);
    // What a GET would have had.
    if (is_head && equals_lower(h.name, "content-length")) length = parse_decimal(h.value).value_or(bytes);
  }
  if (!no_content) head.length(length);
  call.answered = call.finished = true;
  if (bytes == 0 || no_content || is_head) {
    answer.body.clear();
    session_.send_headers(call.stream, head.view(), true);
  } else {
    session_.respond(call.stream, head.view(), std::move(answer.body), {});
  }
}

void Http2Rest::begin(Call& call, int status, RestFields headers) {
  ResponseHead head(status);
  for (const auto& [name, value] : headers) head.field(name, value);
  call.answered = true;
  session_.send_headers(call.stream, head.view(), call.method == "HEAD");
}

void Http2Rest::chunk(Call& call, std::span<const std::byte> piece) {
  if (piece.empty() || call.method == "HEAD") return;
  OutMessage out;
  out.own.append(piece);
  session_.send_message(call.stream, std::move(out));
}

void Http2Rest::end(Call& call) {
  call.finished = true;
  session_.send_trailers(call.stream, {});
}

void Http2Rest::abort(Call& call) {
  call.finished = true;
  session_.reset(call.stream, Http2Error::kInternalError);
}

// HTTP/1.1's timeouts, by the connection's last bytes: an idle one is closed, bodies that stopped coming are answered 408.
bool Http2Rest::tick(Nanos now) {
  const Http1Limits limits;
  const Nanos quiet = now - now_;
  if (connection_.calls().empty()) {
    if (quiet < limits.idle_timeout_ns) return false;
    session_.shutdown();
    session_.shutdown();  // the peer may not answer the first one
    return true;
  }
  if (quiet < limits.body_timeout_ns) return false;
  for (Call* call : connection_.calls()) {
    const bool receiving = call->stream_open && !call->in_engine && !call->in_loop && !call->answered;
    if (receiving) {
      refuse(*call, {408, Code::kDeadlineExceeded, "timed out waiting for the request body"});
    }
  }
  return true;
}

}  // namespace fastserve
