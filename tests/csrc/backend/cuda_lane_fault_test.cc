// What goes wrong on a device: which batches it takes along, and that every request is answered once. Each case in a process of its
// own, because a lost device stays lost for the process.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <thread>

#include "backend/cuda_counts.h"
#include "backend/cuda_lane_model.h"

namespace fastserve::test {
namespace {

// Runs `body` in a new process and wants it to pass there.
void in_own_process(const std::function<void()>& body) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        body();
        std::exit(::testing::Test::HasFailure() ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "");
}

constexpr std::size_t kRequests = 40;

std::map<Code, std::size_t> codes(const LaneEngine& on) {
  std::map<Code, std::size_t> out;
  for (const auto& request : on.requests) ++out[request->code()];
  return out;
}

// Every request is answered once: right, or UNAVAILABLE because the device is lost; nothing of the dead context is touched again.
void expect_lost(LaneEngine& on, const std::string& reason) {
  ASSERT_EQ(on.answers(on.requests.size()), on.requests.size());
  EXPECT_EQ(on.completions.wait(monotonic_now() + 20 * kMillisecond), nullptr);  // nobody twice
  for (const auto& request : on.requests) {
    if (request->code() != Code::kUnavailable) {
      EXPECT_EQ(request->wrong(), "");
    }
  }
  EXPECT_GE(codes(on)[Code::kUnavailable], 1U);
  const auto faults = device_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].device, 0);
  EXPECT_EQ(faults[0].status.code(), Code::kUnavailable);
  EXPECT_NE(faults[0].status.message().find(reason), std::string::npos) << faults[0].status.message();
  EXPECT_NE(faults[0].batch.find("requests 'r"), std::string::npos) << faults[0].batch;

  // New ones are refused.
  LaneRequest& late = on.submit();
  ASSERT_EQ(on.answers(1), 1U);
  EXPECT_EQ(late.code(), Code::kUnavailable);
  EXPECT_EQ(late.request.response.status.message(), faults[0].status.message());
  // Neither loading nor unloading touches the dead context.
  on.add("late", {});
  EXPECT_EQ(on.engine.load(lane_spec({}, "late")).code(), Code::kUnavailable);
  for (auto& request : on.requests) request->request.reset();
  EXPECT_TRUE(on.engine.unload("lane", 1).is_ok());
  EXPECT_EQ(dead_frees(), 0);
  EXPECT_EQ(on.log.closed, 0);
}

void submit_all(LaneEngine& on, std::size_t count = kRequests) {
  for (std::size_t i = 0; i < count; ++i) {
    on.make(1 + static_cast<std::int64_t>(i % 3));
    ASSERT_TRUE(on.submitter.submit(on.requests.back()->request).is_ok());
    on.submitter.flush();
  }
}

struct Where {
  const char* where;
  unsigned nth;
  int result;
};

class StickyError : public ::testing::TestWithParam<std::tuple<Where, const char*>> {};

TEST_P(StickyError, LosesTheDeviceAndAnswersEverybody) {
  in_own_process([] {
    const auto& [at, completion] = GetParam();
    simulated_cuda_set("kernel_us", 200);
    LaneEngine on;
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "3"}, {"completion", completion}})).is_ok());
    ASSERT_EQ(simulated_cuda_fail(at.where, at.nth, at.result), 0);
    submit_all(on);
    expect_lost(on, "");
  });
}

INSTANTIATE_TEST_SUITE_P(
    AtEachCall, StickyError,
    ::testing::Combine(::testing::Values(Where{"cuMemcpyHtoDAsync", 3, CUDA_ERROR_ILLEGAL_ADDRESS},
                                         Where{"cuGraphLaunch", 4, CUDA_ERROR_LAUNCH_FAILED},
                                         Where{"cuMemcpyDtoHAsync", 5, CUDA_ERROR_ILLEGAL_ADDRESS},
                                         Where{"cuEventRecord", 4, CUDA_ERROR_ECC_UNCORRECTABLE},
                                         Where{"run:h2d", 2, CUDA_ERROR_ILLEGAL_ADDRESS},
                                         Where{"run:lane_step", 3, CUDA_ERROR_ASSERT},
                                         Where{"run:d2h", 4, CUDA_ERROR_ILLEGAL_ADDRESS}),
                       ::testing::Values("poll", "blocking")));

TEST(LaneFaults, AStickyErrorOfTheLookAtTheEvent) {
  in_own_process([] {
    simulated_cuda_set("kernel_us", 200);
    LaneEngine on;
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
    simulated_cuda_fail("cuEventQuery", 3, CUDA_ERROR_ILLEGAL_ADDRESS);
    submit_all(on);
    expect_lost(on, "cuEventQuery");
  });
}

