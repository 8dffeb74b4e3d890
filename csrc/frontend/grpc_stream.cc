#include "frontend/grpc_stream.h"

#include <utility>

#include "codec/oip_infer.h"
#include "frontend/grpc_connection.h"
#include "frontend/io_loop.h"

namespace fastserve {

GrpcStream::GrpcStream(GrpcConnection& connection, Call& rpc, bool status_on_error)
    : connection_(connection), rpc_(rpc), status_on_error_(status_on_error) {}

GrpcStream::~GrpcStream() { drop_all(); }

bool GrpcStream::full() const {
  const IoLimits& limits = connection_.loop_.limits();
  return calls_.size() >= limits.max_stream_requests || connection_.stream_calls_ >= limits.max_streams ||
         connection_.session_.queued_bytes(rpc_.stream) > kMaxQueuedBytes;
}

bool GrpcStream::has_work() const {
  if (over_) return false;
  return (!calls_.empty() && !calls_.front()->in_engine) || (!held_.empty() && !full());
}

void GrpcStream::on_data(std::span<const std::byte> bytes) {
  if (over_ || draining_) return;
  if (held_.empty()) bytes = take(bytes);
  if (over_ || bytes.empty()) return;
  held_.append(bytes);
  connection_.session_.hold_window(rpc_.stream, true);
  connection_.mark_work(*this);
}

std::span<const std::byte> GrpcStream::take(std::span<const std::byte> bytes) {
  GrpcDeframer& deframer = rpc_.deframer;
  while (!bytes.empty() && !over_) {
    if (next_ == nullptr) {
      if (full()) return bytes;
      next_ = &connection_.new_stream_call(*this);
    }
    Status status = deframer.feed(bytes, next_->request.message);
    if (status.is_ok() && !deframer.complete()) return {};  // used up
    if (status.is_ok() && deframer.compressed())
      status = connection_.unpack(deframer, next_->request.message);
    if (!status.is_ok()) {
      connection_.loop_.count_refused(status.code());
      fail(status);
      return {};
    }
    deframer.next();
    submit(*std::exchange(next_, nullptr));
  }
  return bytes;
}

void GrpcStream::submit(Call& call) {
  call.request.deadline = rpc_.request.deadline;
  call.request.times.received = connection_.now_;
  calls_.push_back(&call);
  const Status status = connection_.submit(call);
  if (status.is_ok()) return;
  connection_.loop_.count_refused(status.code());
  call.request.response.status = status;
  connection_.mark_work(*this);
}

void GrpcStream::on_end() {
  if (over_) return;
  input_ended_ = true;
  if (held_.empty()) finish_input();
}

// The client's half-close, after all that it sent was taken.
void GrpcStream::finish_input() {
  if (draining_) return;  // the rest of a message was dropped
  if (const Status status = rpc_.deframer.finish(); !status.is_ok()) {
    fail(status);
  } else {
    finish_if_done();
  }
}

void GrpcStream::drain() {
  draining_ = true;
  held_.clear();
  if (next_ != nullptr) drop(*std::exchange(next_, nullptr));
  finish_if_done();
}

void GrpcStream::tick(Nanos now) {
  if (!over_ && now >= rpc_.request.deadline) fail({Code::kDeadlineExceeded, "Deadline Exceeded"});
}

void GrpcStream::work(Nanos now) {
  while (answer_ready(now) && !held_.empty()) take_up_held();  // which may have refused some: they are ready
  finish_if_done();
  if (!over_ && !held_.empty())
    connection_.mark_work(*this);  // output may make room without an event of ours
}

// Answers from the front as far as they are there. False when the stream ended, or is full.
bool GrpcStream::answer_ready(Nanos now) {
  while (!over_ && !calls_.empty() && !calls_.front()->in_engine) {
    Call& call = *calls_.front();
    calls_.pop_front();
    answer(call, now);
  }
  return !over_ && !full();
}

void GrpcStream::answer(Call& call, Nanos now) {
  if (now >= rpc_.request.deadline) {
    drop(call);
    return fail({Code::kDeadlineExceeded, "Deadline Exceeded"});
  }
  OutMessage& message = connection_.loop_.scratch_message();
  Status status = call.request.response.status;
  if (status.is_ok()) status = connection_.classify(call);
  if (status.is_ok()) {
    status = encode_model_stream_infer(call.request.response, *call.request.version, call.request, message);
  }
  if (!status.is_ok()) {
    const std::string words = with_request_id(call.request.id, status.message());
    if (status_on_error_) {
      drop(call);
      return fail({status.code(), words});
    }
    encode_stream_error(call.request.id, words, message);
  }
  connection_.send_framed(rpc_, call, message);
  drop(call);
}

void GrpcStream::take_up_held() {
  const std::span<const std::byte> rest = take(held_.span().subspan(held_from_));
  held_from_ = held_.size() - rest.size();
  if (over_ || !rest.empty()) return;
  held_.clear();
  held_from_ = 0;
  connection_.session_.hold_window(rpc_.stream, false);
  if (input_ended_) finish_input();
}

void GrpcStream::finish_if_done() {
  if (over_ || !calls_.empty()) return;
  if (input_ended_ && held_.empty()) {
    over_ = true;
    connection_.finish(rpc_, Code::kOk, {}, {});
  } else if (draining_) {
    fail(unavailable("the server is shutting down"));
  }
}

void GrpcStream::fail(const Status& status) {
  over_ = true;
  drop_all();
  connection_.finish(rpc_, status.code(), status.message(), {});
}

// Nobody waits for its answer any more; what is not answered is cancelled.
void GrpcStream::drop(Call& call) {
  --connection_.stream_calls_;
  call.stream_open = false;
  call.in_stream = nullptr;
  connection_.loop_.abandon(call);
  connection_.loop_.let_go(call);
}

void GrpcStream::drop_all() {
  for (Call* call : std::exchange(calls_, {})) drop(*call);
  if (next_ != nullptr) drop(*std::exchange(next_, nullptr));
}

}  // namespace fastserve
