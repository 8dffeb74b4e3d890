// Requests to models that sleep: held until the model is loaded, or refused; answered exactly once whatever happens meanwhile.
// Run under TSan and ASan as well.
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "support/samples.h"

namespace fastserve {
namespace {

EngineOptions with(ParkingLimits limits) {
  EngineOptions options;
  options.parking = limits;
  return options;
}

class Asked {
 public:
  explicit Asked(ParkingLimits limits = {}) : engine(with(limits)) {}

  std::unique_ptr<RowRequest> request(std::int32_t seed = 0, std::int64_t rows = 1) {
    return std::make_unique<RowRequest>(&completions, rows, seed);
  }
  Status submit(RowRequest& sample) {
    const Status status = submitter.submit(sample.request);
    submitter.flush();
    return status;
  }
  void answers(int count) {
    while (count > 0) {
      for (Response* at = completions.wait(kNever); at != nullptr; at = at->next_in_intake) --count;
    }
  }
  bool readable() const {
    pollfd polled{engine.asked_fd(), POLLIN, 0};
    return ::poll(&polled, 1, 0) == 1;
  }

  CompletionQueue completions{CompletionQueue::Wake::kFutex};
  Engine engine;
  Submitter submitter{engine};
};

TEST(WaitingRoomsTest, HoldsUntilTheModelIsLoaded) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  std::vector<std::unique_ptr<RowRequest>> samples;
  for (int i = 0; i < 5; ++i) {
    samples.push_back(asked.request(i, 1 + i % 3));
    ASSERT_TRUE(asked.submit(*samples.back()).is_ok());
  }
  EXPECT_EQ(asked.engine.parking().requests, 5);
  EXPECT_TRUE(asked.readable());
  EXPECT_EQ(asked.engine.take_asked(), std::vector<std::string>{"echo"});
  EXPECT_FALSE(asked.readable());
  ASSERT_TRUE(asked.engine.load(identity_spec()).is_ok());
  asked.engine.set_awake("echo");
  asked.answers(5);
  for (auto& sample : samples) {
    EXPECT_TRUE(sample->echoed());
    ASSERT_NE(sample->request.version, nullptr);
    EXPECT_EQ(sample->request.version->number, identity_spec().version);
    sample->request.reset();
  }
  EXPECT_EQ(asked.engine.parking().requests, 0);
  EXPECT_EQ(asked.engine.parking().bytes, 0U);
  EXPECT_EQ(asked.engine.parking().parked, 5U);
}

TEST(WaitingRoomsTest, ALargeRequestIsCutIntoPartsAfterwards) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  auto sample = asked.request(3, 20);
  ASSERT_TRUE(asked.submit(*sample).is_ok());
  LoadSpec spec = identity_spec(8);
  spec.max_request_rows = 32;
  ASSERT_TRUE(asked.engine.load(spec).is_ok());
  asked.engine.set_awake("echo");
  asked.answers(1);
  EXPECT_TRUE(sample->echoed()) << sample->request.response.status.message();
  sample->request.reset();
}

TEST(WaitingRoomsTest, RefusesByPolicyAndTells) {
  Asked asked;
  asked.engine.set_asleep("echo", {.holds = false, .load_s = 7});
  auto sample = asked.request();
  const Status status = asked.submit(*sample);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.message(), "model 'echo' is asleep and is loaded now, try again in 7 s");
  EXPECT_EQ(status.retry_after_s(), 7);
  EXPECT_TRUE(asked.readable());
  EXPECT_EQ(asked.engine.parking().refused, 1U);
}

TEST(WaitingRoomsTest, WhoNeedsTheSignatureFirstIsRefusedAndWakesIt) {
  Asked asked;
  asked.engine.set_asleep("echo", {.load_s = 3});
  EXPECT_EQ(asked.engine.resolve("echo", "").status().message(),
            "model 'echo' is asleep: it is loaded when it is asked for");
  EXPECT_FALSE(asked.readable());
  const Status status = asked.engine.ask("echo", "").status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.message(), "model 'echo' is asleep and is loaded now, try again in 3 s");
  EXPECT_EQ(status.retry_after_s(), 3);
  EXPECT_TRUE(asked.readable());
  EXPECT_EQ(asked.engine.resolve("other", "").status().code(), Code::kNotFound);
}

// As a raw body of REST: what its input is called and shaped like, the signature says.
Status named_by_the_signature(const ServedVersion& version, Request& request) {
  request.inputs.front().name = version.signature.inputs.front().name;
  request.parameters.push_back({"completed", true});
  return Status::ok();
}

