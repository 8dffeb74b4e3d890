#include "codec/compression.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <vector>

namespace fastserve {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string packed(Compression how, std::string_view text) {
  ByteBuffer out;
  const std::array pieces{bytes(text)};
  EXPECT_TRUE(compress(how, pieces, out).is_ok());
  return std::string(out.view());
}

struct Unpacked {
  Status status;
  std::string text;
  std::size_t capacity = 0;
};
Unpacked unpacked(Compression how, std::string_view data, std::size_t max_bytes) {
  ByteBuffer out;
  Unpacked result;
  result.status = decompress(how, bytes(data), max_bytes, out);
  result.text = std::string(out.view());
  result.capacity = out.capacity();
  return result;
}

// Neither constant nor random: runs and noise.
std::string sample(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < size; ++i) {
    state = state * 1664525 + 1013904223;
    text[i] = i % 64 < 32 ? 'a' : static_cast<char>(state >> 24);
  }
  return text;
}

class CompressionTest : public testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(Formats, CompressionTest,
                         testing::Values(Compression::kIdentity, Compression::kGzip, Compression::kDeflate),
                         [](const auto& test) { return std::string(compression_name(test.param)); });

TEST_P(CompressionTest, RoundTripOfAllSizes) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{4095},
                                 std::size_t{4096}, std::size_t{4097}, std::size_t{70000}, 3 * kMiB}) {
    const std::string text = sample(size);
    const Unpacked back = unpacked(GetParam(), packed(GetParam(), text), 4 * kMiB);
    ASSERT_TRUE(back.status.is_ok()) << size << ": " << back.status.message();
    EXPECT_TRUE(back.text == text) << size;
  }
}

TEST_P(CompressionTest, PiecesAreOneMessage) {
  ByteBuffer out;
  const std::string text = sample(100'000);
  const std::string_view view = text;
  const std::vector<std::span<const std::byte>> pieces{
      bytes(view.substr(0, 1)), {}, bytes(view.substr(1, 70'000)), bytes(view.substr(70'001))};
  ASSERT_TRUE(compress(GetParam(), pieces, out).is_ok());
  EXPECT_TRUE(unpacked(GetParam(), out.view(), text.size()).text == text);
}

TEST_P(CompressionTest, AppendsToWhatIsThere) {
  ByteBuffer data;
  data.append("head");
  const std::array pieces{bytes("payload")};
  ASSERT_TRUE(compress(GetParam(), pieces, data).is_ok());
  ASSERT_EQ(data.view().substr(0, 4), "head");
  ByteBuffer out;
  out.append("front ");
  ASSERT_TRUE(decompress(GetParam(), data.span().subspan(4), 7, out).is_ok());
  EXPECT_EQ(out.view(), "front payload");
}

TEST_P(CompressionTest, LimitMinusOneLimitAndOneMore) {
  constexpr std::size_t kLimit = 50'000;
  for (const std::size_t size : {kLimit - 1, kLimit}) {
    const std::string text = sample(size);
    const Unpacked back = unpacked(GetParam(), packed(GetParam(), text), kLimit);
    ASSERT_TRUE(back.status.is_ok()) << size << ": " << back.status.message();
    EXPECT_TRUE(back.text == text);
  }
  const Unpacked refused = unpacked(GetParam(), packed(GetParam(), sample(kLimit + 1)), kLimit);
  EXPECT_EQ(refused.status.code(), Code::kResourceExhausted);
  EXPECT_NE(refused.status.message().find("50000"), std::string::npos) << refused.status.message();
  EXPECT_EQ(refused.text, "");
}

TEST_P(CompressionTest, LimitOfZeroTakesOnlyTheEmptyMessage) {
  EXPECT_TRUE(unpacked(GetParam(), packed(GetParam(), ""), 0).status.is_ok());
  EXPECT_EQ(unpacked(GetParam(), packed(GetParam(), "x"), 0).status.code(), Code::kResourceExhausted);
}

class ZlibTest : public CompressionTest {};
INSTANTIATE_TEST_SUITE_P(Formats, ZlibTest, testing::Values(Compression::kGzip, Compression::kDeflate),
                         [](const auto& test) { return std::string(compression_name(test.param)); });

TEST_P(ZlibTest, BombStopsAtTheLimitWithoutGrowingBeyondIt) {
  const std::string bomb = packed(GetParam(), std::string(64 * kMiB, '\0'));
  ASSERT_LT(bomb.size(), kMiB / 2);
  const Unpacked refused = unpacked(GetParam(), bomb, kMiB);
  EXPECT_EQ(refused.status.code(), Code::kResourceExhausted);
  EXPECT_LE(refused.capacity, kMiB);
  EXPECT_EQ(refused.text, "");
}

TEST_P(ZlibTest, EveryTruncationIsRefused) {
  const std::string whole = packed(GetParam(), "some text that is long enough, long enough to be packed");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Unpacked refused = unpacked(GetParam(), std::string_view(whole).substr(0, size), kMiB);
    EXPECT_EQ(refused.status.code(), Code::kInvalidArgument) << size;
    EXPECT_EQ(refused.text, "") << size;
  }
}

