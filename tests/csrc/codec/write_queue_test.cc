#include "codec/write_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>

namespace fastserve {
namespace {

std::string pattern(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>('a' + (i * 7 + seed) % 26);
  return out;
}

std::span<const std::byte> bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Writes up to `limit` bytes through at most 4 iovecs, as a socket would.
std::string write_some(WriteQueue& queue, std::size_t limit) {
  std::array<iovec, 4> iov;
  std::string out;
  for (const iovec& v : std::span(iov).first(queue.gather(iov))) {
    out.append(static_cast<const char*>(v.iov_base), std::min(v.iov_len, limit - out.size()));
  }
  queue.consume(out.size());
  return out;
}

TEST(WriteQueue, EmptyGathersNothing) {
  WriteQueue queue;
  std::array<iovec, 2> iov;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.gather(iov), 0U);
  queue.append(std::string_view());
  EXPECT_EQ(queue.gather(iov), 0U);
}

TEST(WriteQueue, SmallPiecesShareOneIovec) {
  WriteQueue queue;
  queue.append("ab");
  queue.append("cd");
  std::array<iovec, 4> iov;
  ASSERT_EQ(queue.gather(iov), 1U);
  EXPECT_EQ(iov[0].iov_len, 4U);
  EXPECT_EQ(write_some(queue, 100), "abcd");
}

TEST(WriteQueue, LargePiecesAreReferencedAndReleasedWhenWritten) {
  WriteQueue queue;
  auto tensor = std::make_shared<std::string>(pattern(kReferenceBytes, 1));
  queue.append("head");
  queue.reference(bytes(*tensor), tensor);
  queue.append("tail");
  EXPECT_EQ(tensor.use_count(), 2);
  std::array<iovec, 4> iov;
  ASSERT_EQ(queue.gather(iov), 3U);
  EXPECT_EQ(iov[1].iov_base, tensor->data());
  queue.consume(4 + kReferenceBytes - 1);
  EXPECT_EQ(tensor.use_count(), 2);
  queue.consume(1);
  EXPECT_EQ(tensor.use_count(), 1);
  EXPECT_EQ(write_some(queue, 100), "tail");
}

TEST(WriteQueue, BelowTheThresholdBytesAreCopied) {
  WriteQueue queue;
  auto tensor = std::make_shared<std::string>(pattern(kReferenceBytes - 1, 2));
  queue.reference(bytes(*tensor), tensor);
  EXPECT_EQ(tensor.use_count(), 1);
  const std::string want = *tensor;
  tensor->assign(tensor->size(), '!');
  EXPECT_EQ(write_some(queue, want.size()), want);
}

TEST(WriteQueue, MessageKeepsWireOrderAndGivesItsBufferBack) {
  auto tensor = std::make_shared<std::string>(pattern(kReferenceBytes * 2, 3));
  OutMessage message;
  message.own.append("one");
  message.add_payload(bytes(*tensor));
  message.own.append("two");
  EXPECT_TRUE(message.needs_keep());
  message.keep = tensor;
  const std::size_t capacity = message.own.capacity();
  const std::size_t total = message.bytes();
  WriteQueue queue;
  queue.append(std::move(message));
  EXPECT_EQ(queue.bytes(), total);
  EXPECT_EQ(message.bytes(), 0U);  // NOLINT(bugprone-use-after-move): promised
  EXPECT_EQ(message.own.capacity(), capacity);
  std::string got;
  while (!queue.empty()) got += write_some(queue, 1000);
  EXPECT_EQ(got, "one" + *tensor + "two");
}

TEST(WriteQueue, ClearReleasesReferences) {
  WriteQueue queue;
  auto tensor = std::make_shared<std::string>(pattern(kReferenceBytes, 4));
  queue.reference(bytes(*tensor), tensor);
  queue.clear();
  EXPECT_EQ(tensor.use_count(), 1);
  EXPECT_TRUE(queue.empty());
  queue.append("x");
  EXPECT_EQ(write_some(queue, 10), "x");
}

// Any interleaving of appends and partial writes gives the bytes in order.
TEST(WriteQueue, RandomAppendsAndPartialWrites) {
  std::mt19937 random(7);
  WriteQueue queue;
  std::string want;
  std::string got;
  for (unsigned round = 0; round < 3000; ++round) {
    const std::size_t size = random() % 3 == 0 ? random() % 40000 : random() % 300;
    auto text = std::make_shared<std::string>(pattern(size, round));
    want += *text;
    if (random() % 2 == 0)
      queue.append(*text);
    else
      queue.reference(bytes(*text), text);
    if (random() % 2 == 0) got += write_some(queue, random() % 60000);
    ASSERT_EQ(queue.bytes(), want.size() - got.size());
  }
  while (!queue.empty()) got += write_some(queue, 1 << 20);
  EXPECT_TRUE(got == want);
}

}  // namespace
}  // namespace fastserve
