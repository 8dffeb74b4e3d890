#include "codec/grpc_compression.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "codec/grpc_framing.h"

namespace fastserve {
namespace {

constexpr Http2Header kStatus{":status", "200", true};
constexpr Http2Header kType{"content-type", "application/grpc", true};
constexpr Http2Header kAnnounced[] = {kStatus, kType, kGrpcAcceptEncoding};
constexpr Http2Header kGzip[] = {kStatus, kType, kGrpcAcceptEncoding, {"grpc-encoding", "gzip", true}};
constexpr Http2Header kDeflate[] = {kStatus, kType, kGrpcAcceptEncoding, {"grpc-encoding", "deflate", true}};

bool lists(std::string_view accepted, std::string_view name) {
  while (!accepted.empty()) {
    std::string_view item = accepted.substr(0, accepted.find(','));
    accepted.remove_prefix(std::min(item.size() + 1, accepted.size()));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (item == name) return true;
  }
  return false;
}

// The payload in wire order, without the prefix (which is always in `own`).
std::vector<std::span<const std::byte>> payload_pieces(const OutMessage& message) {
  std::vector<std::span<const std::byte>> pieces;
  const std::span<const std::byte> own = message.own.span();
  std::size_t at = kGrpcPrefixBytes;
  for (const OutMessage::External& each : message.external) {
    pieces.push_back(own.subspan(at, each.at - at));
    pieces.push_back(each.bytes);
    at = each.at;
  }
  pieces.push_back(own.subspan(at));
  return pieces;
}

}  // namespace

Compression choose_grpc_encoding(std::string_view request_encoding, std::string_view accepted,
                                 bool always_compress) {
  const auto same = parse_compression(request_encoding);
  if (same && *same != Compression::kIdentity && lists(accepted, request_encoding)) return *same;
  if (!always_compress) return Compression::kIdentity;
  if (lists(accepted, "gzip")) return Compression::kGzip;
  return lists(accepted, "deflate") ? Compression::kDeflate : Compression::kIdentity;
}

std::span<const Http2Header> grpc_answer_head(Compression encoding, bool announce) {
  switch (encoding) {
    case Compression::kGzip:
      return kGzip;
    case Compression::kDeflate:
      return kDeflate;
    case Compression::kIdentity:
      break;
  }
  return announce ? std::span<const Http2Header>(kAnnounced) : std::span<const Http2Header>(kGrpcOkHeaders);
}

bool compress_grpc_message(Compression encoding, OutMessage& message) {
  const std::size_t plain_bytes = message.bytes();
  if (encoding == Compression::kIdentity || plain_bytes - kGrpcPrefixBytes < kCompressGrpcFromBytes) {
    return false;
  }
  ByteBuffer packed;
  packed.extend(kGrpcPrefixBytes);
  if (!compress(encoding, payload_pieces(message), packed) || packed.size() >= plain_bytes) return false;
  write_grpc_prefix(packed.data(), packed.size() - kGrpcPrefixBytes);
  *packed.data() = std::byte{1};
  message.external.clear();
  message.keep.reset();
  message.own = std::move(packed);
  return true;
}

}  // namespace fastserve