TEST(WaitingRoomsTest, InputsAreCompletedOnceTheSignatureIsKnown) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  const auto asks = [&] {
    auto sample = asked.request(3);
    sample->request.inputs.front().name = "";
    sample->request.complete = &named_by_the_signature;
    EXPECT_TRUE(asked.submit(*sample).is_ok());
    return sample;
  };
  auto held = asks();
  EXPECT_EQ(asked.engine.parking().requests, 1);
  ASSERT_TRUE(asked.engine.load(identity_spec()).is_ok());
  asked.engine.set_awake("echo");
  auto awake = asks();
  asked.answers(2);
  for (auto* sample : {held.get(), awake.get()}) {
    EXPECT_TRUE(sample->echoed()) << sample->request.response.status.message();
    ASSERT_EQ(sample->request.parameters.size(), 1U);
    EXPECT_EQ(sample->request.parameters.front().name, "completed");
    sample->request.reset();
  }
}

TEST(WaitingRoomsTest, TheTimeToTryAgainIsWhatIsLeftOfTheLoad) {
  Asked asked({.requests_per_model = 1});
  const auto refused = [&] {
    auto sample = asked.request();
    return asked.submit(*sample);
  };
  asked.engine.set_asleep("echo", {.load_s = 65535});
  auto held = asked.request();
  ASSERT_TRUE(asked.submit(*held).is_ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const Status full = refused();
  EXPECT_EQ(full.code(), Code::kUnavailable);
  EXPECT_EQ(full.message(),
            "model 'echo' is asleep, and too many requests wait until it is loaded (requests of the model), "
            "try again in 65535 s");
  EXPECT_EQ(full.retry_after_s(), 65535);
  asked.engine.set_awake("echo", "gone");
  asked.answers(1);
  EXPECT_EQ(held->request.response.status.retry_after_s(), 0);
  held->request.reset();
  for (const std::uint16_t seconds : std::array<std::uint16_t, 3>{0, 1, 2}) {
    asked.engine.set_asleep("echo", {.holds = false, .load_s = seconds});
    EXPECT_EQ(refused().retry_after_s(), std::max<int>(seconds, 1));
  }
}

TEST(WaitingRoomsTest, OtherModelsAreUnknownAsBefore) {
  Asked asked;
  asked.engine.set_asleep("other", {});
  auto sample = asked.request();
  EXPECT_EQ(asked.submit(*sample).code(), Code::kNotFound);
  EXPECT_FALSE(asked.readable());
}

TEST(WaitingRoomsTest, AFailedLoadAnswersWithItsReason) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  auto sample = asked.request();
  ASSERT_TRUE(asked.submit(*sample).is_ok());
  asked.engine.set_awake("echo", "no memory");
  asked.answers(1);
  EXPECT_EQ(sample->request.response.status.code(), Code::kUnavailable);
  EXPECT_EQ(sample->request.response.status.message(), "model 'echo' could not be loaded: no memory");
  sample->request.reset();
  EXPECT_EQ(asked.engine.parking().requests, 0);
}

TEST(WaitingRoomsTest, WhatIsWrongIsTheClientsAfterTheLoad) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  auto sample = asked.request();
  sample->request.inputs.front().name = "wrong";
  ASSERT_TRUE(asked.submit(*sample).is_ok());
  ASSERT_TRUE(asked.engine.load(identity_spec()).is_ok());
  asked.engine.set_awake("echo");
  asked.answers(1);
  EXPECT_EQ(sample->request.response.status.code(), Code::kInvalidArgument);
  sample->request.reset();
}

TEST(WaitingRoomsTest, ADeadlineIsAnsweredWhileItWaits) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  auto sample = asked.request();
  sample->request.deadline = monotonic_now() + kMillisecond;
  ASSERT_TRUE(asked.submit(*sample).is_ok());
  asked.answers(1);
  EXPECT_EQ(sample->request.response.status.code(), Code::kDeadlineExceeded);
  sample->request.reset();
  EXPECT_EQ(asked.engine.parking().requests, 0);
  auto late = asked.request();
  late->request.deadline = monotonic_now();
  EXPECT_EQ(asked.submit(*late).code(), Code::kDeadlineExceeded);
}

TEST(WaitingRoomsTest, ACancelledOneIsAnsweredWhileItWaits) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  auto sample = asked.request();
  ASSERT_TRUE(asked.submit(*sample).is_ok());
  sample->request.cancel();
  asked.answers(1);
  EXPECT_EQ(sample->request.response.status.code(), Code::kCancelled);
  sample->request.reset();
  auto before = asked.request();
  before->request.cancel();
  ASSERT_TRUE(asked.submit(*before).is_ok());
  asked.answers(1);
  EXPECT_EQ(before->request.response.status.code(), Code::kCancelled);
  before->request.reset();
}

