#include "codec/http2_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace fastserve {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeeps = false;
#else
constexpr bool kKeeps = true;
#endif

TEST(Http2Memory, BlocksAreReusedBySize) {
  Http2Memory memory;
  void* const small = memory.take(1);
  void* const large = memory.take(1024);
  memory.give_back(small);
  memory.give_back(large);
  if (!kKeeps) return;
  EXPECT_EQ(memory.waiting_blocks(), 2U);
  void* const again = memory.take(64);  // same step as 1
  EXPECT_EQ(again, small);
  void* const other = memory.take(65);
  EXPECT_NE(other, large);
  EXPECT_EQ(memory.take(961), large);
  for (void* block : {again, other, large}) memory.give_back(block);
}

TEST(Http2Memory, KeepsABoundedNumber) {
  Http2Memory memory;
  std::vector<void*> blocks;
  for (int i = 0; i < 1000; ++i) blocks.push_back(memory.take(100));
  for (void* block : blocks) memory.give_back(block);
  EXPECT_EQ(memory.waiting_blocks(), kKeeps ? 128U : 0U);
  memory.give_back(memory.take(1025));  // malloc's
  EXPECT_EQ(memory.waiting_blocks(), kKeeps ? 128U : 0U);
}

TEST(Http2Memory, AsMallocAndItsKinInTheCorners) {
  Http2Memory memory;
  memory.give_back(nullptr);
  void* const empty = memory.take(0);
  EXPECT_NE(empty, nullptr);
  memory.give_back(empty);
  EXPECT_EQ(memory.take(SIZE_MAX), nullptr);
  EXPECT_EQ(memory.take_zeroed(SIZE_MAX / 2, 3), nullptr);
  void* const large = memory.take(5000);
  EXPECT_EQ(memory.resize(large, SIZE_MAX), nullptr);
  memory.give_back(large);

  void* const dirty = memory.take(64);
  std::memset(dirty, 0xff, 64);
  memory.give_back(dirty);
  auto* const zeroed = static_cast<unsigned char*>(memory.take_zeroed(8, 8));
  for (int i = 0; i < 64; ++i) EXPECT_EQ(zeroed[i], 0);
  memory.give_back(zeroed);
}

TEST(Http2Memory, ResizeKeepsTheBytes) {
  Http2Memory memory;
  std::mt19937 random(3);
  std::vector<unsigned char> expected;
  auto* block = static_cast<unsigned char*>(memory.resize(nullptr, 0));
  for (int i = 0; i < 2000; ++i) {
    const std::size_t size = random() % 3 == 0 ? random() % 4000 : random() % 200;
    block = static_cast<unsigned char*>(memory.resize(block, size));
    ASSERT_NE(block, nullptr);
    const std::size_t kept = std::min(size, expected.size());
    for (std::size_t k = 0; k < kept; ++k) ASSERT_EQ(block[k], expected[k]);
    expected.resize(size);
    for (std::size_t k = 0; k < size; ++k) block[k] = expected[k] = static_cast<unsigned char>(random());
  }
  memory.give_back(block);
}

TEST(Http2Memory, OnePerThreadAndItOutlivesItsThreadWhileInUse) {
  const auto ours = Http2Memory::of_this_thread();
  EXPECT_EQ(Http2Memory::of_this_thread(), ours);
  std::shared_ptr<Http2Memory> theirs;
  void* block = nullptr;
  std::thread([&] {
    theirs = Http2Memory::of_this_thread();
    block = theirs->take(10);
  }).join();
  EXPECT_NE(theirs, ours);
  theirs->give_back(block);
}

}  // namespace
}  // namespace fastserve
