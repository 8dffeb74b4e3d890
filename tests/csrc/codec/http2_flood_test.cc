#include "codec/http2_flood.h"

#include <gtest/gtest.h>

#include <string>

namespace fastserve {
namespace {

TEST(TokenBucket, BurstThenRate) {
  TokenBucket bucket(3, 10);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(bucket.take(0));
  EXPECT_FALSE(bucket.take(0));
  EXPECT_FALSE(bucket.take(kSecond / 10 - 1));
  EXPECT_TRUE(bucket.take(kSecond / 10));
  EXPECT_FALSE(bucket.take(kSecond / 10));
}

TEST(TokenBucket, FractionsOfATokenAreNotLost) {
  TokenBucket bucket(1000, 10);
  while (bucket.take(0)) {
  }
  int taken = 0;
  for (Nanos now = 0; now <= 10 * kSecond; now += 33 * kMillisecond) taken += bucket.take(now) ? 1 : 0;
  EXPECT_EQ(taken, 99);  // the last step is at 9.999 s
}

TEST(TokenBucket, NeverAboveTheBurstAndNeverBackInTime) {
  TokenBucket bucket(2, 10);
  EXPECT_TRUE(bucket.take(0));
  EXPECT_TRUE(bucket.take(3600 * kSecond));
  EXPECT_TRUE(bucket.take(3600 * kSecond));
  EXPECT_FALSE(bucket.take(3600 * kSecond));
  EXPECT_FALSE(bucket.take(0));
  bucket.credit(100);
  EXPECT_EQ(bucket.tokens(), 2);
}

TEST(TokenBucket, RateZeroAndHugeRate) {
  TokenBucket never(1, 0);
  EXPECT_TRUE(never.take(0));
  EXPECT_FALSE(never.take(1000 * kSecond));
  TokenBucket fast(1, INT64_MAX);
  EXPECT_TRUE(fast.take(0));
  EXPECT_TRUE(fast.take(1));
}

std::string frame(std::uint8_t type, std::uint8_t flags, std::size_t size) {
  std::string out{static_cast<char>(size >> 16),
                  static_cast<char>(size >> 8),
                  static_cast<char>(size),
                  static_cast<char>(type),
                  static_cast<char>(flags),
                  0,
                  0,
                  0,
                  1};
  return out + std::string(size, 'x');
}

constexpr std::size_t kPreface = 24;

// How many frames pass before the guard objects, fed in pieces of `cut` bytes.
std::size_t frames_until(Http2Flood want, const std::string& one, std::size_t cut,
                         std::size_t most = 20'000) {
  Http2FloodGuard guard(Http2Limits{});
  const std::string preface(kPreface, 'p');
  EXPECT_EQ(guard.scan(std::as_bytes(std::span(preface)), 0), Http2Flood::kNone);
  for (std::size_t n = 0; n < most; ++n) {
    for (std::size_t at = 0; at < one.size(); at += cut) {
      const std::string_view piece = std::string_view(one).substr(at, cut);
      const Http2Flood flood = guard.scan(std::as_bytes(std::span(piece.data(), piece.size())), 0);
      if (flood == Http2Flood::kNone) continue;
      EXPECT_EQ(flood, want);
      return n;
    }
  }
  return most;
}

TEST(Http2FloodGuard, EachKindHasItsBurst) {
  struct Case {
    std::uint8_t type, flags;
    std::size_t size;
    Http2Flood flood;
    std::size_t burst;
  };
  const Http2Limits limits;
  const auto control = static_cast<std::size_t>(limits.control_burst);
  for (const Case& c : {
           Case{3, 0, 4, Http2Flood::kResetReceived, static_cast<std::size_t>(limits.reset_burst)},
           Case{6, 0, 8, Http2Flood::kPing, control},
           Case{6, 1, 8, Http2Flood::kPing, control},
           Case{4, 0, 0, Http2Flood::kSettings, control},
           Case{2, 0, 5, Http2Flood::kPriority, control},
           Case{0, 0, 0, Http2Flood::kEmpty, control},
           Case{1, 0, 0, Http2Flood::kEmpty, control},
           Case{9, 0, 0, Http2Flood::kEmpty, control},
           Case{10, 0, 3, Http2Flood::kUnknown, control},
           Case{255, 0, 0, Http2Flood::kUnknown, control},
           Case{7, 0, 8, Http2Flood::kUnknown, control},
           Case{8, 0, 4, Http2Flood::kWindowUpdate, static_cast<std::size_t>(limits.window_update_burst)},
       }) {
    for (const std::size_t cut : {1U, 5U, 1000U}) {
      EXPECT_EQ(frames_until(c.flood, frame(c.type, c.flags, c.size), cut), c.burst)
          << int{c.type} << " cut " << cut;
    }
  }
}

TEST(Http2FloodGuard, ContinuationsAreNoLargerThanOtherFrames) {
  EXPECT_EQ(frames_until(Http2Flood::kNone, frame(9, 4, 16 * 1024), 1 << 20, 10), 10U);
  EXPECT_EQ(frames_until(Http2Flood::kContinuationTooLarge, frame(9, 4, 16 * 1024 + 1), 1 << 20, 10), 0U);
}

TEST(Http2FloodGuard, PriorityIsOfAStream) {
  for (const std::size_t byte : {5U, 6U, 7U, 8U}) {
    std::string priority = frame(2, 0, 5);
    priority[5] = priority[6] = priority[7] = priority[8] = 0;
    priority[byte] = 0x40;
    EXPECT_EQ(frames_until(Http2Flood::kNone, priority, 1000, 10), 10U);
  }
  std::string priority = frame(2, 0, 5);
  priority[8] = 0;
  EXPECT_EQ(frames_until(Http2Flood::kPriorityOfNoStream, priority, 1000), 0U);
  priority[5] = '\x80';  // the reserved bit
  EXPECT_EQ(frames_until(Http2Flood::kPriorityOfNoStream, priority, 1000), 0U);
}

TEST(Http2FloodGuard, UsefulFramesAreFree) {
  EXPECT_EQ(frames_until(Http2Flood::kNone, frame(0, 0, 1), 1000), 20'000U);   // one byte of DATA
  EXPECT_EQ(frames_until(Http2Flood::kNone, frame(0, 1, 0), 1000), 20'000U);   // END_STREAM
  EXPECT_EQ(frames_until(Http2Flood::kNone, frame(1, 5, 20), 1000), 20'000U);  // requests
}

// grpc-go answers nearly every response with a PING, gRPC C++ each message of a stream with three WINDOW_UPDATEs.
TEST(Http2FloodGuard, AnswersEarnPings) {
  Http2FloodGuard guard(Http2Limits{});
  const std::string preface(kPreface, 'p');
  EXPECT_EQ(guard.scan(std::as_bytes(std::span(preface)), 0), Http2Flood::kNone);
  const std::string ping = frame(6, 0, 8);
  const std::string update = frame(8, 0, 4);
  for (int i = 0; i < 10000; ++i) {
    guard.useful_frame_sent();
    ASSERT_EQ(guard.scan(std::as_bytes(std::span(ping)), 0), Http2Flood::kNone);
    for (int n = 0; n < 10; ++n) {
      ASSERT_EQ(guard.scan(std::as_bytes(std::span(update)), 0), Http2Flood::kNone);
    }
  }
}

// The answers of a stream leave many in a DATA frame, and are acknowledged one by one.
TEST(Http2FloodGuard, MessagesEarnWindowUpdates) {
  Http2FloodGuard guard(Http2Limits{});
  const std::string preface(kPreface, 'p');
  EXPECT_EQ(guard.scan(std::as_bytes(std::span(preface)), 0), Http2Flood::kNone);
  const std::string update = frame(8, 0, 4);
  for (int i = 0; i < 10000; ++i) {
    guard.message_queued();
    for (int n = 0; n < 3; ++n) {
      ASSERT_EQ(guard.scan(std::as_bytes(std::span(update)), 0), Http2Flood::kNone);
    }
  }
}

TEST(Http2FloodGuard, SlowControlFramesNeverAddUp) {
  Http2FloodGuard guard(Http2Limits{});
  const std::string preface(kPreface, 'p');
  EXPECT_EQ(guard.scan(std::as_bytes(std::span(preface)), 0), Http2Flood::kNone);
  const std::string ping = frame(6, 0, 8);
  for (int i = 0; i < 2000; ++i)
    ASSERT_EQ(guard.scan(std::as_bytes(std::span(ping)), i * kSecond / 10), Http2Flood::kNone);
}

TEST(Http2FloodGuard, EveryFloodHasAReason) {
  for (int i = 1; i <= static_cast<int>(Http2Flood::kWindowUpdate); ++i) {
    EXPECT_TRUE(flood_reason(static_cast<Http2Flood>(i)).starts_with("too_many_")) << i;
  }
}

}  // namespace
}  // namespace fastserve
