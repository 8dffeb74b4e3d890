#include "frontend/grpc_connection.h"

#include <algorithm>
#include <string>

#include "codec/classification.h"
#include "codec/grpc_compression.h"
#include "codec/oip_infer.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

constexpr std::string_view kInferPath = "/inference.GRPCInferenceService/ModelInfer";
constexpr std::string_view kStreamInferPath = "/inference.GRPCInferenceService/ModelStreamInfer";

// Of the buffer that messages are unpacked to, kept from one to the next.
constexpr std::size_t kKeepUnpackedBytes = 64 * 1024;

// Messages of a cold call's stream that wait for the loop that answers it, before its client is held.
constexpr int kMostUnread = 16;

Http2Limits limits_of(const IoLimits& limits) {
  Http2Limits out;
  out.max_streams = limits.max_streams;
  return out;
}

void copy_metadata(const Http2Head& head, Call& call) {
  call.method = head.method;
  call.target = head.path;
  for (const Http2Header& field : head.fields) call.fields.emplace_back(field.name, field.value);
}

}  // namespace

GrpcConnection::GrpcConnection(IoLoop& loop, int fd, void* driver)
    : Connection(loop, fd, driver), session_(*this, limits_of(loop.limits())) {}

GrpcConnection::~GrpcConnection() {
  if (const Status status = session_.status(); !status.is_ok()) loop_.count_refused(status.code());
}

void GrpcConnection::feed(std::span<const std::byte> bytes, Nanos now) {
  now_ = now;
  if (!session_.feed(bytes, now).is_ok()) failed_ = true;
}

// A ModelInfer without deadline or compression: its headers say nothing else that matters. Clients repeat their headers, so
// this is read once and holds for the requests that follow.
bool GrpcConnection::is_plain_infer(const Http2Head& head) const {
  return head.path == kInferPath && head.method == "POST" &&
         is_grpc_content_type(head.find("content-type")) && head.find("grpc-encoding").empty() &&
         head.find("grpc-timeout").empty() && !loop_.limits().compress_answers;
}

void GrpcConnection::on_request(StreamId stream, const Http2Head& head) {
  if (!head.repeated) plain_infer_ = is_plain_infer(head);
  if (plain_infer_) {
    too_many_calls(open_call(stream, CallKind::kGrpcInfer));
    return;
  }
  if (head.method != "POST" || !is_grpc_content_type(head.find("content-type"))) {
    const Http2Header answer[] = {{":status", head.method != "POST" ? "405" : "415", true}};
    session_.send_headers(stream, answer, true);
    return;
  }
  begin_call(stream, head);
}

Call& GrpcConnection::open_call(StreamId stream, CallKind kind) {
  Call& call = loop_.new_call(*this, kind);
  call.stream = stream;
  call.deframer = GrpcDeframer(loop_.limits().max_message_bytes);
  call.answer_coding = Compression::kIdentity;
  session_.set_stream_data(stream, &call);
  call.request.times.received = now_;
  return call;
}

// Work of streams that were reset still counts: a client cannot pile up more than it may have open.
bool GrpcConnection::too_many_calls(Call& call) {
  const std::uint32_t limit = loop_.limits().max_streams;
  const std::size_t open = calls_.size() - stream_calls_;
  if (open <= limit) return false;
  refuse(call, {Code::kResourceExhausted, "connection has " + std::to_string(open) + " calls in work, want " +
                                              std::to_string(limit) + " or fewer"});
  return true;
}

void GrpcConnection::begin_call(StreamId stream, const Http2Head& head) {
  const IoLimits& limits = loop_.limits();
  const bool hot = head.path == kInferPath;
  const bool streams = !hot && head.path == kStreamInferPath;
  Call& call = open_call(stream, hot       ? CallKind::kGrpcInfer
                                 : streams ? CallKind::kGrpcStream
                                           : CallKind::kGrpcCold);
  const std::string_view encoding = head.find("grpc-encoding");
  call.deframer.set_encoding(encoding);
  if (!encoding.empty() || limits.compress_answers) {
    call.answer_coding =
        choose_grpc_encoding(encoding, head.find("grpc-accept-encoding"), limits.compress_answers);
  }
  if (call.kind == CallKind::kGrpcCold) copy_metadata(head, call);
  if (too_many_calls(call)) return;
  if (const std::string_view text = head.find("grpc-timeout"); !text.empty()) {
    const auto timeout = parse_grpc_timeout(text);
    if (!timeout) {
      refuse(call, invalid_argument("grpc-timeout: got \"" + std::string(text.substr(0, 32)) +
                                    "\", want up to 8 digits and one of H M S m u n"));
      return;
    }
    call.request.deadline = *timeout < kNever - now_ ? now_ + *timeout : kNever;
  }
  if (streams) begin_stream(call, head);
  if (call.kind == CallKind::kGrpcCold) begin_messages(call);
}

