// One call on one connection: the neutral request plus what its protocol needs to answer it. Pooled by the IoLoop.
//
// A call is held by up to four parties, each a flag; it goes back to the pool when the last lets go:
//   stream_open  the connection's stream (or HTTP/1.1 request) still expects an answer or is being received
//   in_engine    the engine owns `request` until its final response
//   in_loop      a Python coroutine answers it (cold call)
//   in_output    the socket's write queue refers to memory of its response
// Thread: the loop's.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "batch/request.h"
#include "codec/compression.h"
#include "codec/grpc_framing.h"
#include "codec/http2_session.h"

namespace fastserve {

class Connection;
class GrpcStream;

// kGrpcStream: a ModelStreamInfer RPC; its requests are calls of kind kGrpcInfer with `in_stream`.
enum class CallKind : std::uint8_t { kGrpcInfer, kRestInfer, kGrpcCold, kHttpCold, kGrpcStream };

struct Call {
  Request request;
  Connection* connection = nullptr;  // nullptr: the connection is gone
  StreamId stream = 0;               // gRPC only
  GrpcStream* in_stream = nullptr;   // gRPC only: the ModelStreamInfer RPC that it is part of
  CallKind kind = CallKind::kGrpcInfer;
  bool stream_open = false;
  bool in_engine = false;
  bool in_loop = false;
  bool in_output = false;
  bool answered = false;        // an answer was begun; what else the client sends is dropped
  bool finished = false;        // and ended
  bool cancel_noticed = false;  // cold: the coroutine was told that nobody waits any more
  GrpcDeframer deframer;

  // Cold calls, and the raw request of REST. Views into the wire do not survive the event, so these are copies.
  std::string method;
  std::string target;   // gRPC: the path
  std::string peer;     // "address:port"; "" over a Unix socket
  bool secure = false;  // came over TLS
  std::vector<std::pair<std::string, std::string>> fields;
  std::string header_length;  // REST: Inference-Header-Content-Length
  bool has_header_length = false;
  Compression body_coding = Compression::kIdentity;  // REST: of the request's body, by Content-Encoding
  Compression answer_coding =
      Compression::kIdentity;  // of the response: REST by Accept-Encoding, gRPC see grpc_compression.h
  bool takes_messages =
      false;  // cold gRPC with a stream of requests: handed over at its headers, its messages follow
  int unread_messages = 0;  // handed over and not yet taken
  void* loop_object =
      nullptr;  // cold: the answering side's object for it (borrowed); touched only by that side's thread

  bool held() const { return stream_open || in_engine || in_loop || in_output; }
};

}  // namespace fastserve
