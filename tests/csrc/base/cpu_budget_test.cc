#include "base/cpu_budget.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace fastserve {
namespace {

// A run of so many threads; remembers whether it was started.
struct HeavyRun {
  explicit HeavyRun(int threads, std::vector<HeavyRun*>* list = nullptr) : order(list) {
    turn = {[](CpuBudget::Turn& mine) { static_cast<HeavyRun*>(mine.owner)->begin(); }, this, threads};
  }
  void begin() {
    started = true;
    if (order != nullptr) order->push_back(this);
  }
  bool take(CpuBudget& budget) {
    started = budget.take(turn);
    return started;
  }
  CpuBudget::Turn turn;
  std::vector<HeavyRun*>* order = nullptr;
  bool started = false;
};

TEST(CpuBudget, Threads) {
  CpuBudget budget(8, 4);
  EXPECT_EQ(budget.threads(), 4);
  budget.limit_threads(2);
  EXPECT_EQ(budget.threads(), 2);
  budget.limit_threads(8);  // above the quota is the user's business
  EXPECT_EQ(budget.threads(), 8);
  budget.limit_threads(9);
  EXPECT_EQ(budget.threads(), 8);
  budget.limit_threads(0);
  EXPECT_EQ(budget.threads(), 4);
}

TEST(CpuBudget, NothingIsHeldBackWhereTheBudgetIsTheMachine) {
  CpuBudget budget(2, 2);
  HeavyRun a(2), b(2), c(2);
  EXPECT_TRUE(a.take(budget) && b.take(budget) && c.take(budget));
  budget.give_back(a.turn);
  budget.give_back(b.turn);
  budget.give_back(c.turn);
}

TEST(CpuBudget, ARunWaitsForItsThreads) {
  CpuBudget budget(8, 2);
  HeavyRun a(1), b(1), c(2);
  EXPECT_TRUE(a.take(budget));
  EXPECT_TRUE(b.take(budget));
  EXPECT_FALSE(c.take(budget));
  budget.give_back(a.turn);
  EXPECT_FALSE(c.started);
  budget.give_back(b.turn);
  EXPECT_TRUE(c.started);
  budget.give_back(c.turn);
}

TEST(CpuBudget, FirstComeFirstServedSoThatAWideRunIsNotStarved) {
  CpuBudget budget(8, 2);
  std::vector<HeavyRun*> order;
  HeavyRun a(1, &order), wide(2, &order), narrow(1, &order);
  EXPECT_TRUE(a.take(budget));
  EXPECT_FALSE(wide.take(budget));
  EXPECT_FALSE(narrow.take(budget));  // one is free, but `wide` came first
  budget.give_back(a.turn);
  EXPECT_EQ(order, (std::vector<HeavyRun*>{&wide}));
  budget.give_back(wide.turn);
  EXPECT_EQ(order, (std::vector<HeavyRun*>{&wide, &narrow}));
  budget.give_back(narrow.turn);
}

TEST(CpuBudget, SeveralStartAtOnceWhenAWideOneEnds) {
  CpuBudget budget(8, 2);
  std::vector<HeavyRun*> order;
  HeavyRun wide(2, &order), a(1, &order), b(1, &order), c(1, &order);
  EXPECT_TRUE(wide.take(budget));
  EXPECT_FALSE(a.take(budget) || b.take(budget) || c.take(budget));
  budget.give_back(wide.turn);
  EXPECT_EQ(order, (std::vector<HeavyRun*>{&a, &b}));
  budget.give_back(a.turn);
  EXPECT_EQ(order.back(), &c);
  budget.give_back(b.turn);
  budget.give_back(c.turn);
}

TEST(CpuBudget, ARunThatWantsMoreThanThereIsGetsAll) {
  CpuBudget budget(8, 2);
  HeavyRun greedy(16), other(1);
  EXPECT_TRUE(greedy.take(budget));
  EXPECT_FALSE(other.take(budget));
  budget.give_back(greedy.turn);
  EXPECT_TRUE(other.started);
  budget.give_back(other.turn);
}

TEST(CpuBudget, GivingBackWithoutHavingTakenOrTwiceChangesNothing) {
  CpuBudget budget(8, 1);
  HeavyRun never(1), a(1), b(1);
  budget.give_back(never.turn);
  EXPECT_TRUE(a.take(budget));
  budget.give_back(a.turn);
  budget.give_back(a.turn);
  EXPECT_TRUE(b.take(budget));
  HeavyRun c(1);
  EXPECT_FALSE(c.take(budget));
  budget.give_back(b.turn);
  budget.give_back(c.turn);
}

TEST(CpuBudget, ARunMayEndInsideItsStart) {
  CpuBudget budget(8, 1);
  static CpuBudget* held = nullptr;
  held = &budget;
  static int started = 0;
  started = 0;
  std::vector<std::unique_ptr<CpuBudget::Turn>> turns;
  CpuBudget::Turn first{[](CpuBudget::Turn&) {}, nullptr, 1};
  ASSERT_TRUE(budget.take(first));
  for (int i = 0; i < 5; ++i) {
    turns.push_back(std::make_unique<CpuBudget::Turn>());
    turns.back()->start = [](CpuBudget::Turn& turn) {
      ++started;
      held->give_back(turn);
    };
    ASSERT_FALSE(budget.take(*turns.back()));
  }
  budget.give_back(first);
  EXPECT_EQ(started, 5);
}

TEST(CpuBudget, NeverMoreAtOnceThanTheBudget) {
  constexpr int kThreads = 4;
  constexpr int kRuns = 2000;
  CpuBudget budget(8, 3);
  struct Worker {
    CpuBudget::Turn turn;
    std::atomic<bool> go{false};
  };
  std::atomic<int> busy{0};
  std::atomic<int> most{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      Worker worker;
      const int wanted = 1 + i % 2;
      for (int run = 0; run < kRuns; ++run) {
        worker.go = false;
        worker.turn = {[](CpuBudget::Turn& turn) {
                         auto& go = static_cast<Worker*>(turn.owner)->go;
                         go = true;
                         go.notify_one();
                       },
                       &worker, wanted};
        if (!budget.take(worker.turn)) worker.go.wait(false);
        const int now = busy.fetch_add(wanted) + wanted;
        int seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        busy.fetch_sub(wanted);
        budget.give_back(worker.turn);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most.load(), 3);
  EXPECT_EQ(busy.load(), 0);
}

TEST(CpuBudget, IdleWhenNothingRanAndNothingRuns) {
  CpuBudget budget(2, 2);
  EXPECT_TRUE(budget.idle_for(kSecond));  // at once: nothing ever ran
  budget.run_started();
  EXPECT_FALSE(budget.idle_for(kMillisecond));
  EXPECT_FALSE(budget.runs().none());
  budget.run_ended();
  EXPECT_TRUE(budget.idle_for(kMillisecond));
  const CpuBudget::Runs before = budget.runs();
  budget.run_started();
  budget.run_ended();
  EXPECT_NE(budget.runs(), before);  // whoever measured meanwhile notices
}

TEST(PreparingScope, IsOfTheThread) {
  EXPECT_FALSE(PreparingScope::here());
  {
    const PreparingScope outer;
    { const PreparingScope inner; }
    EXPECT_TRUE(PreparingScope::here());
    bool elsewhere = true;
    std::thread([&] { elsewhere = PreparingScope::here(); }).join();
    EXPECT_FALSE(elsewhere);
  }
  EXPECT_FALSE(PreparingScope::here());
}

}  // namespace
}  // namespace fastserve
