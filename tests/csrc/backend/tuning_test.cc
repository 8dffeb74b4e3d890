#include "backend/tuning.h"

#include <gtest/gtest.h>

#include <vector>

namespace fastserve {
namespace {

using Ladder = std::vector<int>;

TEST(StreamsLadder, PowersOfTwoUpToTheThreads) {
  EXPECT_EQ(streams_ladder(1), (Ladder{1}));
  EXPECT_EQ(streams_ladder(2), (Ladder{1, 2}));
  EXPECT_EQ(streams_ladder(6), (Ladder{1, 2, 4, 6}));
  EXPECT_EQ(streams_ladder(16), (Ladder{1, 2, 4, 8, 16}));
  EXPECT_EQ(streams_ladder(0), (Ladder{1}));
}

TEST(StreamsLadder, StepsOfWholeNodes) {
  EXPECT_EQ(streams_ladder(24, 2), (Ladder{1, 2, 4, 8, 16, 24}));
  EXPECT_EQ(streams_ladder(24, 3), (Ladder{1, 3, 6, 12, 24}));
  EXPECT_EQ(streams_ladder(2, 4), (Ladder{1, 2}));
}

TEST(LoneRequest, ThreePercentOrTenOfShortRuns) {
  EXPECT_TRUE(lone_is_good(103 * kMillisecond, 100 * kMillisecond));
  EXPECT_FALSE(lone_is_good(104 * kMillisecond, 100 * kMillisecond));
  EXPECT_TRUE(lone_is_good(1'100 * kMicrosecond, kMillisecond));
  EXPECT_FALSE(lone_is_good(1'101 * kMicrosecond, kMillisecond));
  EXPECT_TRUE(lone_is_good(5'200 * kMicrosecond, 5 * kMillisecond));  // 0.2 ms
  EXPECT_FALSE(lone_is_good(5'201 * kMicrosecond, 5 * kMillisecond));
}

std::size_t chosen(const std::vector<StreamsMeasured>& measured) { return choose_streams(measured); }

TEST(ChooseStreams, ALoneRequestMustNotPayForThroughput) {
  EXPECT_EQ(chosen({{1, 20 * kMillisecond, 50}, {2, 38 * kMillisecond, 100}}), 0U);
}

TEST(ChooseStreams, MoreStreamsWhereALoneRequestDoesNotFeelThem) {
  EXPECT_EQ(chosen({{1, 3 * kMillisecond, 330}, {2, 3 * kMillisecond, 640}}), 1U);
  EXPECT_EQ(chosen({{1, 3 * kMillisecond, 330}, {2, 3 * kMillisecond, 640}, {4, 3 * kMillisecond, 1200}}),
            2U);
}

TEST(ChooseStreams, FewerWhenTheGainIsSmall) {
  EXPECT_EQ(chosen({{1, 3 * kMillisecond, 330}, {2, 3 * kMillisecond, 345}}), 0U);
  EXPECT_EQ(chosen({{1, 3 * kMillisecond, 330}, {2, 3 * kMillisecond, 350}}), 1U);
}

TEST(ChooseStreams, OneStreamMayBeTheSlowerOne) {
  EXPECT_EQ(chosen({{1, 5 * kMillisecond, 400}, {2, 4 * kMillisecond, 390}}), 1U);
}

TEST(ChooseStreams, WithoutRatesTheFirstGoodOne) {
  EXPECT_EQ(chosen({{1, 5 * kMillisecond, 0}}), 0U);
  EXPECT_EQ(chosen({{1, 5 * kMillisecond, 0}, {2, 9 * kMillisecond, 0}}), 0U);
}

TEST(LonePays, HalfAPercentButNotBelowFiftyMicroseconds) {
  EXPECT_TRUE(lone_pays(100 * kMicrosecond, 20 * kMillisecond));
  EXPECT_FALSE(lone_pays(100 * kMicrosecond - 1, 20 * kMillisecond));
  EXPECT_TRUE(lone_pays(50 * kMicrosecond, kMillisecond));
  EXPECT_FALSE(lone_pays(50 * kMicrosecond - 1, kMillisecond));
  EXPECT_FALSE(lone_pays(-kMillisecond, kMillisecond));
}

TEST(InWords, RatesAndLoneTimes) {
  EXPECT_EQ(
      in_words(std::vector<StreamsMeasured>{{1, 3 * kMillisecond, 330.4}, {2, 5'500 * kMicrosecond, 0}}),
      "1 stream: 330 rows/s, alone 3 ms; 2 streams: alone 5.5 ms");
}

TEST(TuneSettings, AreOfTheProcess) {
  const TuneSettings former = tune_settings();
  EXPECT_TRUE(former.at_load);
  EXPECT_EQ(former.cache_directory, "");
  set_tune_settings({false, "/x", kSecond, 0.2});
  EXPECT_FALSE(tune_settings().at_load);
  EXPECT_EQ(tune_settings().cache_directory, "/x");
  set_tune_settings(former);
}

}  // namespace
}  // namespace fastserve
