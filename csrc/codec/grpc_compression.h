// gRPC message compression (the gRPC repository's compression and PROTOCOL-HTTP2 documents): which encoding an answer gets,
// what its headers say, and the messages themselves. Any thread.
//
// The rule: an answer is compressed when the client says that it can read it (grpc-accept-encoding) and either compressed its
// own request (grpc-encoding; the answer then has the same encoding) or the server is told to compress for everybody (gzip
// before deflate). A message below kCompressGrpcFromBytes, or one that would not get smaller, goes out as it is, with the flag
// 0 that the framing has for it. gRPC leaves the choice to the server; Triton has only the switch.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "codec/compression.h"
#include "codec/http2_session.h"
#include "codec/out_message.h"

namespace fastserve {

// Below this an HTTP/2 frame is one packet anyway, and compressing costs more than it saves.
inline constexpr std::size_t kCompressGrpcFromBytes = 1024;

// What every answer announces that can be sent to us: on the first answer of a connection, with compressed answers, and with
// UNIMPLEMENTED (there the protocol asks for it).
inline constexpr Http2Header kGrpcAcceptEncoding{"grpc-accept-encoding", "identity,deflate,gzip", true};

// `accepted`: the value of grpc-accept-encoding, names separated by commas.
Compression choose_grpc_encoding(std::string_view request_encoding, std::string_view accepted,
                                 bool always_compress);

// The response headers before the first message. `announce` adds grpc-accept-encoding, which compressed answers always have.
std::span<const Http2Header> grpc_answer_head(Compression encoding, bool announce);

// Replaces a framed message (prefix and payload, in `own` and `external`) by its compressed form, flag 1. Leaves it as it is
// when that does not pay. What it referred to needs no `keep` any more when it returns true.
bool compress_grpc_message(Compression encoding, OutMessage& message);

}  // namespace fastserve