TEST_P(ZlibTest, TrailingGarbageIsRefused) {
  const Unpacked refused = unpacked(GetParam(), packed(GetParam(), "text") + "garbage", kMiB);
  EXPECT_EQ(refused.status.code(), Code::kInvalidArgument);
  EXPECT_NE(refused.status.message().find("7 bytes behind its end"), std::string::npos)
      << refused.status.message();
}

TEST_P(ZlibTest, AFlippedChecksumIsRefused) {
  std::string data = packed(GetParam(), "some text");
  const std::size_t at = GetParam() == Compression::kGzip ? data.size() - 5 : data.size() - 1;
  data[at] = static_cast<char>(data[at] ^ 1);
  EXPECT_EQ(unpacked(GetParam(), data, kMiB).status.code(), Code::kInvalidArgument);
}

TEST_P(ZlibTest, NoFlippedByteIsFatalAndAWorkingStateFollows) {
  const std::string text = sample(300);
  const std::string good = packed(GetParam(), text);
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x55);
    const Unpacked result = unpacked(GetParam(), bad, kMiB);
    // Some bytes of the gzip header mean nothing.
    EXPECT_EQ(result.text, result.status.is_ok() ? text : "") << at;
  }
  EXPECT_TRUE(unpacked(GetParam(), good, kMiB).text == text);
}

TEST(Compression, TheFormatsAreNotTakenForEachOther) {
  EXPECT_EQ(unpacked(Compression::kGzip, packed(Compression::kDeflate, "text"), kMiB).status.code(),
            Code::kInvalidArgument);
  EXPECT_EQ(unpacked(Compression::kDeflate, packed(Compression::kGzip, "text"), kMiB).status.code(),
            Code::kInvalidArgument);
  EXPECT_EQ(unpacked(Compression::kDeflate, "plain text", kMiB).status.code(), Code::kInvalidArgument);
}

// RFC 1952 section 2.2: a file is a series of members.
TEST(Compression, GzipMembersAreOneMessageWithOneLimit) {
  const std::string two = packed(Compression::kGzip, "one ") + packed(Compression::kGzip, "two");
  const Unpacked both = unpacked(Compression::kGzip, two, 7);
  ASSERT_TRUE(both.status.is_ok()) << both.status.message();
  EXPECT_EQ(both.text, "one two");
  EXPECT_EQ(unpacked(Compression::kGzip, two, 6).status.code(), Code::kResourceExhausted);
  EXPECT_EQ(unpacked(Compression::kGzip, two.substr(0, two.size() - 1), 7).status.code(),
            Code::kInvalidArgument);
  EXPECT_EQ(unpacked(Compression::kGzip, packed(Compression::kGzip, "one") + "\x1f", 7).status.code(),
            Code::kInvalidArgument);
}

TEST(Compression, DeflateIsOneStream) {
  const std::string two = packed(Compression::kDeflate, "one ") + packed(Compression::kDeflate, "two");
  EXPECT_EQ(unpacked(Compression::kDeflate, two, kMiB).status.code(), Code::kInvalidArgument);
}

TEST(Compression, Names) {
  EXPECT_EQ(parse_compression("identity"), Compression::kIdentity);
  EXPECT_EQ(parse_compression("gzip"), Compression::kGzip);
  EXPECT_EQ(parse_compression("deflate"), Compression::kDeflate);
  EXPECT_EQ(parse_compression(""), std::nullopt);
  EXPECT_EQ(parse_compression("GZIP"), std::nullopt);
  EXPECT_EQ(parse_compression("br"), std::nullopt);
}

TEST(Compression, EachThreadHasItsOwnState) {
  const std::string text = sample(200'000);
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (std::size_t i = 0; i < same.size(); ++i) {
    threads.emplace_back([&, i] {
      const Compression how = i % 2 == 0 ? Compression::kGzip : Compression::kDeflate;
      same[i] = unpacked(how, packed(how, text), kMiB).text == text;
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_TRUE(std::ranges::all_of(same, [](bool each) { return each; }));
}

}  // namespace
}  // namespace fastserve
