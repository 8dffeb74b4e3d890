// Accounting against HTTP/2 floods: what one connection may cause per second beyond useful work. Pure: time and bytes are
// arguments. libnghttp2 1.52 counts received RST_STREAMs, CONTINUATIONs and SETTINGS entries but neither the RST_STREAMs that
// a peer makes us send (CVE-2025-8671), nor PINGs, empty frames, unknown frames or its own outbound queue.
// One thread: the session's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/clock.h"

namespace fastserve {

// All limits of one HTTP/2 connection (figures: reliability.md, section 2). Passing one closes the connection with
// GOAWAY ENHANCE_YOUR_CALM, unless the RFC names another code.
struct Http2Limits {
  // Concurrent streams. 1024 instead of the customary 100: a gRPC client process shares one connection among all its calls,
  // and 100 would cap the batches that can be formed from it. What streams cost is held elsewhere: open work by the front
  // end's in-flight count, churn by the RST buckets. Until the client has acknowledged our
  // SETTINGS a stream too many is refused (REFUSED_STREAM); afterwards it is a PROTOCOL_ERROR of the connection (nghttp2).
  std::uint32_t max_streams = 1024;
  std::uint32_t stream_window_bytes = 1 << 20;
  std::uint32_t connection_window_bytes = 4 << 20;
  std::uint32_t max_header_list_bytes = 16 * 1024;  // name + value + 32 each, RFC 9113 section 6.5.2
  std::uint32_t max_headers = 64;                   // pseudo-headers included
  std::uint32_t max_continuations = 8;
  std::uint32_t max_outbound_frames =
      1000;                        // queued in nghttp2, beyond one per open stream (its response head)
  std::int64_t reset_burst = 200;  // RST_STREAM received, and sent: a bucket each
  std::int64_t reset_per_s = 33;
  std::int64_t control_burst = 100;  // PING, SETTINGS, PRIORITY, empty, unknown (and GOAWAY): a bucket each
  std::int64_t control_per_s = 10;
  // WINDOW_UPDATE: gRPC clients send a few per call and per message, so calls and answers earn them (credit); this is the
  // rest, and the most that can be earned ahead: those of some streams' answers that leave together.
  std::int64_t window_update_burst = 10'000;
  std::int64_t window_update_per_s = 100;
  // Output that the peer does not take. write() stops pumping nghttp2 at this much in the WriteQueue; the front end stops
  // feeding while blocked().
  std::size_t write_high_water_bytes = 1 << 20;
};

// Holds up to `burst` tokens, gains `per_s` a second. Starts full.
class TokenBucket {
 public:
  TokenBucket(std::int64_t burst, std::int64_t per_s) : burst_(burst), per_s_(per_s), tokens_(burst) {}
  // False when there is no token left; then nothing is taken. `now` never falls (an earlier one counts as the last).
  bool take(Nanos now);
  void credit(std::int64_t tokens) { tokens_ = tokens_ + tokens < burst_ ? tokens_ + tokens : burst_; }
  std::int64_t tokens() const { return tokens_; }

 private:
  void refill(Nanos now);
  std::int64_t burst_;
  std::int64_t per_s_;
  std::int64_t tokens_;
  Nanos last_ = -1;  // time up to which tokens were gained; -1: none seen yet
};

enum class Http2Flood : std::uint8_t {
  kNone,
  kResetReceived,
  kResetSent,
  kPing,
  kSettings,
  kPriority,
  kEmpty,
  kUnknown,
  kWindowUpdate,
  // No floods, but violations of RFC 9113 that libnghttp2 1.52 does not look at; sections 4.2 and 6.3.
  kContinuationTooLarge,
  kPriorityOfNoStream,
};
// What goes into GOAWAY's debug data; "too_many_pings" is the word that gRPC clients react to by pinging less.
std::string_view flood_reason(Http2Flood flood);

// Walks the frame headers of the incoming bytes beside nghttp2 (which does not report frames that it ignores) and counts.
class Http2FloodGuard {
 public:
  explicit Http2FloodGuard(const Http2Limits& limits);

  // The next bytes from the peer, preface included. The first violation, or kNone. ~3 ns a frame.
  Http2Flood scan(std::span<const std::byte> bytes, Nanos now);
  // A DATA frame that carried padding only (the scan sees no payload).
  Http2Flood padding_only(Nanos now) { return take(Http2Flood::kEmpty, now); }
  // An RST_STREAM left, whoever caused it.
  Http2Flood reset_sent(Nanos now) { return take(Http2Flood::kResetSent, now); }
  // HEADERS or DATA left: earns the peer one PING and ten WINDOW_UPDATEs. grpc-go probes its bandwidth with a PING for
  // nearly every response, and gRPC's own servers forgive pings once they sent data. Ten is what Envoy allows.
  void useful_frame_sent() {
    bucket(Http2Flood::kPing).credit(1);
    bucket(Http2Flood::kWindowUpdate).credit(10);
  }
  // A message was queued; many may leave in one DATA frame. gRPC C++ sends up to three WINDOW_UPDATEs for each that it reads.
  void message_queued() { bucket(Http2Flood::kWindowUpdate).credit(3); }

 private:
  static constexpr std::size_t kPrefaceBytes = 24;
  static constexpr std::size_t kFrameHeadBytes = 9;
  static constexpr std::size_t kMaxFrameBytes = 16 * 1024;  // SETTINGS_MAX_FRAME_SIZE: we never raise it
  TokenBucket& bucket(Http2Flood flood) { return buckets_[static_cast<std::size_t>(flood)]; }
  Http2Flood take(Http2Flood flood, Nanos now) { return bucket(flood).take(now) ? Http2Flood::kNone : flood; }
  Http2Flood count(const std::uint8_t* head, Nanos now);

  std::array<TokenBucket, 9> buckets_;
  std::size_t skip_ = kPrefaceBytes;  // bytes of preface or payload until the next frame header
  std::array<std::uint8_t, kFrameHeadBytes> head_{};
  std::size_t head_used_ = 0;
};

}  // namespace fastserve