// A cold method that takes a stream of requests starts before the first of them: its client may wait for an answer to one
// before it sends the next.
void GrpcConnection::begin_messages(Call& call) {
  const auto& paths = loop_.limits().client_streams;
  if (paths == nullptr || std::ranges::find(*paths, call.target) == paths->end()) return;
  call.takes_messages = true;
  loop_.add_cold(call);
}

void GrpcConnection::on_cold_data(Call& call, std::span<const std::byte> bytes) {
  ByteBuffer& message = call.request.message;
  while (!bytes.empty()) {
    Status status = call.deframer.feed(bytes, message);
    if (status.is_ok() && !call.deframer.complete()) return;
    if (status.is_ok() && call.deframer.compressed()) status = unpack(call.deframer, message);
    if (!status.is_ok()) return refuse(call, status);
    loop_.add_cold_message({&call, std::string(message.view())});
    message.clear();
    call.deframer.next();
    if (++call.unread_messages >= kMostUnread) session_.hold_window(call.stream, true);
  }
}

void GrpcConnection::on_cold_end(Call& call) {
  if (const Status status = call.deframer.finish(); !status.is_ok()) return refuse(call, status);
  loop_.add_cold_message({&call, {}, true});
}

void GrpcConnection::took_message(Call& call) {
  if (call.unread_messages == kMostUnread - 1) session_.hold_window(call.stream, false);
}

void GrpcConnection::begin_stream(Call& rpc, const Http2Head& head) {
  if (loop_.draining()) return refuse(rpc, unavailable("the server is shutting down"));
  const bool status_on_error = head.find("triton_grpc_error") == "true";
  rpc.in_stream = streams_.emplace_back(std::make_unique<GrpcStream>(*this, rpc, status_on_error)).get();
}

void GrpcConnection::end_stream(Call& rpc) {
  GrpcStream* stream = std::exchange(rpc.in_stream, nullptr);
  std::erase(with_work_, stream);
  std::erase_if(streams_, [stream](const auto& each) { return each.get() == stream; });
}

Call& GrpcConnection::new_stream_call(GrpcStream& stream) {
  Call& call = loop_.new_call(*this, CallKind::kGrpcInfer);
  call.stream = stream.rpc().stream;
  call.in_stream = &stream;
  ++stream_calls_;
  return call;
}

void GrpcConnection::mark_work(GrpcStream& stream) {
  if (stream.in_work_) return;
  stream.in_work_ = true;
  with_work_.push_back(&stream);
}

void GrpcConnection::on_data(StreamId stream, std::span<const std::byte> bytes) {
  Call* call = call_of(stream);
  if (call == nullptr) return;
  if (call->in_stream != nullptr) return call->in_stream->on_data(bytes);
  if (call->takes_messages && !call->finished) return on_cold_data(*call, bytes);
  if (call->answered) return;
  if (const Status status = call->deframer.feed_unary(bytes, call->request.message); !status.is_ok()) {
    refuse(*call, status);
  }
}

void GrpcConnection::on_end(StreamId stream) {
  Call* call = call_of(stream);
  if (call == nullptr) return;
  if (call->in_stream != nullptr) return call->in_stream->on_end();
  if (call->takes_messages && !call->finished) return on_cold_end(*call);
  if (call->answered) return;
  Status status = call->deframer.finish_unary();
  if (status.is_ok() && call->deframer.compressed()) status = unpack(call->deframer, call->request.message);
  if (!status.is_ok()) {
    refuse(*call, status);
  } else if (call->kind == CallKind::kGrpcInfer) {
    infer(*call);
  } else {
    loop_.add_cold(*call);
  }
}

void GrpcConnection::on_closed(StreamId stream, Http2Error /*error*/) {
  Call* call = call_of(stream);
  if (call == nullptr) return;
  if (call->in_stream != nullptr) end_stream(*call);
  call->stream_open = false;
  loop_.abandon(*call);
  loop_.let_go(*call);
}

Status GrpcConnection::unpack(GrpcDeframer& deframer, ByteBuffer& message) {
  Status status = deframer.unpack(message, unpacked_);
  unpacked_.shrink(kKeepUnpackedBytes);
  return status;
}

Status GrpcConnection::submit(Call& call) {
  FS_RETURN_IF_ERROR(decode_model_infer(call.request.message.span(), call.request));
  return loop_.submit(call);
}

void GrpcConnection::infer(Call& call) {
  const Status status = submit(call);
  if (status.is_ok()) return;
  refuse(call, status.worded(with_request_id(call.request.id, status.message())));
}

Status GrpcConnection::classify(Call& call) { return classify_outputs(*call.request.version, call.request); }

