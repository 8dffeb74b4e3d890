#include "frontend/http_connection.h"

#include <charconv>
#include <string>

#include "codec/json_writer.h"
#include "codec/rest_infer.h"
#include "codec/rest_route.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

constexpr Http1Header kJson{"content-type", "application/json"};

Http1Limits limits_of(const IoLimits& limits) {
  Http1Limits out;
  out.body_bytes = limits.max_message_bytes;
  return out;
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

bool is_identity(std::optional<std::string_view> encoding) {
  return !encoding || encoding->empty() || *encoding == "identity";
}

std::vector<Http1Header> views(HttpConnection::Fields fields) {
  std::vector<Http1Header> out;
  for (const auto& [name, value] : fields) out.push_back({name, value});
  return out;
}

}  // namespace

HttpConnection::HttpConnection(IoLoop& loop, int fd, void* driver)
    : Connection(loop, fd, driver), session_(*this, limits_of(loop.limits())) {}

HttpConnection::~HttpConnection() = default;

void HttpConnection::opened(Nanos now) { static_cast<void>(session_.feed({}, now)); }

void HttpConnection::feed(std::span<const std::byte> bytes, Nanos now) {
  now_ = now;
  parsing_ = true;
  static_cast<void>(session_.feed(bytes, now));  // a framing error was answered and shows as want_close
  parsing_ = false;
}

ByteBuffer* HttpConnection::on_request(const Http1Head& head) {
  Call& call = loop_.new_call(*this, CallKind::kHttpCold);
  current_ = &call;
  call.request.times.received = now_;
  RestRoute route;
  const RestMatch match =
      head.method == "POST" ? match_infer_route(head.path, call.request.scratch, route) : RestMatch::kOther;
  if (match == RestMatch::kOther) {
    copy_head(head, call);
    return &call.request.message;
  }
  call.kind = CallKind::kRestInfer;
  if (match == RestMatch::kMalformed) {
    refuse(call, 400, "malformed percent-encoding in the path");
    return nullptr;
  }
  if (!is_identity(head.header("content-encoding"))) {
    refuse(call, 415, "content-encoding: compressed requests are not supported yet, send identity");
    return nullptr;
  }
  // The route's names may point into the head, which is gone after this event.
  call.target.assign(route.model).append(route.version);
  const std::string_view names = call.target;
  call.request.model_name = names.substr(0, route.model.size());
  call.request.model_version = names.substr(route.model.size());
  if (const auto length = head.header("inference-header-content-length")) {
    call.has_header_length = true;
    call.header_length = *length;
  }
  return &call.request.message;
}

void HttpConnection::on_end() {
  Call* call = current_;
  if (call == nullptr) return;
  if (call->kind == CallKind::kHttpCold) {
    loop_.add_cold(*call);
    return;
  }
  Status status = decode(*call);
  if (status.is_ok()) status = loop_.submit(*call);
  if (!status.is_ok()) {
    loop_.count_refused(status.code());
    refuse(*call, http_status(status.code()), with_request_id(call->request.id, status.message()));
  }
}

Status HttpConnection::decode(Call& call) {
  Request& request = call.request;
  RestForm form = RestForm::kJson;
  const auto length =
      call.has_header_length ? std::optional<std::string_view>(call.header_length) : std::nullopt;
  FS_RETURN_IF_ERROR(decode_rest_infer(request.message.span(), length, request, form));
  if (form == RestForm::kJson) return Status::ok();
  FS_ASSIGN_OR_RETURN(ServedVersion* const version,
                      loop_.engine().resolve(request.model_name, request.model_version));
  Status status =
      complete_raw_request(version->signature, request.model_name, request.message.span(), request);
  version->release();
  return status;
}

void HttpConnection::on_error(int http_status, std::string_view /*reason*/) {
  lingers_ = http_status != 0;
  if (current_ != nullptr) closed(*current_);
}

void HttpConnection::deliver(Call& call, Nanos now) {
  Response& response = call.request.response;
  OutMessage& body = loop_.scratch_message();
  RestHead head;
  Status status = response.status;
  if (status.is_ok()) status = encode_rest_infer(response, *call.request.version, call.request, body, head);
  if (!status.is_ok()) {
    refuse(call, http_status(status.code()), with_request_id(call.request.id, status.message()));
  } else {
    if (body.needs_keep()) body.keep = loop_.keep_for_output(call);
    char digits[24];
    Http1Header headers[2] = {{"content-type", head.content_type}, {"inference-header-content-length", {}}};
    if (head.json_length) {
      const auto end = std::to_chars(std::begin(digits), std::end(digits), *head.json_length).ptr;
      headers[1].value = {digits, static_cast<std::size_t>(end - digits)};
    }
    session_.respond(200, std::span(headers).first(head.json_length ? 2 : 1), std::move(body));
    closed(call);
  }
  now_ = now;
  static_cast<void>(session_.resume(now));  // the next pipelined request
}

void HttpConnection::refuse(Call& call, int http_status, std::string_view message) {
  const std::string body = error_body(message);
  session_.respond(http_status, std::span(&kJson, 1), body);
  call.answered = call.finished = true;
  closed(call);
}

void HttpConnection::closed(Call& call) {
  if (current_ == &call) current_ = nullptr;
  call.stream_open = false;
  if (!call.finished) loop_.abandon(call);
  loop_.let_go(call);
}

void HttpConnection::respond(Call& call, int status, Fields headers, std::span<const std::byte> body) {
  call.answered = true;
  session_.respond(status, views(headers), {reinterpret_cast<const char*>(body.data()), body.size()});
  call.finished = true;
  closed(call);
  if (!parsing_) static_cast<void>(session_.resume(monotonic_now()));
}

void HttpConnection::begin(int status, Fields headers) {
  if (current_ != nullptr) current_->answered = true;
  session_.respond_begin(status, views(headers));
}

void HttpConnection::abort(Call& call) {
  session_.respond_abort();
  call.finished = true;
  closed(call);
}

void HttpConnection::end(Call& call) {
  session_.respond_end();
  call.finished = true;
  closed(call);
  if (!parsing_) static_cast<void>(session_.resume(monotonic_now()));
}

}  // namespace fastserve
