#include "codec/http2_flood.h"

#include <algorithm>
#include <cstring>

namespace fastserve {
namespace {

// RFC 9113 section 6.
enum FrameType : std::uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kWindowUpdate = 8,
  kContinuation = 9,
};
constexpr std::uint8_t kEndStream = 0x1;
constexpr std::uint8_t kEndHeaders = 0x4;

}  // namespace

bool TokenBucket::take(Nanos now) {
  refill(now);
  if (tokens_ == 0) return false;
  --tokens_;
  return true;
}

void TokenBucket::refill(Nanos now) {
  if (last_ < 0 || per_s_ <= 0) {
    last_ = now;
    return;
  }
  const Nanos passed = now - last_;
  if (passed <= 0) return;
  const Nanos per_token = std::max<Nanos>(kSecond / per_s_, 1);
  const std::int64_t gained = passed / per_token;
  if (tokens_ + gained >= burst_) {
    tokens_ = burst_;
    last_ = now;
  } else {
    tokens_ += gained;
    last_ += gained * per_token;  // the fraction of a token is kept
  }
}

std::string_view flood_reason(Http2Flood flood) {
  switch (flood) {
    case Http2Flood::kNone:
      return "";
    case Http2Flood::kResetReceived:
      return "too_many_resets";
    case Http2Flood::kResetSent:
      return "too_many_stream_errors";
    case Http2Flood::kPing:
      return "too_many_pings";
    case Http2Flood::kSettings:
      return "too_many_settings";
    case Http2Flood::kPriority:
      return "too_many_priority_frames";
    case Http2Flood::kEmpty:
      return "too_many_empty_frames";
    case Http2Flood::kUnknown:
      return "too_many_unknown_frames";
    case Http2Flood::kWindowUpdate:
      return "too_many_window_updates";
    case Http2Flood::kContinuationTooLarge:
      return "CONTINUATION: too large";
    case Http2Flood::kPriorityOfNoStream:
      return "PRIORITY: stream 0";
  }
  return "";
}

Http2FloodGuard::Http2FloodGuard(const Http2Limits& limits)
    : buckets_{{
          {1, 0},  // kNone, unused
          {limits.reset_burst, limits.reset_per_s},
          {limits.reset_burst, limits.reset_per_s},
          {limits.control_burst, limits.control_per_s},
          {limits.control_burst, limits.control_per_s},
          {limits.control_burst, limits.control_per_s},
          {limits.control_burst, limits.control_per_s},
          {limits.control_burst, limits.control_per_s},
          {limits.window_update_burst, limits.window_update_per_s},
      }} {}

Http2Flood Http2FloodGuard::scan(std::span<const std::byte> bytes, Nanos now) {
  while (!bytes.empty()) {
    if (skip_ != 0) {
      const std::size_t n = std::min(skip_, bytes.size());
      skip_ -= n;
      bytes = bytes.subspan(n);
      continue;
    }
    const std::size_t n = std::min(kFrameHeadBytes - head_used_, bytes.size());
    std::memcpy(head_.data() + head_used_, bytes.data(), n);
    head_used_ += n;
    bytes = bytes.subspan(n);
    if (head_used_ < kFrameHeadBytes) break;
    head_used_ = 0;
    skip_ = static_cast<std::size_t>(head_[0] << 16 | head_[1] << 8 | head_[2]);
    if (const Http2Flood flood = count(head_.data(), now); flood != Http2Flood::kNone) return flood;
  }
  return Http2Flood::kNone;
}

Http2Flood Http2FloodGuard::count(const std::uint8_t* head, Nanos now) {
  const std::uint8_t flags = head[4];
  switch (head[3]) {
    case kData:
      return skip_ == 0 && (flags & kEndStream) == 0 ? take(Http2Flood::kEmpty, now) : Http2Flood::kNone;
    case kHeaders:
      bucket(Http2Flood::kWindowUpdate).credit(2);
      [[fallthrough]];
    case kContinuation:
      if (head[3] == kContinuation && skip_ > kMaxFrameBytes) return Http2Flood::kContinuationTooLarge;
      return skip_ == 0 && (flags & kEndHeaders) == 0 ? take(Http2Flood::kEmpty, now) : Http2Flood::kNone;
    case kPriority:
      if (((head[5] & 0x7f) | head[6] | head[7] | head[8]) == 0) return Http2Flood::kPriorityOfNoStream;
      return take(Http2Flood::kPriority, now);
    case kRstStream:
      return take(Http2Flood::kResetReceived, now);
    case kSettings:
      return take(Http2Flood::kSettings, now);
    case kPing:
      return take(Http2Flood::kPing, now);
    case kWindowUpdate:
      return take(Http2Flood::kWindowUpdate, now);
    default:
      return take(Http2Flood::kUnknown,
                  now);  // with GOAWAY, of which one is enough, and PUSH_PROMISE, which is fatal
  }
}

}  // namespace fastserve
