#include "frontend/answer_clock.h"

#include <gtest/gtest.h>

#include <thread>

#include "support/samples.h"

namespace fastserve {
namespace {

std::uint64_t answers_in(const DurationHistogram& h) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < DurationHistogram::kBuckets; ++i) out += h.in_bucket(i);
  return out;
}

class AnswerClockTest : public ::testing::Test {
 protected:
  AnswerClockTest() {
    sample_.request.version = &version_;
    sample_.request.times.enqueued = sample_.request.times.delivered = monotonic_now();
    version_.retain();
  }
  ~AnswerClockTest() override { sample_.request.reset(); }

  BareVersion version_{row_signature(4)};
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  RowRequest sample_{&completions_};
  Tracer tracer_;
  AnswerClock clock_{tracer_};
};

TEST_F(AnswerClockTest, CountsFromTheHandOverToTheEndOfThePass) {
  clock_.add(sample_.request, TraceSource::kGrpc, 0);
  clock_.add(sample_.request, TraceSource::kGrpc, 0);
  EXPECT_EQ(answers_in(*version_.encode_times), 0U) << "not yet sent";
  const Nanos delivered = sample_.request.times.delivered;
  while (monotonic_now() < delivered + kMillisecond) std::this_thread::yield();
  clock_.sent();
  EXPECT_EQ(answers_in(*version_.encode_times), 2U);
  EXPECT_GE(version_.encode_times->sum_ns(), 2U * kMillisecond);
  EXPECT_LE(version_.encode_times->sum_ns(), 2U * static_cast<std::uint64_t>(monotonic_now() - delivered));
  clock_.sent();
  EXPECT_EQ(answers_in(*version_.encode_times), 2U) << "once";
}

TEST_F(AnswerClockTest, EveryVersionHasItsOwn) {
  BareVersion other(row_signature(4));
  RowRequest theirs(&completions_);
  theirs.request.version = &other;
  other.retain();
  theirs.request.times.delivered = sample_.request.times.delivered;
  for (int i = 0; i < 3; ++i) {
    clock_.add(sample_.request, TraceSource::kGrpc, 0);
    clock_.add(theirs.request, TraceSource::kHttp, 0);
  }
  clock_.add(theirs.request, TraceSource::kHttp, 0);
  clock_.sent();
  EXPECT_EQ(answers_in(*version_.encode_times), 3U);
  EXPECT_EQ(answers_in(*other.encode_times), 4U);
  theirs.request.reset();
}

TEST_F(AnswerClockTest, AVersionMayBeGoneBeforeItsAnswersAreSent) {
  std::shared_ptr<DurationHistogram> left;
  {
    BareVersion gone(row_signature(4));
    left = gone.encode_times;
    RowRequest theirs(&completions_);
    theirs.request.version = &gone;
    gone.retain();
    clock_.add(theirs.request, TraceSource::kGrpc, 0);
    theirs.request.reset();
  }
  clock_.sent();
  EXPECT_EQ(answers_in(*left), 1U);
}

TEST_F(AnswerClockTest, TracesEndWithTheSending) {
  clock_.add(sample_.request, TraceSource::kHttp, 5);
  ASSERT_TRUE(tracer_.set("", {true, 2, -1}).is_ok());
  for (int i = 0; i < 4; ++i) clock_.add(sample_.request, TraceSource::kHttp, 5);
  EXPECT_TRUE(tracer_.take().empty()) << "not yet sent";
  clock_.sent();
  const std::vector<Trace> traces = tracer_.take();
  ASSERT_EQ(traces.size(), 2U);
  EXPECT_EQ(traces[0].timestamps.back().first, "HTTP_SEND_END");
  EXPECT_GE(traces[0].timestamps.back().second, sample_.request.times.delivered);
  clock_.sent();
  EXPECT_TRUE(tracer_.take().empty());
}

}  // namespace
}  // namespace fastserve
