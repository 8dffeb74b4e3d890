#include "frontend/grpc_connection.h"

#include <string>

#include "codec/oip_infer.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

constexpr std::string_view kInferPath = "/inference.GRPCInferenceService/ModelInfer";
// Answered from its headers: its clients never half-close, so a cold call would not be dispatched before their deadline.
constexpr std::string_view kStreamInferPath = "/inference.GRPCInferenceService/ModelStreamInfer";

Http2Limits limits_of(const IoLimits& limits) {
  Http2Limits out;
  out.max_streams = limits.max_streams;
  return out;
}

// Better refused than answered with the raw tensor.
Status refuse_classification(const Request& request) {
  for (const RequestedOutput& output : request.requested_outputs) {
    if (output.classification == 0) continue;
    return unimplemented("outputs[\"" + std::string(output.name.substr(0, 128)) +
                         "\"].parameters[\"classification\"]: not supported yet");
  }
  return Status::ok();
}

void copy_metadata(const Http2Head& head, Call& call) {
  call.method = head.method;
  call.target = head.path;
  for (const Http2Header& field : head.fields) call.fields.emplace_back(field.name, field.value);
}

}  // namespace

GrpcConnection::GrpcConnection(IoLoop& loop, int fd, void* driver)
    : Connection(loop, fd, driver), session_(*this, limits_of(loop.limits())) {}

GrpcConnection::~GrpcConnection() = default;

void GrpcConnection::feed(std::span<const std::byte> bytes, Nanos now) {
  now_ = now;
  if (!session_.feed(bytes, now).is_ok()) failed_ = true;
}

void GrpcConnection::on_request(StreamId stream, const Http2Head& head) {
  if (head.method != "POST" || !is_grpc_content_type(head.find("content-type"))) {
    const Http2Header answer[] = {{":status", head.method != "POST" ? "405" : "415", true}};
    session_.send_headers(stream, answer, true);
    return;
  }
  begin_call(stream, head);
}

void GrpcConnection::begin_call(StreamId stream, const Http2Head& head) {
  const bool hot = head.path == kInferPath;
  Call& call = loop_.new_call(*this, hot ? CallKind::kGrpcInfer : CallKind::kGrpcCold);
  call.stream = stream;
  call.deframer = GrpcDeframer(loop_.limits().max_message_bytes);
  call.deframer.set_encoding(head.find("grpc-encoding"));
  session_.set_stream_data(stream, &call);
  call.request.times.received = now_;
  if (!hot) copy_metadata(head, call);
  if (head.path == kStreamInferPath) {
    refuse(call, unimplemented("ModelStreamInfer is not supported yet; use ModelInfer"));
    return;
  }
  // Work of streams that were reset still counts: a client cannot pile up more than it may have open.
  if (calls_.size() > loop_.limits().max_streams) {
    refuse(call, {Code::kResourceExhausted, "connection has " + std::to_string(calls_.size()) +
                                                " calls in work, want " +
                                                std::to_string(loop_.limits().max_streams) + " or fewer"});
    return;
  }
  if (const std::string_view text = head.find("grpc-timeout"); !text.empty()) {
    const auto timeout = parse_grpc_timeout(text);
    if (!timeout) {
      refuse(call, invalid_argument("grpc-timeout: got \"" + std::string(text.substr(0, 32)) +
                                    "\", want up to 8 digits and one of H M S m u n"));
      return;
    }
    call.request.deadline = *timeout < kNever - now_ ? now_ + *timeout : kNever;
  }
}

void GrpcConnection::on_data(StreamId stream, std::span<const std::byte> bytes) {
  Call* call = call_of(stream);
  if (call == nullptr || call->answered) return;
  if (const Status status = call->deframer.feed_unary(bytes, call->request.message); !status.is_ok()) {
    refuse(*call, status);
  }
}

void GrpcConnection::on_end(StreamId stream) {
  Call* call = call_of(stream);
  if (call == nullptr || call->answered) return;
  if (const Status status = call->deframer.finish_unary(); !status.is_ok()) {
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
  call->stream_open = false;
  loop_.abandon(*call);
  loop_.let_go(*call);
}

void GrpcConnection::infer(Call& call) {
  Status status = decode_model_infer(call.request.message.span(), call.request);
  if (status.is_ok()) status = refuse_classification(call.request);
  if (status.is_ok()) status = loop_.submit(call);
  if (status.is_ok()) return;
  refuse(call, {status.code(), with_request_id(call.request.id, status.message())});
}

void GrpcConnection::deliver(Call& call, Nanos /*now*/) {
  Response& response = call.request.response;
  OutMessage& message = loop_.scratch_message();
  Status status = response.status;
  if (status.is_ok()) status = encode_model_infer(response, *call.request.version, call.request, message);
  if (!status.is_ok()) {
    finish_with(call, status.code(), with_request_id(call.request.id, status.message()), {});
    return;
  }
  if (message.needs_keep()) message.keep = loop_.keep_for_output(call);
  call.answered = call.finished = true;
  session_.respond(call.stream, kGrpcOkHeaders, std::move(message), kGrpcOkTrailers);
}

void GrpcConnection::refuse(Call& call, const Status& status) {
  if (call.kind == CallKind::kGrpcInfer) loop_.count_refused(status.code());
  finish_with(call, status.code(), status.message(), {});
}

void GrpcConnection::send(Call& call, std::span<const std::byte> message) {
  if (!call.answered) session_.send_headers(call.stream, kGrpcOkHeaders, false);
  call.answered = true;
  OutMessage out;
  write_grpc_prefix(out.own.extend(kGrpcPrefixBytes), message.size());
  out.own.append(message);
  session_.send_message(call.stream, std::move(out));
}

void GrpcConnection::finish(Call& call, Code code, std::string_view message,
                            std::span<const std::pair<std::string, std::string>> trailers) {
  finish_with(call, code, message, trailers);
}

// Trailers, or Trailers-Only when no message went out before.
void GrpcConnection::finish_with(Call& call, Code code, std::string_view message,
                                 std::span<const std::pair<std::string, std::string>> trailers) {
  const std::string code_text = std::to_string(static_cast<int>(code));
  std::string encoded;
  append_grpc_message(message, encoded);
  std::vector<Http2Header> headers;
  const bool trailers_only = !call.answered;
  if (trailers_only) headers.assign(std::begin(kGrpcOkHeaders), std::end(kGrpcOkHeaders));
  headers.push_back({"grpc-status", code_text});
  if (!encoded.empty()) headers.push_back({"grpc-message", encoded});
  if (code == Code::kUnimplemented) headers.push_back({"grpc-accept-encoding", "identity", true});
  for (const auto& [name, value] : trailers) headers.push_back({name, value});
  call.answered = call.finished = true;
  if (trailers_only) {
    session_.send_headers(call.stream, headers, true);
  } else {
    session_.send_trailers(call.stream, headers);
  }
}

}  // namespace fastserve
