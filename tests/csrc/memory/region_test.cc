// One region: what may be registered, what a place in it may be, and what happens when its owner cuts it off.
#include "memory/region.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstring>
#include <thread>
#include <vector>

#include "support/shared_object.h"

namespace fastserve {
namespace {

constexpr std::uint64_t kMax = ~std::uint64_t{0};

Result<std::shared_ptr<Region>> open(const RegionSpec& spec) {
  return Region::open(spec, RegionQuota::Share());
}
std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

TEST(Region, IsTheClientsMemory) {
  SharedObject object(3 * page_bytes());
  const std::size_t offset = page_bytes() + 12;  // not on a page's border
  auto opened = open({"r", object.key(), offset, 100});
  ASSERT_TRUE(opened.is_ok()) << opened.status().message();
  const Region& region = **opened;
  const std::span<std::byte> all = region.at(0, 100).value();
  std::memcpy(all.data(), "hello", 5);
  EXPECT_EQ(std::memcmp(object.as<char>(offset), "hello", 5), 0);
  object.as<char>(offset + 99)[0] = 'x';
  EXPECT_EQ(all[99], std::byte{'x'});
  EXPECT_FALSE(region.broken());
}

TEST(Region, OutlivesTheNameAndTheClient) {
  std::shared_ptr<Region> region;
  {
    SharedObject object(64);
    object.as<char>()[0] = 'a';
    region = open({"r", object.key(), 0, 64}).value();
  }
  EXPECT_EQ(region->at(0, 1).value()[0], std::byte{'a'});
}

TEST(Region, PlacesAreChecked) {
  SharedObject object(100);
  const auto region = open({"r", object.key(), 36, 64}).value();
  struct Case {
    std::uint64_t offset, bytes;
    const char* refusal;  // nullptr: fine
  };
  const Case cases[] = {
      {0, 64, nullptr},
      {63, 1, nullptr},
      {0, 0, nullptr},
      {63, 0, nullptr},
      {64, 0, "Invalid offset for shared memory region: 'r': got 64, want less than 64"},
      {64, 1, "Invalid offset for"},
      {65, 1, "Invalid offset for"},
      {kMax, 1, "Invalid offset for"},
      {kMax, kMax, "Invalid offset for"},
      {0, 65, "Invalid offset + byte size for shared memory region: 'r': got 0 + 65, want 64 or less"},
      {1, 64, "Invalid offset + byte size for"},
      {63, 2, "Invalid offset + byte size for"},
      {0, kMax, "Invalid offset + byte size for"},
      {1, kMax, "Integer overflow detected: byte size (18446744073709551615) + offset (1) exceeds"},
      {63, kMax - 62, "Integer overflow detected: "},
      {63, kMax - 63, "Invalid offset + byte size for"},
  };
  for (const Case& c : cases) {
    const auto at = region->at(c.offset, c.bytes);
    ASSERT_EQ(at.is_ok(), c.refusal == nullptr) << c.offset << " + " << c.bytes;
    if (c.refusal == nullptr) {
      EXPECT_EQ((*at).size(), c.bytes);
      continue;
    }
    EXPECT_EQ(at.status().code(), Code::kInvalidArgument);
    EXPECT_TRUE(at.status().message().starts_with(c.refusal)) << at.status().message();
  }
}

TEST(Region, TheSizeIsTheObjectsAtMost) {
  SharedObject object(100);
  struct Case {
    std::uint64_t offset, bytes;
    const char* refusal;
  };
  const Case cases[] = {
      {0, 100, nullptr},
      {99, 1, nullptr},
      {0, 99, nullptr},
      {0, 101, "offset + byte_size: got 101, want 100 or less, the size of the object"},
      {1, 100, "offset + byte_size: got 101"},
      {100, 1, "offset + byte_size: got 101"},
      {0, 0, "byte_size: got 0, want 1 or more"},
      {kMax, 1, "Integer overflow detected: "},
      {1, kMax, "Integer overflow detected: "},
      {0, kMax, "offset + byte_size: got 18446744073709551615"},
      {kMax - 1, 1, "offset + byte_size: got 18446744073709551615"},
      {std::uint64_t{1} << 63U, 1, "offset + byte_size: got 9223372036854775809"},
  };
  for (const Case& c : cases) {
    const auto opened = open({"r", object.key(), c.offset, c.bytes});
    ASSERT_EQ(opened.is_ok(), c.refusal == nullptr) << c.offset << " + " << c.bytes;
    if (c.refusal == nullptr) continue;
    EXPECT_EQ(opened.status().code(), Code::kInvalidArgument);
    EXPECT_NE(opened.status().message().find(c.refusal), std::string::npos) << opened.status().message();
  }
  const SharedObject empty(0);
  EXPECT_EQ(open({"r", empty.key(), 0, 1}).status().code(), Code::kInvalidArgument);
}

TEST(Region, KeysStayInTheFolderOfSharedMemory) {
  SharedObject object(64);
  const std::string name = object.key().substr(1);
  EXPECT_TRUE(open({"r", name, 0, 64}).is_ok()) << "shm_open takes it without the slash, and so does Triton";
  const std::string long_name(kMaxRegionKeyBytes - 1, 'k');
  EXPECT_TRUE(check_region_key("r", "/" + long_name).is_ok());
  EXPECT_TRUE(check_region_key("r", "/triton_python_backend").is_ok());
  EXPECT_TRUE(check_region_key("r", "/..x").is_ok());
  EXPECT_TRUE(check_region_key("r", "/\xC3\xA4").is_ok());
  const std::string keys[] = {"",
                              "/",
                              "//",
                              ".",
                              "..",
                              "/.",
                              "/..",
                              "/" + name + "/",
                              "//" + name,
                              "/../shm/" + name,
                              "../shm/" + name,
                              "/../../etc/passwd",
                              "/a/b",
                              "a/b",
                              "a/",
                              "/dev/shm/" + name,
                              std::string("/a\0b", 4),
                              "/a\nb",
                              "/a\x7F",
                              "\t",
                              "/" + long_name + "k",
                              std::string(70'000, 'k'),
                              "/triton_python_backend_shm_region_1",
                              "triton_python_backend_shm_region_",
                              "/fastserve_ring",
                              "/sem.lock"};
  for (const std::string& key : keys) {
    const Status status = open({"r", key, 0, 64}).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << shown(key);
    EXPECT_LE(status.message().size(), 500U);
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
  EXPECT_EQ(
      open({"r", "/triton_python_backend_shm_region_1", 0, 64}).status().message(),
      "cannot register shared memory region 'r' with key '/triton_python_backend_shm_region_1' as the key "
      "contains the reserved prefix 'triton_python_backend_shm_region_'");
}

TEST(Region, WhatIsNotThereAndWhatIsNotAnObjectReadTheSame) {
  const std::string missing = "/fs-test-nobody-made-this";
  const Status none = open({"r", missing, 0, 1}).status();
  EXPECT_EQ(none.code(), Code::kInvalidArgument);
  EXPECT_EQ(none.message(), "Unable to open shared memory region: '" + missing + "'");
  const std::string fifo = "/dev/shm/fs-test-fifo-" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const Status not_a_file = open({"r", fifo.substr(8), 0, 1}).status();
  ::unlink(fifo.c_str());
  EXPECT_EQ(not_a_file.code(), Code::kInvalidArgument);
  EXPECT_EQ(not_a_file.message(), "Unable to open shared memory region: '" + fifo.substr(8) + "'");
  const std::string link = "/dev/shm/fs-test-link-" + std::to_string(::getpid());
  ASSERT_EQ(::symlink("/etc/hostname", link.c_str()), 0);
  EXPECT_EQ(open({"r", link.substr(8), 0, 1}).status().code(), Code::kInvalidArgument);
  ::unlink(link.c_str());
}

TEST(Region, NamesHaveALimit) {
  SharedObject object(64);
  for (const std::size_t bytes : {kMaxRegionNameBytes - 1, kMaxRegionNameBytes, kMaxRegionNameBytes + 1}) {
    EXPECT_EQ(open({std::string(bytes, 'n'), object.key(), 0, 64}).is_ok(), bytes <= kMaxRegionNameBytes);
  }
  EXPECT_EQ(open({"", object.key(), 0, 64}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(open({"a\nb", object.key(), 0, 64}).status().message(),
            "name: got 'a?b', want no control characters");
}

class CutOff : public ::testing::Test {
 protected:
  CutOff() { EXPECT_TRUE(install_sigbus_guard().is_ok()); }
};

TEST_F(CutOff, ReadsZerosAndIsBroken) {
  SharedObject object(4 * page_bytes());
  std::memset(object.memory().data(), 7, object.memory().size());
  SharedObject other_object(page_bytes());
  const auto region = open({"r", object.key(), 0, 4 * page_bytes()}).value();
  const auto other = open({"o", other_object.key(), 0, page_bytes()}).value();
  const std::span<std::byte> all = region->at(0, 4 * page_bytes()).value();
  object.resize(page_bytes());
  EXPECT_FALSE(region->broken()) << "nobody has noticed";
  EXPECT_EQ(all[0], std::byte{7});
  EXPECT_EQ(all[page_bytes()], std::byte{0});
  EXPECT_TRUE(region->broken());
  EXPECT_EQ(all[4 * page_bytes() - 1], std::byte{0});
  EXPECT_EQ(all[0], std::byte{7}) << "what lies before the cut is still the client's";
  all[page_bytes()] = std::byte{9};  // written to nobody
  EXPECT_FALSE(other->broken());
  EXPECT_EQ(region->refusal().code(), Code::kInvalidArgument);
  EXPECT_NE(region->refusal().message().find("region 'r' was truncated by its owner"), std::string::npos);
  // Registered anew it is whole: the place in the table is not the old one's.
  object.resize(4 * page_bytes());
  EXPECT_FALSE(open({"again", object.key(), 0, 4 * page_bytes()}).value()->broken());
}

TEST_F(CutOff, WritesDoNotEndTheProcess) {
  SharedObject object(2 * page_bytes());
  const auto region = open({"r", object.key(), 0, 2 * page_bytes()}).value();
  object.resize(0);
  std::memset(region->at(0, 2 * page_bytes()).value().data(), 1, 2 * page_bytes());
  EXPECT_TRUE(region->broken());
}

TEST_F(CutOff, ManyThreadsMeetItAtOnce) {
  for (int round = 0; round < 50; ++round) {
    SharedObject object(64 * page_bytes());
    const auto region = open({"r", object.key(), 0, 64 * page_bytes()}).value();
    object.resize(0);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        const auto all = region->at(0, 64 * page_bytes()).value();
        for (int page = 0; page < 64; ++page) {
          // Every page by all of them, each its own byte.
          const auto at = static_cast<std::size_t>((page * 7 + t * 16) % 64) * page_bytes();
          volatile std::byte* byte = &all[at + static_cast<std::size_t>(t)];
          *byte = *byte;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(region->broken());
  }
}

// More than one piece of the table, and its places are used again.
TEST_F(CutOff, ManyRegionsAtOnce) {
  SharedObject object(2 * page_bytes());
  for (int round = 0; round < 3; ++round) {
    std::vector<std::shared_ptr<Region>> regions;
    object.resize(2 * page_bytes());
    for (int i = 0; i < 300; ++i) {
      regions.push_back(open({"r" + std::to_string(i), object.key(), 0, 2 * page_bytes()}).value());
      EXPECT_FALSE(regions.back()->broken());
    }
    object.resize(page_bytes());
    for (std::size_t i = 0; i < regions.size(); i += 2) {
      EXPECT_EQ(regions[i]->at(page_bytes(), 1).value()[0], std::byte{0});
    }
    for (std::size_t i = 0; i < regions.size(); ++i) EXPECT_EQ(regions[i]->broken(), i % 2 == 0) << i;
  }
}

// Sanitizers have a handler of their own, which then gets its turn: it ends the process with a report.
bool died_of_it(int status) {
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGBUS;
  return WEXITSTATUS(status) != 0;
}

// In a child process: SIGBUS of memory that is no region's ends it, as it would without us.
TEST_F(CutOff, OtherFaultsStayFatal) {
  SharedObject object(page_bytes());
  object.resize(0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    volatile char* at = object.as<char>();
    *at = 1;
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(died_of_it(status));
}

TEST_F(CutOff, SomebodysKillStaysFatal) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::raise(SIGBUS);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(died_of_it(status));
}

}  // namespace
}  // namespace fastserve