void GrpcConnection::deliver(Call& call, Nanos /*now*/) {
  if (call.in_stream != nullptr) return mark_work(*call.in_stream);
  Response& response = call.request.response;
  OutMessage& message = loop_.scratch_message();
  Status status = response.status;
  if (status.is_ok() && !call.request.requested_outputs.empty()) status = classify(call);
  if (status.is_ok()) status = encode_model_infer(response, *call.request.version, call.request, message);
  if (!status.is_ok()) {
    finish_with(call, status.code(), with_request_id(call.request.id, status.message()), {},
                status.retry_after_s());
    return;
  }
  if (call.answer_coding != Compression::kIdentity) compress_grpc_message(call.answer_coding, message);
  if (message.needs_keep()) message.keep = loop_.keep_for_output(call);
  const auto head = answer_head(call);
  call.answered = call.finished = true;
  session_.respond(call.stream, head, std::move(message), kGrpcOkTrailers);
}

std::span<const Http2Header> GrpcConnection::answer_head(const Call& call) {
  return grpc_answer_head(call.answer_coding, !std::exchange(announced_, true));
}

void GrpcConnection::send_framed(Call& rpc, Call& source, OutMessage& message) {
  if (rpc.answer_coding != Compression::kIdentity) compress_grpc_message(rpc.answer_coding, message);
  if (message.needs_keep()) message.keep = loop_.keep_for_output(source);
  if (!rpc.answered) session_.send_headers(rpc.stream, answer_head(rpc), false);
  rpc.answered = true;
  session_.send_message(rpc.stream, std::move(message));
}

void GrpcConnection::pump(WriteQueue& out) {
  std::vector<GrpcStream*> turn;
  do {
    turn.clear();
    turn.swap(with_work_);
    for (GrpcStream* stream : turn) stream->in_work_ = false;
    const Nanos now = turn.empty() ? 0 : monotonic_now();
    for (GrpcStream* stream : turn) stream->work(now);
    session_.write(out);
    // What went out may have made room for requests that were held back.
  } while (std::ranges::any_of(with_work_, [](const GrpcStream* each) { return each->has_work(); }));
}

void GrpcConnection::shutdown() {
  session_.shutdown();
  for (const auto& stream : streams_) stream->drain();
}

bool GrpcConnection::tick(Nanos now) {
  for (const auto& stream : streams_) stream->tick(now);
  const IoLimits& limits = loop_.limits();
  if (pinged_ <= now_) pinged_ = 0;  // the peer was heard since
  if (!session_.greeted() && now - opened_ >= limits.preface_timeout_ns) {
    loop_.count_refused(Code::kDeadlineExceeded);
    failed_ = true;
    return true;
  }
  if (!wants_input()) return !streams_.empty();
  if (pinged_ == 0 && now - now_ >= limits.keepalive_time_ns) {
    pinged_ = now;
    session_.ping();
    return true;
  }
  if (pinged_ != 0 && now - pinged_ >= limits.keepalive_timeout_ns) {
    failed_ = true;
    return true;
  }
  return !streams_.empty();
}

void GrpcConnection::refuse(Call& call, const Status& status) {
  if (call.kind != CallKind::kGrpcCold) loop_.count_refused(status.code());
  finish_with(call, status.code(), status.message(), {}, status.retry_after_s());
}

void GrpcConnection::send(Call& call, std::span<const std::byte> message) {
  OutMessage out;
  write_grpc_prefix(out.own.extend(kGrpcPrefixBytes), message.size());
  out.own.append(message);
  send_framed(call, call, out);
}

void GrpcConnection::finish(Call& call, Code code, std::string_view message,
                            std::span<const std::pair<std::string, std::string>> trailers) {
  finish_with(call, code, message, trailers);
}

// Trailers, or Trailers-Only when no message went out before.
void GrpcConnection::finish_with(Call& call, Code code, std::string_view message,
                                 std::span<const std::pair<std::string, std::string>> trailers,
                                 std::uint16_t retry_after_s) {
  const std::string code_text = std::to_string(static_cast<int>(code));
  const std::string pushback = std::to_string(retry_after_s * 1000);
  std::string encoded;
  append_grpc_message(message, encoded);
  std::vector<Http2Header> headers;
  const bool trailers_only = !call.answered;
  if (trailers_only) headers.assign(std::begin(kGrpcOkHeaders), std::end(kGrpcOkHeaders));
  headers.push_back({"grpc-status", code_text});
  if (!encoded.empty()) headers.push_back({"grpc-message", encoded});
  if (code == Code::kUnimplemented) headers.push_back(kGrpcAcceptEncoding);
  // gRFC A6: a client that tries again by itself waits so long.
  if (retry_after_s != 0) headers.push_back({"grpc-retry-pushback-ms", pushback});
  for (const auto& [name, value] : trailers) headers.push_back({name, value});
  call.answered = call.finished = true;
  if (trailers_only) {
    session_.send_headers(call.stream, headers, true);
  } else {
    session_.send_trailers(call.stream, headers);
  }
}

}  // namespace fastserve
