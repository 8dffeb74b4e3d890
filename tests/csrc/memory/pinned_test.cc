// Page-locked memory without a GPU: who is locked when, what the budgets hold back, and that everything comes back.
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "memory/pinned_arena.h"
#include "memory/pinned_ranges.h"
#include "memory/pinned_slab.h"
#include "memory/region.h"
#include "support/shared_object.h"

namespace fastserve {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kSlab = PinnedSlab::kStandardBytes;

class CountingLock final : public PageLock {
 public:
  Status lock(std::byte* begin, std::size_t bytes) override {
    const std::lock_guard held(mutex_);
    if (refuse) return {Code::kResourceExhausted, "refused by the test"};
    EXPECT_TRUE(locked_.emplace(begin, bytes).second) << "locked twice";
    return Status::ok();
  }
  void unlock(std::byte* begin) override {
    const std::lock_guard held(mutex_);
    EXPECT_EQ(locked_.erase(begin), 1U) << "unlocked, and was not locked";
  }
  std::size_t ranges() const {
    const std::lock_guard held(mutex_);
    return locked_.size();
  }
  std::atomic<bool> refuse{false};

 private:
  mutable std::mutex mutex_;
  std::map<std::byte*, std::size_t> locked_;
};

class PinnedTest : public testing::Test {
 protected:
  std::vector<std::byte> memory_ = std::vector<std::byte>(64 * 1024);
  std::byte* const at_ = memory_.data();
  CountingLock lock_;
  PinnedRanges ranges_;
};

TEST_F(PinnedTest, WithoutAGpuNothingIsLocked) {
  const PinnedRange range(ranges_, at_, 4096);
  EXPECT_FALSE(ranges_.holds(at_, 1));
  EXPECT_EQ(ranges_.totals().waiting, 1U);
  EXPECT_FALSE(ranges_.totals().active);
  EXPECT_EQ(ranges_.lock_slab(at_ + 4096, 4096).code(), Code::kFailedPrecondition);
}

TEST_F(PinnedTest, WaitingRangesAreLockedWhenTheGpuComesUpAndNewOnesAtOnce) {
  PinnedRange first(ranges_, at_, 4096);
  ranges_.start(lock_);
  EXPECT_TRUE(ranges_.holds(at_, 4096));
  const PinnedRange second(ranges_, at_ + 8192, 4096);
  EXPECT_EQ(lock_.ranges(), 2U);
  EXPECT_EQ(ranges_.totals().bytes, 8192U);
  first = PinnedRange();
  EXPECT_EQ(lock_.ranges(), 1U);
  EXPECT_FALSE(ranges_.holds(at_, 1));
}

TEST_F(PinnedTest, HoldsOnlyWhatIsWhollyInside) {
  ranges_.start(lock_);
  const PinnedRange range(ranges_, at_ + 4096, 4096);
  EXPECT_TRUE(ranges_.holds(at_ + 4096, 4096));
  EXPECT_TRUE(ranges_.holds(at_ + 8191, 1));
  EXPECT_FALSE(ranges_.holds(at_ + 4095, 2));
  EXPECT_FALSE(ranges_.holds(at_ + 8191, 2));
  EXPECT_FALSE(ranges_.holds(at_ + 8192, 1));
  EXPECT_FALSE(ranges_.holds(at_ + 4096, 0));
  EXPECT_FALSE(ranges_.holds(at_ + 4096, SIZE_MAX));
}

TEST_F(PinnedTest, ClientsAreLockedUpToTheBudget) {
  ranges_.start(lock_);
  for (const std::size_t budget : {std::size_t{8191}, std::size_t{8192}, std::size_t{8193}}) {
    ranges_.limit_clients(budget);
    const PinnedRange first(ranges_, at_, 4096);
    const std::uint64_t refused = ranges_.totals().refused;
    const PinnedRange second(ranges_, at_ + 4096, 4096);
    EXPECT_EQ(ranges_.holds(at_ + 4096, 1), budget >= 8192) << budget;
    EXPECT_EQ(ranges_.totals().refused - refused, budget >= 8192 ? 0U : 1U);
  }
  EXPECT_EQ(lock_.ranges(), 0U);
}

TEST_F(PinnedTest, ARefusedLockIsCountedAndNothingElse) {
  ranges_.start(lock_);
  lock_.refuse = true;
  {
    const PinnedRange range(ranges_, at_, 4096);
    EXPECT_FALSE(ranges_.holds(at_, 1));
    EXPECT_EQ(ranges_.totals().refused, 1U);
    EXPECT_EQ(ranges_.totals().bytes, 0U);
  }
  lock_.refuse = false;
  const PinnedRange again(ranges_, at_, 4096);  // its bytes were not left in the budget
  EXPECT_TRUE(ranges_.holds(at_, 4096));
}

TEST_F(PinnedTest, RangesComeAndGoWhileTheGpuComesUp) {
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::byte* const own = at_ + t * 8192;
      for (int i = 0; i < 300; ++i) {
        const PinnedRange range(ranges_, own, 4096);
        static_cast<void>(ranges_.holds(own, 1));
        static_cast<void>(ranges_.totals());
      }
    });
  }
  ranges_.start(lock_);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lock_.ranges(), 0U);
  EXPECT_EQ(ranges_.totals().bytes, 0U);
}