TEST(WaitingRoomsTest, LimitsOfRequests) {
  Asked asked({.requests_per_model = 3, .requests = 4});
  asked.engine.set_asleep("echo", {});
  asked.engine.set_asleep("other", {});
  std::vector<std::unique_ptr<RowRequest>> samples;
  const auto submit = [&](std::string_view model) {
    samples.push_back(asked.request());
    samples.back()->request.model_name = model;
    return asked.submit(*samples.back()).code();
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(submit("echo"), Code::kOk);
  EXPECT_EQ(submit("echo"), Code::kUnavailable);
  EXPECT_EQ(submit("other"), Code::kOk);
  EXPECT_EQ(submit("other"), Code::kUnavailable);
  EXPECT_EQ(asked.engine.parking().refused, 2U);
  asked.engine.drain(kNever);
  asked.answers(4);
  for (auto& sample : samples) sample->request.reset();
}

TEST(WaitingRoomsTest, LimitsOfBytes) {
  Asked asked({.bytes_per_model = 24, .bytes = 32});  // a row has 8
  asked.engine.set_asleep("echo", {});
  asked.engine.set_asleep("other", {});
  std::vector<std::unique_ptr<RowRequest>> samples;
  const auto submit = [&](std::string_view model, std::int64_t rows) {
    samples.push_back(asked.request(0, rows));
    samples.back()->request.model_name = model;
    return asked.submit(*samples.back()).code();
  };
  EXPECT_EQ(submit("echo", 4), Code::kUnavailable);
  EXPECT_EQ(submit("echo", 2), Code::kOk);
  EXPECT_EQ(submit("echo", 2), Code::kUnavailable);
  EXPECT_EQ(submit("echo", 1), Code::kOk);
  EXPECT_EQ(submit("other", 2), Code::kUnavailable);
  EXPECT_EQ(submit("other", 1), Code::kOk);
  asked.engine.drain(kNever);
  asked.answers(3);
  for (auto& sample : samples) sample->request.reset();
}

TEST(WaitingRoomsTest, TheEndAnswersAll) {
  Asked asked;
  asked.engine.set_asleep("echo", {});
  auto sample = asked.request();
  ASSERT_TRUE(asked.submit(*sample).is_ok());
  EXPECT_TRUE(asked.engine.drain(kNever));
  asked.answers(1);
  EXPECT_EQ(sample->request.response.status.message(), "the server is shutting down");
  sample->request.reset();
  auto later = asked.request();
  EXPECT_EQ(asked.submit(*later).code(), Code::kUnavailable);
}

// Sleep, ask, wake and cancel against each other: every request is answered once, none is lost.
TEST(WaitingRoomsTest, GoesToSleepAndWakesUnderRequests) {
  constexpr int kRequests = 300;
  Asked shared;
  Engine& engine = shared.engine;
  std::atomic<int> running{2};
  std::atomic<int> good{0};
  const auto client = [&](bool cancels) {
    CompletionQueue completions{CompletionQueue::Wake::kFutex};
    Submitter submitter(engine);
    for (int i = 0; i < kRequests; ++i) {
      RowRequest sample(&completions, 1 + i % 12, i);
      const Status status = submitter.submit(sample.request);
      submitter.flush();
      ASSERT_TRUE(status.is_ok()) << status.message();
      if (cancels && i % 3 == 0) sample.request.cancel();
      while (completions.wait(kNever) == nullptr) {
      }
      const Code code = sample.request.response.status.code();
      EXPECT_TRUE(code == Code::kOk || (cancels && code == Code::kCancelled))
          << sample.request.response.status.message();
      if (code == Code::kOk && sample.echoed()) ++good;
      sample.request.reset();
    }
    --running;
  };
  engine.set_asleep("echo", {});
  std::thread one(client, false);
  std::thread other(client, true);
  LoadSpec spec = identity_spec();
  spec.max_request_rows = 16;
  while (running != 0) {
    ASSERT_TRUE(engine.load(spec).is_ok());
    engine.set_awake("echo");
    engine.set_asleep("echo", {});
    EXPECT_TRUE(engine.unload("echo", spec.version).is_ok());
  }
  one.join();
  other.join();
  EXPECT_GE(good, kRequests);
  EXPECT_EQ(engine.parking().requests, 0);
}

TEST(MemoryTest, AVersionThatLoadsAloneKnowsWhatItTook) {
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec()).is_ok());
  EXPECT_GE(engine.status().front().memory_bytes, 0);
}

}  // namespace
}  // namespace fastserve
