#include "sched/decision_log.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>

namespace fastserve {
namespace {

Decision batch_of(std::size_t requests, std::int64_t rows, Reason reason = Reason::kNoGain) {
  Decision out;
  out.requests = requests;
  out.rows = rows;
  out.reason = reason;
  return out;
}

Decision waits() {
  Decision out;
  out.reason = Reason::kCompany;
  return out;
}

std::map<std::int64_t, std::uint64_t> sizes_of(const DecisionLog::View& view) {
  std::map<std::int64_t, std::uint64_t> out;
  for (const auto& size : view.batches) out[size.rows] = size.count;
  return out;
}

using Sizes = std::map<std::int64_t, std::uint64_t>;

TEST(DecisionLog, CountsByReasonAndByRows) {
  const Statistics statistics(8);
  DecisionLog log(8, statistics);
  const Nanos now = 1000 * kSecond;
  log.count(now, batch_of(3, 3), 4, 30);
  log.count(now, batch_of(1, 8, Reason::kFull), 8, 5);
  log.count(now, batch_of(2, 4), 4, 1);
  log.count(now, waits(), 0, 0);
  log.count(now, {}, 0, 0);
  const DecisionLog::View view = log.read(now + kSecond / 2);
  EXPECT_EQ(sizes_of(view), (Sizes{{4, 2}, {8, 1}}));
  EXPECT_EQ(view.decisions[static_cast<std::size_t>(Reason::kNoGain)], 2U);
  EXPECT_EQ(view.decisions[static_cast<std::size_t>(Reason::kFull)], 1U);
  EXPECT_EQ(view.decisions[static_cast<std::size_t>(Reason::kCompany)], 1U);
  EXPECT_EQ(view.decisions[static_cast<std::size_t>(Reason::kNothingWaits)], 0U);
  EXPECT_EQ(view.requests, 6U);
  EXPECT_EQ(view.rows, 15U);
  EXPECT_EQ(view.wait_ns, 36U);
  EXPECT_DOUBLE_EQ(view.seconds, 0.5);
}

TEST(DecisionLog, ForgetsWhatIsOlderThanAMinute) {
  const Statistics statistics(8);
  DecisionLog log(8, statistics);
  const std::int64_t first = 1000;
  for (std::int64_t second = first; second < first + 200; ++second) {
    log.count(second * kSecond, batch_of(1, 1), 1, 0);
    const DecisionLog::View view = log.read(second * kSecond);
    EXPECT_EQ(view.requests, static_cast<std::uint64_t>(std::min<std::int64_t>(second - first + 1, 60)));
  }
  EXPECT_EQ(log.read((first + 199 + 59) * kSecond).requests, 1U);
  EXPECT_EQ(log.read((first + 199 + 60) * kSecond).requests, 0U);
}

TEST(DecisionLog, RefusalsOfTheMinuteComeFromTheCounters) {
  Statistics statistics(8);
  DecisionLog log(8, statistics);
  const auto full = [&](std::int64_t second) {
    return log.read(second * kSecond).outcomes[static_cast<std::size_t>(Outcome::kQueueFull)];
  };
  statistics.add(Outcome::kQueueFull, 0);
  log.count(100 * kSecond, batch_of(1, 1), 1, 0);
  for (int i = 0; i < 3; ++i) statistics.add(Outcome::kQueueFull, 0);
  EXPECT_EQ(full(100), 3U);
  log.count(130 * kSecond, batch_of(1, 1), 1, 0);
  statistics.add(Outcome::kQueueFull, 0);
  EXPECT_EQ(full(150), 4U);
  EXPECT_EQ(full(160), 1U) << "the first second is more than a minute ago";
  EXPECT_EQ(full(190), 0U);
}

TEST(DecisionLog, ColumnsAreExactUpTo64AndAnEighthOfAPowerAbove) {
  for (std::int64_t rows = 1; rows <= 64; ++rows) {
    EXPECT_EQ(DecisionLog::rows_of(DecisionLog::column_of(rows)), rows);
  }
  std::size_t last = DecisionLog::column_of(64);
  for (std::int64_t rows = 65; rows <= 4096; ++rows) {
    const std::size_t column = DecisionLog::column_of(rows);
    EXPECT_TRUE(column == last || column == last + 1) << rows;
    last = column;
    EXPECT_GE(DecisionLog::rows_of(column), rows);
    EXPECT_LT(static_cast<double>(DecisionLog::rows_of(column)), 1.125 * static_cast<double>(rows)) << rows;
  }
  for (const std::int64_t exact : {72, 80, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096}) {
    EXPECT_EQ(DecisionLog::rows_of(DecisionLog::column_of(exact)), exact);
  }
  EXPECT_EQ(DecisionLog::column_of(1'000'000), DecisionLog::column_of(4096));
  EXPECT_EQ(DecisionLog::column_of(0), 0U);
}

TEST(DecisionLog, LargerThanTheModelsRowsIsCountedAsTheLargest) {
  const Statistics statistics(4);
  DecisionLog log(4, statistics);
  log.count(kSecond, batch_of(1, 9), 9, 0);
  EXPECT_EQ(sizes_of(log.read(kSecond)), (Sizes{{4, 1}}));
}

TEST(DecisionLog, IsReadWhileItIsWritten) {
  const Statistics statistics(64);
  DecisionLog log(64, statistics);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (Nanos now = kSecond; !stop; now += kSecond / 7) log.count(now, batch_of(2, 4), 4, 1);
  });
  for (int i = 0; i < 300; ++i) {
    const DecisionLog::View view = log.read(i * kSecond);
    EXPECT_LE(view.requests, 2U * 7 * 61);
  }
  stop = true;
  writer.join();
}

}  // namespace
}  // namespace fastserve