TEST(PinnedRegion, AClientsRegionIsLockedUntilItsLastUse) {
  static CountingLock lock;  // the process's ranges keep it
  SharedObject object(8192);
  std::shared_ptr<Region> before = Region::open({"r", object.key(), 0, 8192}, {}).value();
  std::byte* const at = before->at(0, 8192)->data();
  EXPECT_FALSE(pinned_ranges().holds(at, 8192));
  pinned_ranges().start(lock);
  EXPECT_TRUE(pinned_ranges().holds(at, 8192));
  const std::shared_ptr<Region> request = before;
  before.reset();
  EXPECT_TRUE(pinned_ranges().holds(at, 8192));
  const_cast<std::shared_ptr<Region>&>(request).reset();
  EXPECT_FALSE(pinned_ranges().holds(at, 8192));
  EXPECT_EQ(lock.ranges(), 0U);
}

// --- the arena

class ArenaTest : public PinnedTest {
 protected:
  void SetUp() override { ranges_.start(lock_); }
  std::shared_ptr<PinnedArena> arena(std::uint64_t budget) { return PinnedArena::make(ranges_, budget); }
};

TEST_F(ArenaTest, PiecesAreLockedAndAligned) {
  const auto memory = arena(64 * kMiB)->allocator(0);
  std::vector<std::pair<std::byte*, std::size_t>> pieces;
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{256}, std::size_t{257}, kMiB, 5 * kMiB}) {
    std::byte* const piece = memory->allocate(bytes);
    ASSERT_NE(piece, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(piece) % PinnedArena::kAlign, 0U);
    EXPECT_TRUE(ranges_.holds(piece, std::max<std::size_t>(bytes, 1))) << bytes;
    std::memset(piece, 0x5A, bytes);
    pieces.emplace_back(piece, bytes);
  }
  for (const auto& [piece, bytes] : pieces) memory->free(piece, bytes);
}

TEST_F(ArenaTest, TheBudgetHoldsAtItsLimit) {
  // A slab of its own for each: 6 MiB in whole huge pages.
  for (const std::uint64_t budget : {12 * kMiB - 1, 12 * kMiB, 12 * kMiB + 1}) {
    const auto pinned = arena(budget);
    const auto memory = pinned->allocator(PinnedArena::kAnyNode);
    std::byte* const first = memory->allocate(6 * kMiB);
    std::byte* const second = memory->allocate(6 * kMiB);
    ASSERT_NE(second, nullptr) << "beyond the budget there is pageable memory";
    EXPECT_TRUE(ranges_.holds(first, 6 * kMiB));
    const bool fits = budget >= 12 * kMiB;
    EXPECT_EQ(ranges_.holds(second, 6 * kMiB), fits) << budget;
    EXPECT_EQ(pinned->totals().over_budget, fits ? 0U : 1U);
    EXPECT_EQ(pinned->totals().pageable_bytes, fits ? 0U : 6 * kMiB);
    EXPECT_LE(pinned->totals().slab_bytes, budget);
    memory->free(first, 6 * kMiB);
    memory->free(second, 6 * kMiB);
    EXPECT_EQ(pinned->totals().used_bytes, 0U);
    EXPECT_EQ(pinned->totals().pageable_bytes, 0U);
  }
  EXPECT_EQ(lock_.ranges(), 0U);
}

TEST_F(ArenaTest, ASmallBudgetGetsSmallSlabs) {
  for (const std::uint64_t budget : {2 * kMiB - 1, 2 * kMiB, 2 * kMiB + 1}) {
    const auto memory = arena(budget)->allocator(0);
    std::byte* const piece = memory->allocate(1000);
    EXPECT_EQ(ranges_.holds(piece, 1000), budget >= 2 * kMiB) << budget;
    memory->free(piece, 1000);
  }
}

TEST_F(ArenaTest, ARefusedLockMeansPageableMemory) {
  lock_.refuse = true;
  const auto pinned = arena(64 * kMiB);
  const auto memory = pinned->allocator(0);
  std::byte* const piece = memory->allocate(kMiB);
  ASSERT_NE(piece, nullptr);
  std::memset(piece, 1, kMiB);
  EXPECT_EQ(pinned->totals().refused, 1U);
  EXPECT_EQ(pinned->totals().slab_bytes, 0U);
  lock_.refuse = false;
  std::byte* const later = memory->allocate(kMiB);
  EXPECT_TRUE(ranges_.holds(later, kMiB));
  memory->free(piece, kMiB);
  memory->free(later, kMiB);
}

TEST_F(ArenaTest, WithoutAGpuItIsPageableMemory) {
  PinnedRanges none;
  const auto pinned = PinnedArena::make(none);
  const auto memory = pinned->allocator(0);
  std::byte* const piece = memory->allocate(100);
  ASSERT_NE(piece, nullptr);
  EXPECT_EQ(pinned->totals().refused, 1U);
  memory->free(piece, 100);
}