class RecoverableError : public ::testing::TestWithParam<Where> {};

TEST_P(RecoverableError, FailsItsBatchOnly) {
  in_own_process([] {
    const Where at = GetParam();
    LaneEngine on;
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
    ASSERT_EQ(simulated_cuda_fail(at.where, at.nth, at.result), 0);
    // One that is padded for certain: those of submit_all() may happen to fill all their batches.
    on.submit(3);
    ASSERT_EQ(on.answers(1), 1U);
    submit_all(on);
    ASSERT_EQ(on.answers(kRequests), kRequests);
    const Code code = at.result == CUDA_ERROR_OUT_OF_MEMORY ? Code::kResourceExhausted : Code::kInternal;
    auto seen = codes(on);
    EXPECT_GE(seen[code], 1U);
    EXPECT_LE(seen[code], 8U);  // one batch
    EXPECT_EQ(seen[code] + seen[Code::kOk], 1 + kRequests);
    for (const auto& request : on.requests) {
      if (request->code() == Code::kOk) {
        EXPECT_EQ(request->wrong(), "");
      }
    }
    EXPECT_TRUE(device_faults().empty());
    EXPECT_EQ(cuda_counts().front().failed_batches, std::string(at.where) == "cuEventRecord" ? 0U : 1U);
    LaneRequest& after = on.submit(3);
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(after.wrong(true), "");  // and its padding is zero
  });
}

INSTANTIATE_TEST_SUITE_P(AtEachCall, RecoverableError,
                         ::testing::Values(Where{"cuMemcpyHtoDAsync", 3, CUDA_ERROR_INVALID_VALUE},
                                           Where{"cuGraphLaunch", 2, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuGraphLaunch", 1, CUDA_ERROR_INVALID_VALUE},
                                           Where{"cuMemcpyDtoHAsync", 3, CUDA_ERROR_INVALID_VALUE},
                                           Where{"cuMemsetD8Async", 1, CUDA_ERROR_INVALID_VALUE},
                                           Where{"cuEventRecord", 2, CUDA_ERROR_INVALID_VALUE}));

class Hang : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(Hang, TheWatchdogLosesTheDevice) {
  in_own_process([] {
    const auto& [what, completion] = GetParam();
    LaneEngine on;
    ASSERT_TRUE(
        on.engine.load(lane_spec({{"lanes", "2"}, {"completion", completion}, {"watchdog_ms", "150"}}))
            .is_ok());
    ASSERT_EQ(simulated_cuda_fail(what, 3, SIMULATED_HANG), 0);
    submit_all(on);
    expect_lost(on, "a batch has not ended within 150 ms (watchdog_ms)");
  });
}

INSTANTIATE_TEST_SUITE_P(OfEachKind, Hang,
                         ::testing::Combine(::testing::Values("run:lane_step", "run:h2d", "run:d2h"),
                                            ::testing::Values("poll", "blocking")));

// What hangs may come back and write after all: the memory of its batch is nobody else's by then.
TEST(LaneFaults, ABatchThatWasGivenUpMayStillBeWritten) {
  in_own_process([] {
    LaneEngine on;
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}, {"watchdog_ms", "100"}})).is_ok());
    simulated_cuda_fail("run:lane_step", 1, SIMULATED_HANG);
    on.submit();
    expect_lost(on, "watchdog_ms");
    simulated_cuda_let_go();
    EXPECT_TRUE(comes_true([] { return simulated_cuda_count("outstanding") == 0; }));
    EXPECT_EQ(simulated_cuda_count("unpinned_during_copy"), 0);
    EXPECT_EQ(simulated_cuda_count("out_of_bounds"), 0);
  });
}

TEST(LaneFaults, TwoModelsOnADeviceAreLostTogether) {
  in_own_process([] {
    LaneEngine on;
    on.add("other", {});
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "2"}})).is_ok());
    ASSERT_TRUE(on.engine.load(lane_spec({{"lanes", "1"}}, "other")).is_ok());
    simulated_cuda_clear_log();
    simulated_cuda_hold(SIMULATED_COMPUTE, 1);
    LaneRequest& of_other = on.submit(1, kColumns, "other");
    LaneRequest& waits = on.submit(2, kColumns, "other");
    ASSERT_TRUE(comes_true([] { return lines_of("lane_step", SIMULATED_STARTED) == 1; }));
    simulated_cuda_fail("cuGraphLaunch", 1, CUDA_ERROR_ILLEGAL_ADDRESS);
    LaneRequest& first = on.submit();
    ASSERT_EQ(on.answers(3), 3U);
    for (const LaneRequest* request : {&of_other, &waits, &first})
      EXPECT_EQ(request->code(), Code::kUnavailable) << request->id;
    EXPECT_EQ(device_faults().size(), 1U);
    for (const char* model : {"lane", "other"}) {
      LaneRequest& late = on.submit(1, kColumns, model);
      ASSERT_EQ(on.answers(1), 1U);
      EXPECT_EQ(late.code(), Code::kUnavailable);
    }
  });
}

