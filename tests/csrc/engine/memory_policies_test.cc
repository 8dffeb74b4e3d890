#include "engine/memory_policies.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

namespace fastserve {
namespace {

TEST(MemoryPolicies, NeighboursOfPlainMemoryAreOneRange) {
  const std::string maps =
      "1000-2000 r-xp 00000000 08:01 12 /usr/bin/x\n"
      "2000-3000 rw-p 00000000 00:00 0                                  [heap]\n"
      "3000-5000 rw-p 00000000 00:00 0                                  [heap]\n"
      "5000-6000 rw-p 00000000 00:00 0 \n"
      "7000-8000 rw-p 00000000 00:00 0 \n"
      "8000-9000 rwxp 00000000 00:00 0 \n"
      "9000-a000 rw-p 00000000 00:00 0 \n"
      "a000-b000 rw-p 00001000 08:01 12 /usr/lib/y\n"
      "b000-c000 rw-p 00000000 00:00 0 [stack]\n"
      "d000-e000 rw-p 00000000 00:00 0 \n"
      "e000-f000 rw-p 00000000 00:00 0 ";
  const std::vector<AddressRange> want{{0x2000, 0x6000}, {0xd000, 0xf000}};
  EXPECT_EQ(split_ranges(maps), want);
  EXPECT_TRUE(split_ranges("").empty());
  EXPECT_TRUE(split_ranges("nonsense\n\n-\n1000\n").empty());
}

std::size_t mappings() {
  std::ifstream file("/proc/self/maps");
  return static_cast<std::size_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
}

TEST(MemoryPolicies, WhatWasBoundPageByPageIsOneMappingAgain) {
  constexpr std::size_t kPage = 4096;
  constexpr std::size_t kPages = 64;
  void* const memory =
      ::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const std::size_t before = mappings();
  const unsigned long node = 1;
  for (std::size_t page = 1; page < kPages; page += 2) {
    char* const at = static_cast<char*>(memory) + page * kPage;
    if (::syscall(SYS_mbind, at, kPage, MPOL_BIND, &node, 8 * sizeof node, 0) != 0)
      GTEST_SKIP() << "mbind is forbidden here";
  }
  EXPECT_GE(mappings(), before + kPages / 2);
  if (forget_memory_policies() == 0) GTEST_SKIP() << "more than one memory node";
  EXPECT_LE(mappings(), before + 4);
  ::munmap(memory, kPages * kPage);
}

}  // namespace
}  // namespace fastserve