TEST_F(ArenaTest, SlabsGoBackWithTheModel) {
  const auto pinned = arena(64 * kMiB);
  auto first = pinned->allocator(0);
  auto second = pinned->allocator(0);
  std::byte* const kept = second->allocate(100);
  std::vector<std::byte*> pieces;
  for (int i = 0; i < 3; ++i) pieces.push_back(first->allocate(6 * kMiB));
  EXPECT_EQ(pinned->totals().slab_bytes, kSlab + 18 * kMiB);
  for (std::byte* piece : pieces) first->free(piece, 6 * kMiB);
  EXPECT_EQ(pinned->totals().slab_bytes, kSlab + 6 * kMiB) << "one spare is kept";
  first.reset();
  EXPECT_EQ(pinned->totals().slab_bytes, kSlab) << "the other model's slab stays";
  second->free(kept, 100);
  second.reset();
  EXPECT_EQ(pinned->totals().slab_bytes, 0U);
  EXPECT_EQ(lock_.ranges(), 0U);
}

TEST_F(ArenaTest, NodesDoNotShareSlabs) {
  const auto pinned = arena(64 * kMiB);
  const auto here = pinned->allocator(0);
  const auto there = pinned->allocator(1);  // a node that this machine may not have: still memory
  std::byte* const a = here->allocate(100);
  std::byte* const b = there->allocate(100);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(pinned->totals().slabs, 2U);
  here->free(a, 100);
  there->free(b, 100);
}

TEST_F(ArenaTest, RandomPiecesNeverOverlapAndAllComesBack) {
  const auto pinned = arena(24 * kMiB);
  auto memory = pinned->allocator(0);
  std::mt19937 random(7);
  std::map<std::byte*, std::size_t> out;
  for (int i = 0; i < 4000; ++i) {
    if (out.size() > 60 || (!out.empty() && random() % 3 == 0)) {
      auto at = out.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(random() % out.size()));
      memory->free(at->first, at->second);
      out.erase(at);
      continue;
    }
    const std::size_t bytes = std::size_t{1} << (random() % 21);
    std::byte* const piece = memory->allocate(bytes);
    ASSERT_NE(piece, nullptr);
    const auto next = out.lower_bound(piece);
    if (next != out.end()) {
      ASSERT_LE(piece + bytes, next->first);
    }
    if (next != out.begin()) {
      ASSERT_LE(std::prev(next)->first + std::prev(next)->second, piece);
    }
    out.emplace(piece, bytes);
  }
  for (const auto& [piece, bytes] : out) memory->free(piece, bytes);
  EXPECT_EQ(pinned->totals().used_bytes, 0U);
  memory.reset();
  EXPECT_EQ(pinned->totals().slab_bytes, 0U);
}

TEST_F(ArenaTest, AnyThreadMayAllocateAndFree) {
  const auto pinned = arena(16 * kMiB);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto memory = pinned->allocator(t % 2);
      for (int i = 0; i < 200; ++i) {
        std::byte* const piece = memory->allocate(kMiB);
        piece[0] = std::byte{1};
        memory->free(piece, kMiB);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pinned->totals().used_bytes, 0U);
  EXPECT_EQ(pinned->totals().pageable_bytes, 0U);
}

// The system's own limit, with mlock as what locks: of slabs of 6 MiB one fits into 7 MiB, the next is pageable.
class MemoryLock final : public PageLock {
 public:
  Status lock(std::byte* begin, std::size_t bytes) override {
    return ::syscall(SYS_mlock, begin, bytes) == 0  // sanitizers make nothing of mlock()
               ? Status::ok()
               : Status(Code::kResourceExhausted, std::strerror(errno));
  }
  void unlock(std::byte* begin) override { ::syscall(SYS_munlock, begin, 6 * kMiB); }
};

int slabs_under_the_systems_limit() {
  const rlimit limit{7 * kMiB, 7 * kMiB};
  // Nobody's rights: root may lock what it likes.
  if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || ::setgroups(0, nullptr) != 0 || ::setgid(65534) != 0 ||
      ::setuid(65534) != 0) {
    return 100;
  }
  MemoryLock lock;
  PinnedRanges ranges;
  ranges.start(lock);
  const auto pinned = PinnedArena::make(ranges);
  const auto memory = pinned->allocator(0);
  for (int i = 0; i < 2; ++i) {
    std::byte* const piece = memory->allocate(6 * kMiB);
    if (piece == nullptr) return 101;
    std::memset(piece, 1, 6 * kMiB);
  }
  const PinnedTotals totals = pinned->totals();
  return totals.refused == 1 && totals.pageable_bytes == 6 * kMiB ? static_cast<int>(totals.slabs) : 102;
}

TEST(PinnedArena, TheSystemsLimitMeansPageableMemory) {
  if (::getuid() != 0) GTEST_SKIP() << "needs root to give up root's right to lock everything";
  const pid_t child = ::fork();
  if (child == 0) ::_exit(slabs_under_the_systems_limit());
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

}  // namespace
}  // namespace fastserve