TEST(LaneFaults, TheOtherDeviceServesOn) {
  ::setenv("SIMULATED_CUDA_DEVICES", "2", 1);
  in_own_process([] {
    LaneEngine on;
    on.add("other", {});
    LoadSpec spec = lane_spec({{"lanes", "1"}});
    spec.groups.emplace_back().gpu = "0";
    spec.instance_count = 1;
    ASSERT_TRUE(on.engine.load(spec).is_ok());
    LoadSpec second = lane_spec({{"lanes", "1"}}, "other");
    second.groups.emplace_back().gpu = "1";
    second.instance_count = 1;
    ASSERT_TRUE(on.engine.load(second).is_ok());
    simulated_cuda_fail("cuGraphLaunch", 1, CUDA_ERROR_ILLEGAL_ADDRESS);
    LaneRequest& lost = on.submit();
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(lost.code(), Code::kUnavailable);
    LaneRequest& served = on.submit(3, kColumns, "other");
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(served.wrong(true), "");
  });
  ::unsetenv("SIMULATED_CUDA_DEVICES");
}

class LoadError : public ::testing::TestWithParam<Where> {};

TEST_P(LoadError, FailsTheLoadAndLeavesNothing) {
  in_own_process([] {
    const Where at = GetParam();
    LaneEngine on;
    ASSERT_TRUE(on.engine.load(lane_spec()).is_ok());  // what stays for the process is there
    ASSERT_TRUE(on.engine.unload("lane", 1).is_ok());
    std::map<std::string, std::int64_t> before;
    for (const char* what : {"streams", "events", "execs", "graphs", "device_bytes"})
      before[what] = simulated_cuda_count(what);
    ASSERT_EQ(simulated_cuda_fail(at.where, at.nth, at.result), 0);
    const Status refused = on.engine.load(lane_spec());
    EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused.message();
    for (const auto& [what, count] : before) EXPECT_EQ(simulated_cuda_count(what.c_str()), count) << what;
    EXPECT_TRUE(device_faults().empty());
    EXPECT_EQ(on.log.closed, on.log.opened);
    ASSERT_TRUE(on.engine.load(lane_spec()).is_ok());  // and once there is memory again, it loads
    LaneRequest& request = on.submit();
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(request.wrong(true), "");
  });
}

INSTANTIATE_TEST_SUITE_P(OutOfMemory, LoadError,
                         ::testing::Values(Where{"cuMemAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuMemAlloc", 4, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuMemAlloc", 7, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuStreamCreateWithPriority", 2, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuEventCreate", 1, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuGraphInstantiateWithFlags", 5, CUDA_ERROR_OUT_OF_MEMORY},
                                           Where{"cuGraphUpload", 2, CUDA_ERROR_OUT_OF_MEMORY}));

TEST(LaneFaults, ADeviceThatIsLostWhileAModelLoads) {
  in_own_process([] {
    LaneEngine on;
    on.add("other", {});
    ASSERT_TRUE(on.engine.load(lane_spec()).is_ok());
    simulated_cuda_fail("cuGraphInstantiateWithFlags", 3, CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT_EQ(on.engine.load(lane_spec({}, "other")).code(), Code::kUnavailable);
    LaneRequest& request = on.submit();
    ASSERT_EQ(on.answers(1), 1U);
    EXPECT_EQ(request.code(), Code::kUnavailable);
    EXPECT_EQ(dead_frees(), 0);
  });
}

TEST(LaneFaults, NoGpuIsAPlainRefusal) {
  ::setenv("SIMULATED_CUDA_DEVICES", "0", 1);
  in_own_process([] {
    LaneEngine on;
    const Status refused = on.engine.load(lane_spec());
    EXPECT_EQ(refused.code(), Code::kFailedPrecondition) << refused.message();
    EXPECT_EQ(on.log.opened, 0);
  });
  ::unsetenv("SIMULATED_CUDA_DEVICES");
}

}  // namespace
}  // namespace fastserve::test
