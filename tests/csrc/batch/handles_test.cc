#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "support/samples.h"

namespace fastserve {
namespace {

TEST(ServedVersion, CountsHandlesAndUnansweredRequests) {
  BareVersion version(row_signature(4));
  ASSERT_TRUE(version.try_begin_request());
  ASSERT_TRUE(version.try_retain());
  version.retain();
  EXPECT_EQ(version.handles(), 3);
  EXPECT_EQ(version.unanswered(), 1);
  version.answered(1);
  EXPECT_EQ(version.unanswered(), 0);
  EXPECT_EQ(version.handles(), 3);
  version.begin_drain();
  EXPECT_FALSE(version.try_retain());
  EXPECT_FALSE(version.try_begin_request());
  EXPECT_EQ(version.handles(), 3);
  EXPECT_EQ(version.unanswered(), 0);
  for (int i = 0; i < 3; ++i) version.release();
  EXPECT_EQ(version.handles(), 0);
  EXPECT_TRUE(version.draining());
}

TEST(ServedVersion, ADrainSeesEveryHandleOrIsSeen) {
  for (int round = 0; round < 60; ++round) {
    BareVersion version(row_signature(4));
    std::vector<std::thread> takers;
    for (int i = 0; i < 2; ++i) {
      takers.emplace_back([&] {
        while (version.try_begin_request()) {
          version.answered(1);
          version.release();
        }
      });
    }
    version.begin_drain();
    for (;;) {
      const std::uint32_t ticket = ServedVersion::idle.ticket();
      if (version.handles() == 0) break;
      ServedVersion::idle.wait(ticket, kNever);
    }
    for (std::thread& taker : takers) taker.join();
    EXPECT_EQ(version.handles(), 0);
  }
}

TEST(Request, ResetGivesTheHandleBackAndForgetsEverything) {
  BareVersion version(row_signature(4));
  RowRequest sample(nullptr, 2, 5);
  Request& request = sample.request;
  ASSERT_TRUE(version.try_begin_request());
  request.version = &version;
  request.priority = 3;
  request.deadline = 17;
  request.response.status = internal_error("x");
  request.message.append("bytes");
  request.cancel();
  version.answered(1);
  request.reset();
  EXPECT_EQ(version.handles(), 0);
  EXPECT_EQ(request.version, nullptr);
  EXPECT_TRUE(request.inputs.empty());
  EXPECT_TRUE(request.message.empty());
  EXPECT_EQ(request.priority, 0U);
  EXPECT_EQ(request.deadline, kNever);
  EXPECT_FALSE(request.cancelled);
  EXPECT_TRUE(request.response.status.is_ok());
  request.reset();  // twice does no harm
  EXPECT_EQ(version.handles(), 0);
}

}  // namespace
}  // namespace fastserve
