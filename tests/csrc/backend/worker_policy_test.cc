// Restart back-off, limits in time, log lines and their budget: pure functions of time and bytes.
#include "backend/worker_policy.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <string>
#include <vector>

#include "backend/worker_log.h"

namespace fastserve {
namespace {

TEST(RestartPolicy, FirstDeathIsAnsweredAtOnceThenTheDelayDoublesUpToTheMost) {
  RestartPolicy policy;
  EXPECT_EQ(policy.died(kSecond, true, 100 * kSecond), 0);
  Nanos want = RestartPolicy::kFirstDelay;
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(policy.died(0, false, 100 * kSecond), want) << i;
    want = std::min(want * 2, RestartPolicy::kMostDelay);
  }
}

TEST(RestartPolicy, HealthyIsWhoAnsweredAndLivedForASecond) {
  const auto second_death = [](Nanos lived, bool answered) {
    RestartPolicy policy;
    policy.died(1, true, kSecond);
    return policy.died(10 * kSecond, answered, 10 * kSecond + lived);
  };
  EXPECT_EQ(second_death(RestartPolicy::kHealthy, true), 0);
  EXPECT_EQ(second_death(RestartPolicy::kHealthy - 1, true), RestartPolicy::kFirstDelay);
  EXPECT_EQ(second_death(RestartPolicy::kHealthy, false), RestartPolicy::kFirstDelay);
}

TEST(WorkerLimits, AreSecondsWithinBounds) {
  const auto read = [](const std::string& text) { return read_worker_limits({{"execute_timeout_s", text}}); };
  EXPECT_EQ(read_worker_limits({})->execute_ns, 60 * kSecond);
  EXPECT_EQ(read("0.5")->execute_ns, kSecond / 2);
  EXPECT_EQ(read("0")->execute_ns, 0);
  EXPECT_EQ(read("86400")->execute_ns, 86'400 * kSecond);
  for (const char* bad : {"-1", "86400.1", "nan", "", "5s"}) {
    const auto got = read(bad);
    ASSERT_FALSE(got.is_ok()) << bad;
    EXPECT_EQ(got.status().code(), Code::kInvalidArgument);
    EXPECT_NE(got.status().message().find("execute_timeout_s"), std::string::npos);
  }
}

TEST(DeathText, SaysStatusOrSignal) {
  EXPECT_EQ(death_text(CLD_EXITED, 3), "it exited with status 3");
  EXPECT_EQ(death_text(CLD_DUMPED, SIGSEGV), "it was ended by signal 11 (Segmentation fault)");
  EXPECT_NE(death_text(CLD_KILLED, SIGKILL).find("memory"), std::string::npos);
}

std::vector<std::string> lines(const std::vector<std::string>& pieces) {
  std::vector<std::string> out;
  LineCutter cutter;
  const auto take = [&out](std::string_view line) { out.emplace_back(line); };
  for (const std::string& piece : pieces) cutter.feed(piece, take);
  cutter.finish(take);
  return out;
}

TEST(LineCutter, LinesDoNotDependOnThePieces) {
  const std::vector<std::string> want{"one", "two", "end"};
  EXPECT_EQ(lines({"one\ntwo\nend"}), want);
  EXPECT_EQ(lines({"o", "ne", "\n", "two\ne", "nd"}), want);
  EXPECT_EQ(lines({"one\n\n\ntwo\nend\n"}), want);
}

TEST(LineCutter, CutsWhatIsTooLong) {
  const std::size_t most = LineCutter::kMostLineBytes;
  EXPECT_EQ(lines({std::string(most - 1, 'x') + "\n"}).size(), 1U);
  EXPECT_EQ(lines({std::string(most, 'x') + "\n"}).size(), 1U);
  EXPECT_EQ(lines({std::string(most + 1, 'x') + "\n"}).size(), 2U);
}

TEST(LineBudget, AllowsABurstThenSoManyPerSecond) {
  LineBudget budget;
  Nanos now = 1000 * kSecond;
  for (std::int64_t i = 0; i < LineBudget::kBurst; ++i) ASSERT_TRUE(budget.take(now)) << i;
  EXPECT_FALSE(budget.take(now));
  EXPECT_FALSE(budget.take(now + kSecond / LineBudget::kLinesPerSecond - 1));
  EXPECT_EQ(budget.take_dropped(), 2);
  now += kSecond;
  for (std::int64_t i = 0; i < LineBudget::kLinesPerSecond; ++i) ASSERT_TRUE(budget.take(now)) << i;
  EXPECT_FALSE(budget.take(now));
}

}  // namespace
}  // namespace fastserve
