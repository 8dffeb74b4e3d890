#include "codec/grpc_framing.h"

#include <algorithm>
#include <cstring>

namespace fastserve {
namespace {

constexpr std::size_t kReserveBytes = std::size_t{1} << 20;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

void write_grpc_prefix(std::byte* at, std::size_t message_bytes) {
  at[0] = std::byte{0};
  for (int i = 0; i < 4; ++i) at[1 + i] = static_cast<std::byte>(message_bytes >> (24 - 8 * i));
}

void GrpcDeframer::set_encoding(std::string_view encoding) {
  compression_ = encoding.empty() ? Compression::kIdentity : parse_compression(encoding);
  encoding_size_ = static_cast<std::uint8_t>(std::min(encoding.size(), encoding_.size()));
  std::copy_n(encoding.data(), encoding_size_, encoding_.data());
}

Status GrpcDeframer::feed(std::span<const std::byte>& bytes, ByteBuffer& message) {
  if (failed_) return internal_error("gRPC framing: the call has failed");
  if (complete_) return Status::ok();
  if (prefix_used_ < kGrpcPrefixBytes) {
    const std::size_t n = std::min(kGrpcPrefixBytes - prefix_used_, bytes.size());
    std::copy_n(bytes.data(), n, prefix_.data() + prefix_used_);
    prefix_used_ = static_cast<std::uint8_t>(prefix_used_ + n);
    bytes = bytes.subspan(n);
    if (prefix_used_ < kGrpcPrefixBytes) return Status::ok();
    if (Status status = read_prefix(message); !status) {
      failed_ = true;
      return status;
    }
  }
  const std::size_t n = std::min(need_, bytes.size());
  message.append(bytes.first(n));
  bytes = bytes.subspan(n);
  need_ -= n;
  complete_ = need_ == 0;
  return Status::ok();
}

Status GrpcDeframer::read_prefix(ByteBuffer& message) {
  const auto flag = std::to_integer<unsigned>(prefix_[0]);
  std::size_t length = 0;
  for (int i = 1; i <= 4; ++i)
    length = length << 8 | std::to_integer<std::size_t>(prefix_[static_cast<std::size_t>(i)]);
  if (flag == 1 && compression_ == Compression::kIdentity) {
    return internal_error("gRPC framing: the compressed flag is set, but grpc-encoding names no compression");
  }
  if (flag == 1 && !compression_) {
    return unimplemented("grpc-encoding: got '" + std::string(encoding_.data(), encoding_size_) +
                         "', want identity, deflate or gzip");
  }
  if (flag > 1)
    return internal_error("gRPC framing: got compressed flag " + std::to_string(flag) + ", want 0 or 1");
  if (length > max_bytes_) {
    return {Code::kResourceExhausted, "message too large: got " + std::to_string(length) + " bytes, limit " +
                                          std::to_string(max_bytes_)};
  }
  compressed_ = flag == 1;
  need_ = length;
  message.reserve(message.size() + std::min(length, kReserveBytes));
  return Status::ok();
}

Status GrpcDeframer::unpack(ByteBuffer& message, ByteBuffer& scratch) {
  scratch.clear();
  Status status = decompress(*compression_, message.span(), max_bytes_, scratch);
  if (status.is_ok()) std::swap(message, scratch);
  scratch.clear();
  failed_ = !status.is_ok();
  return status;
}

Status GrpcDeframer::finish() const {
  if (failed_ || complete_ || prefix_used_ == 0)
    return Status::ok();  // a failure was reported when it happened
  if (prefix_used_ < kGrpcPrefixBytes) {
    return internal_error("gRPC framing: the stream ended inside a message prefix, got " +
                          std::to_string(prefix_used_) + " of 5 bytes");
  }
  return internal_error("gRPC framing: the stream ended " + std::to_string(need_) +
                        " bytes before the end of a message");
}

Status GrpcDeframer::feed_unary(std::span<const std::byte> bytes, ByteBuffer& message) {
  FS_RETURN_IF_ERROR(feed(bytes, message));
  if (bytes.empty()) return Status::ok();
  failed_ = true;
  return unimplemented("unary call: got more than one message, want exactly one");
}

Status GrpcDeframer::finish_unary() const {
  if (!failed_ && prefix_used_ == 0) return unimplemented("unary call: got no message, want exactly one");
  return finish();
}

std::optional<Nanos> parse_grpc_timeout(std::string_view text) {
  constexpr std::size_t kMaxDigits = 8;
  if (text.size() < 2 || text.size() > kMaxDigits + 1) return std::nullopt;
  Nanos value = 0;
  for (const char c : text.substr(0, text.size() - 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  Nanos unit = 0;
  switch (text.back()) {
    case 'H':
      unit = 3600 * kSecond;
      break;
    case 'M':
      unit = 60 * kSecond;
      break;
    case 'S':
      unit = kSecond;
      break;
    case 'm':
      unit = kMillisecond;
      break;
    case 'u':
      unit = kMicrosecond;
      break;
    case 'n':
      unit = 1;
      break;
    default:
      return std::nullopt;
  }
  Nanos product = 0;
  return __builtin_mul_overflow(value, unit, &product) ? kNever : product;
}

void append_grpc_message(std::string_view text, std::string& out) {
  constexpr char kHex[] = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7E && c != '%') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
}

bool is_grpc_content_type(std::string_view value) {
  constexpr std::string_view kType = "application/grpc";
  constexpr std::string_view kProto = "+proto";
  const auto starts = [&](std::string_view prefix) {
    return value.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), value.begin(),
                                                       [](char a, char b) { return a == lower(b); });
  };
  if (!starts(kType)) return false;
  value.remove_prefix(kType.size());
  if (starts(kProto)) value.remove_prefix(kProto.size());
  return value.empty() || value.front() == ';';
}

}  // namespace fastserve
