#include "frontend/http1_rest.h"

#include <string>

#include "frontend/http_connection.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

Http1Limits limits_of(const IoLimits& limits) {
  Http1Limits out;
  out.body_bytes = limits.max_message_bytes;
  return out;
}

RestRequestHead view_of(const Http1Head& head) {
  return {head.method, head.path, head.header("content-encoding").value_or(""),
          head.header("accept-encoding").value_or(""), head.header("inference-header-content-length")};
}

// What the session refused by itself: framing and limits.
Code code_of(int http_status) {
  switch (http_status) {
    case 408:
      return Code::kDeadlineExceeded;
    case 413:
    case 414:
    case 431:
      return Code::kResourceExhausted;
    case 501:
    case 505:
      return Code::kUnimplemented;
    default:
      return Code::kInvalidArgument;
  }
}

void copy_head(const Http1Head& head, Call& call) {
  call.method = head.method;
  call.target = head.target;
  for (const Http1Header& header : head.headers) {
    std::string name(header.name);
    for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    call.fields.emplace_back(std::move(name), header.value);
  }
}

}  // namespace

Http1Rest::Http1Rest(IoLoop& loop, HttpConnection& connection)
    : RestSession(loop, connection), session_(*this, limits_of(loop.limits())) {}

void Http1Rest::feed(std::span<const std::byte> bytes, Nanos now) {
  now_ = now;
  parsing_ = true;
  static_cast<void>(session_.feed(bytes, now));  // a framing error was answered and shows as want_close
  parsing_ = false;
}

// A client that closed its sending side is taken for gone, as most servers do (TCP does not tell the two apart): an inference
// that has not started is cancelled. What runs is answered, and so are cold and pipelined requests, in case it only
// half-closed.
void Http1Rest::end_of_input() {
  lingers_ = false;
  connection_.cancel_inferences();
  session_.end_of_input();
}

ByteBuffer* Http1Rest::on_request(const Http1Head& head) {
  Call& call = loop_.new_call(connection_, CallKind::kHttpCold);
  current_ = &call;
  call.request.times.received = now_;
  if (const RestVerdict wrong = begin_exchange(view_of(head), call)) {
    refuse(call, *wrong);
    return nullptr;
  }
  if (call.kind == CallKind::kHttpCold) copy_head(head, call);
  return &call.request.message;
}

void Http1Rest::on_end() {
  if (current_ == nullptr) return;
  Call& call = *current_;
  if (const RestVerdict wrong = complete_exchange(loop_, call)) refuse(call, *wrong);
}

void Http1Rest::on_error(int http_status, std::string_view /*reason*/) {
  if (http_status != 0) loop_.count_refused(code_of(http_status));
  lingers_ = http_status != 0;
  if (current_ != nullptr) closed(*current_);
}

void Http1Rest::refuse(Call& call, const RestRefusal& why) {
  loop_.count_refused(why.code);
  RestAnswer out;
  answer_refusal(call, why, out);
  answer(call, out, now_);
}

void Http1Rest::answer(Call& call, RestAnswer& answer, Nanos now) {
  now_ = now;
  session_.respond(answer.status, answer.headers, std::move(answer.body));
  call.answered = call.finished = true;
  closed(call);
  resume(now);
}

void Http1Rest::write(WriteQueue& out) {
  session_.write(out);
  while (!parsing_ && session_.can_resume()) {
    resume(monotonic_now());
    session_.write(out);
  }
}

void Http1Rest::resume(Nanos now) {
  if (parsing_) return;
  parsing_ = true;
  static_cast<void>(session_.resume(now));
  parsing_ = false;
}

void Http1Rest::closed(Call& call) {
  if (current_ == &call) current_ = nullptr;
  call.stream_open = false;
  if (!call.finished) loop_.abandon(call);
  loop_.let_go(call);
}

void Http1Rest::begin(Call& call, int status, RestFields headers) {
  call.answered = true;
  std::vector<Http1Header> views;
  for (const auto& [name, value] : headers) views.push_back({name, value});
  session_.respond_begin(status, views);
}

void Http1Rest::end(Call& call) {
  session_.respond_end();
  call.finished = true;
  closed(call);
  resume(monotonic_now());
}

void Http1Rest::abort(Call& call) {
  session_.respond_abort();
  call.finished = true;
  closed(call);
}

}  // namespace fastserve
