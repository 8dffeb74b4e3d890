#include <gtest/gtest.h>

#include <cstdint>

#include "memory/byte_buffer.h"
#include "memory/host_allocator.h"
#include "memory/scratch.h"

namespace fastserve {
namespace {

TEST(ByteBuffer, GrowsKeepsCapacityAndGivesItBack) {
  ByteBuffer buffer;
  for (int i = 0; i < 1000; ++i) buffer.append("0123456789");
  EXPECT_EQ(buffer.size(), 10'000U);
  EXPECT_EQ(buffer.view().substr(9'990), "0123456789");
  const std::size_t capacity = buffer.capacity();
  buffer.clear();
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.capacity(), capacity);
  buffer.shrink(capacity);
  EXPECT_EQ(buffer.capacity(), capacity);
  buffer.shrink(capacity - 1);
  EXPECT_EQ(buffer.capacity(), 0U);
  buffer.push_back('x');
  EXPECT_EQ(buffer.view(), "x");
}

TEST(ByteBuffer, MovesItsBytes) {
  ByteBuffer first;
  first.append("abc");
  const std::byte* at = first.data();
  ByteBuffer second(std::move(first));
  EXPECT_EQ(second.data(), at);
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): the point of the test
}

TEST(Scratch, AddressesStayAndAreAligned) {
  Scratch scratch;
  auto small = scratch.allocate(3);
  small[0] = std::byte{42};
  for (int i = 0; i < 100; ++i) {
    const auto more = scratch.allocate(1000);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(more.data()) % 64, 0U);
    EXPECT_NE(more.data(), small.data());
  }
  EXPECT_EQ(small[0], std::byte{42});
  scratch.reset();
  EXPECT_EQ(scratch.allocate(100'000).size(), 100'000U);
}

TEST(PlainHostAllocator, AlignsAndRefusesTheImpossible) {
  HostAllocator& allocator = plain_host_allocator();
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{65}, std::size_t{100'000}}) {
    std::byte* memory = allocator.allocate(bytes);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 64, 0U);
    allocator.free(memory, bytes);
  }
  EXPECT_EQ(allocator.allocate(SIZE_MAX), nullptr);
}

}  // namespace
}  // namespace fastserve
