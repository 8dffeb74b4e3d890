#include "codec/grpc_framing.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

namespace fastserve {
namespace {

std::string framed(std::string_view message, char flag = 0) {
  std::string out(kGrpcPrefixBytes, '\0');
  write_grpc_prefix(reinterpret_cast<std::byte*>(out.data()), message.size());
  out[0] = flag;
  return out + std::string(message);
}

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(GrpcPrefix, BigEndianLength) {
  EXPECT_EQ(framed(std::string(0x010203, 'x')).substr(0, 5), std::string("\0\0\1\2\3", 5));
}

TEST(GrpcDeframer, UnaryInOnePieceAndByteByByte) {
  const std::string wire = framed("hello");
  GrpcDeframer whole;
  ByteBuffer message;
  ASSERT_TRUE(whole.feed_unary(bytes(wire), message));
  EXPECT_EQ(message.view(), "hello");
  EXPECT_TRUE(whole.complete());
  EXPECT_TRUE(whole.finish_unary());

  GrpcDeframer single;
  message.clear();
  for (const char c : wire) {
    EXPECT_FALSE(single.complete());
    ASSERT_TRUE(single.feed_unary(bytes({&c, 1}), message));
  }
  EXPECT_EQ(message.view(), "hello");
  EXPECT_TRUE(single.finish_unary());
}

TEST(GrpcDeframer, EmptyMessageIsAMessage) {
  GrpcDeframer deframer;
  ByteBuffer message;
  ASSERT_TRUE(deframer.feed_unary(bytes(framed("")), message));
  EXPECT_TRUE(deframer.complete());
  EXPECT_TRUE(deframer.finish_unary());
}

TEST(GrpcDeframer, StreamOfMessagesInRandomCuts) {
  std::mt19937 random(3);
  std::vector<std::string> want;
  std::string wire;
  for (int i = 0; i < 200; ++i) {
    want.emplace_back(random() % 3000, static_cast<char>('a' + i % 26));
    wire += framed(want.back());
  }
  std::vector<std::string> got;
  GrpcDeframer deframer;
  ByteBuffer message;
  for (std::size_t at = 0; at < wire.size();) {
    const std::size_t n = std::min<std::size_t>(random() % 700, wire.size() - at);
    auto rest = bytes(wire).subspan(at, n);
    at += n;
    while (true) {
      ASSERT_TRUE(deframer.feed(rest, message));
      if (!deframer.complete()) break;
      got.emplace_back(message.view());
      message.clear();
      deframer.next();
    }
    EXPECT_TRUE(rest.empty());
  }
  EXPECT_TRUE(deframer.finish());
  EXPECT_TRUE(got == want);
}

TEST(GrpcDeframer, LimitIsExact) {
  for (const std::size_t size : {9U, 10U, 11U}) {
    GrpcDeframer deframer(10);
    ByteBuffer message;
    const Status status = deframer.feed_unary(bytes(framed(std::string(size, 'x'))), message);
    if (size <= 10) {
      EXPECT_TRUE(status);
    } else {
      EXPECT_EQ(status.code(), Code::kResourceExhausted);
      EXPECT_EQ(status.message(), "message too large: got 11 bytes, limit 10");
      EXPECT_TRUE(message.empty());
    }
  }
}

TEST(GrpcDeframer, ALyingPrefixReservesLittle) {
  GrpcDeframer deframer;
  ByteBuffer message;
  ASSERT_TRUE(
      deframer.feed_unary(bytes(framed(std::string(kDefaultMaxMessageBytes, 'x'))).first(6), message));
  EXPECT_LE(message.capacity(), std::size_t{1} << 20);
}

TEST(GrpcDeframer, FlagsAndEncodings) {
  struct Case {
    char flag;
    const char* encoding;
    Code code;
  };
  for (const Case& c :
       {Case{0, "", Code::kOk}, Case{0, "gzip", Code::kOk}, Case{1, "", Code::kInternal},
        Case{1, "identity", Code::kInternal}, Case{1, "gzip", Code::kOk}, Case{1, "deflate", Code::kOk},
        Case{1, "snappy", Code::kUnimplemented}, Case{0, "snappy", Code::kOk},
        Case{1, "GZIP", Code::kUnimplemented}, Case{1, "gzip, deflate", Code::kUnimplemented},
        Case{2, "", Code::kInternal}, Case{static_cast<char>(255), "gzip", Code::kInternal}}) {
    GrpcDeframer deframer;
    deframer.set_encoding(c.encoding);
    ByteBuffer message;
    const Status status = deframer.feed_unary(bytes(framed("x", c.flag)), message);
    EXPECT_EQ(status.code(), c.code) << int{c.flag} << ' ' << c.encoding;
    if (c.code == Code::kUnimplemented) {
      EXPECT_EQ(status.message(),
                std::string("grpc-encoding: got '") + c.encoding + "', want identity, deflate or gzip");
    }
    if (c.code != Code::kOk) {
      EXPECT_FALSE(deframer.feed_unary(bytes("x"), message));  // stays failed
    }
  }
}

TEST(GrpcDeframer, Cardinality) {
  ByteBuffer message;
  GrpcDeframer none;
  EXPECT_EQ(none.finish_unary().code(), Code::kUnimplemented);
  EXPECT_TRUE(none.finish());  // a stream may have no message
  GrpcDeframer two;
  EXPECT_EQ(two.feed_unary(bytes(framed("a") + framed("b")), message).code(), Code::kUnimplemented);
  GrpcDeframer later;
  ASSERT_TRUE(later.feed_unary(bytes(framed("a")), message));
  EXPECT_EQ(later.feed_unary(bytes("x"), message).code(), Code::kUnimplemented);
}

TEST(GrpcDeframer, TruncatedAtEveryByte) {
  const std::string wire = framed("hello");
  for (std::size_t n = 1; n < wire.size(); ++n) {
    GrpcDeframer deframer;
    ByteBuffer message;
    ASSERT_TRUE(deframer.feed_unary(bytes(wire).first(n), message));
    EXPECT_EQ(deframer.finish_unary().code(), Code::kInternal) << n;
    EXPECT_EQ(deframer.finish().code(), Code::kInternal) << n;
  }
}

// grpc-go's flood of millions of one-byte DATA frames: memory stays by the bytes.
TEST(GrpcDeframer, OneByteAtATimeKeepsMemoryBounded) {
  constexpr std::size_t kSize = 3 << 20;
  const std::string wire = framed(std::string(kSize, 'x'));
  GrpcDeframer deframer;
  ByteBuffer message;
  for (const char& c : wire) ASSERT_TRUE(deframer.feed_unary(bytes({&c, 1}), message));
  EXPECT_TRUE(deframer.complete());
  EXPECT_EQ(message.size(), kSize);
  EXPECT_LE(message.capacity(), 2 * kSize);
}

// --- compressed messages

std::string packed(Compression how, std::string_view text) {
  ByteBuffer out;
  const std::array pieces{bytes(text)};
  EXPECT_TRUE(compress(how, pieces, out).is_ok());
  return std::string(out.view());
}

TEST(GrpcDeframer, UnpacksWhatIsFlaggedAndLeavesTheRest) {
  GrpcDeframer deframer;
  deframer.set_encoding("deflate");
  const std::string wire = framed(packed(Compression::kDeflate, "one"), 1) + framed("two") +
                           framed(packed(Compression::kDeflate, "three"), 1);
  std::vector<std::string> got;
  ByteBuffer scratch;
  auto rest = bytes(wire);
  while (!rest.empty()) {
    ByteBuffer message;
    ASSERT_TRUE(deframer.feed(rest, message));
    ASSERT_TRUE(deframer.complete());
    if (deframer.compressed()) {
      ASSERT_TRUE(deframer.unpack(message, scratch));
    }
    got.emplace_back(message.view());
    deframer.next();
  }
  EXPECT_EQ(got, (std::vector<std::string>{"one", "two", "three"}));
}

TEST(GrpcDeframer, TheLimitHoldsForTheUnpackedSize) {
  constexpr std::size_t kLimit = 100'000;
  for (const std::size_t size : {kLimit - 1, kLimit, kLimit + 1}) {
    GrpcDeframer deframer(kLimit);
    deframer.set_encoding("gzip");
    ByteBuffer message, scratch;
    ASSERT_TRUE(
        deframer.feed_unary(bytes(framed(packed(Compression::kGzip, std::string(size, 'x')), 1)), message));
    ASSERT_TRUE(deframer.compressed());
    const Status status = deframer.unpack(message, scratch);
    EXPECT_EQ(status.code(), size <= kLimit ? Code::kOk : Code::kResourceExhausted) << size;
    EXPECT_LE(message.capacity(), kLimit);
    EXPECT_LE(scratch.capacity(), kLimit);
    if (size <= kLimit) {
      EXPECT_EQ(message.size(), size);
    }
  }
}

TEST(GrpcDeframer, ACompressedMessageMayNotBeLongerThanTheLimitEither) {
  GrpcDeframer deframer(10);
  deframer.set_encoding("gzip");
  ByteBuffer message;
  EXPECT_EQ(deframer.feed_unary(bytes(framed(packed(Compression::kGzip, "x"), 1)), message).code(),
            Code::kResourceExhausted);
}

TEST(GrpcDeframer, CorruptDataEndsTheCall) {
  GrpcDeframer deframer;
  deframer.set_encoding("gzip");
  ByteBuffer message, scratch;
  ASSERT_TRUE(deframer.feed_unary(bytes(framed("not gzip", 1)), message));
  EXPECT_EQ(deframer.unpack(message, scratch).code(), Code::kInvalidArgument);
  EXPECT_FALSE(deframer.feed_unary(bytes("x"), message));
}

TEST(GrpcTimeout, UnitsLimitsAndRubbish) {
  EXPECT_EQ(parse_grpc_timeout("100m"), 100 * kMillisecond);
  EXPECT_EQ(parse_grpc_timeout("1H"), 3600 * kSecond);
  EXPECT_EQ(parse_grpc_timeout("2M"), 120 * kSecond);
  EXPECT_EQ(parse_grpc_timeout("3S"), 3 * kSecond);
  EXPECT_EQ(parse_grpc_timeout("4u"), 4 * kMicrosecond);
  EXPECT_EQ(parse_grpc_timeout("5n"), 5);
  EXPECT_EQ(parse_grpc_timeout("0n"), 0);
  EXPECT_EQ(parse_grpc_timeout("99999999S"), 99999999 * kSecond);
  EXPECT_EQ(parse_grpc_timeout("99999999H"), kNever);  // more nanoseconds than 64 bits hold
  for (const char* bad :
       {"", "m", "10", "-1m", "+1m", "1.5S", "100000000n", "1s", "1 m", " 1m", "1mm", "0x1m"}) {
    EXPECT_EQ(parse_grpc_timeout(bad), std::nullopt) << bad;
  }
}

TEST(GrpcMessage, PercentEncoding) {
  std::string out;
  append_grpc_message("a b~%\n\x7f\xC3\xA4", out);
  EXPECT_EQ(out, "a b~%25%0A%7F%C3%A4");
}

TEST(GrpcContentType, WhatCounts) {
  for (const char* good : {"application/grpc", "application/grpc+proto", "Application/GRPC",
                           "application/grpc;v=1", "application/grpc+proto; charset=x"}) {
    EXPECT_TRUE(is_grpc_content_type(good)) << good;
  }
  for (const char* bad : {"", "application/grpc+json", "application/grpc-web", "application/json",
                          "application/grp", "application/grpcx"}) {
    EXPECT_FALSE(is_grpc_content_type(bad)) << bad;
  }
}

}  // namespace
}  // namespace fastserve
