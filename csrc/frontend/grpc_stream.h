// One ModelStreamInfer RPC: a bidirectional stream of requests and answers. Every message becomes a Call of its own as soon as
// it is complete; the stream owns these calls and says what happens to all of them.
//
//   order      answers go out in the order of the requests, as Triton writes them for models with one answer per request:
//              clients count on it. The requests themselves run at the same time.
//   errors     of one request travel in its answer (error_message, infer_response.id) and the stream goes on; with the
//              metadata `triton_grpc_error: true` the first one ends the stream with its gRPC status instead.
//   limit      IoLimits.max_stream_requests in work, IoLimits.max_streams in all streams of the connection, and kMaxQueuedBytes
//              of answers that the client does not read: beyond that the stream is held by HTTP/2 flow control until an
//              answer leaves. Nothing is refused for it.
//   end        client's half-close: OK after the last answer. Drain: UNAVAILABLE after the answers of the requests that are in.
//              Deadline (grpc-timeout of the RPC), broken framing, a message over the limit: at once, what is in is cancelled.
// Owner: the GrpcConnection. Thread: its loop's.
#pragma once

#include <cstddef>
#include <deque>
#include <span>

#include "base/clock.h"
#include "base/status.h"
#include "frontend/call.h"
#include "memory/byte_buffer.h"

namespace fastserve {

class GrpcConnection;

class GrpcStream {
 public:
  static constexpr std::size_t kMaxQueuedBytes = std::size_t{1} << 20;

  // `rpc`: the call of the RPC itself (kind kGrpcStream); it collects nothing, its deframer cuts the messages.
  GrpcStream(GrpcConnection& connection, Call& rpc, bool status_on_error);
  ~GrpcStream();  // cancels and lets go of its calls
  GrpcStream(const GrpcStream&) = delete;
  GrpcStream& operator=(const GrpcStream&) = delete;

  void on_data(std::span<const std::byte> bytes);
  void on_end();
  void drain();
  void tick(Nanos now);  // the deadline of a stream on which nothing happens

  // Once a pass: sends the answers whose turn it is, takes up what was held back, ends the stream when all is done.
  void work(Nanos now);
  bool has_work() const;

  Call& rpc() { return rpc_; }

 private:
  friend class GrpcConnection;

  std::span<const std::byte> take(std::span<const std::byte> bytes);  // what the limit leaves
  void submit(Call& call);
  bool answer_ready(Nanos now);
  void answer(Call& call, Nanos now);
  void take_up_held();
  void finish_input();
  void finish_if_done();
  void fail(const Status& status);
  void drop(Call& call);
  void drop_all();
  bool full() const;

  GrpcConnection& connection_;
  Call& rpc_;
  const bool status_on_error_;
  bool input_ended_ = false;
  bool draining_ = false;
  bool over_ = false;        // its status is out
  bool in_work_ = false;     // stands in the connection's list
  Call* next_ = nullptr;     // collects the message that is being received
  std::deque<Call*> calls_;  // submitted or refused, in the order of the requests, until answered
  ByteBuffer held_;          // received beyond the limit; at most what the client's window allowed
  std::size_t held_from_ = 0;
};

}  // namespace fastserve
