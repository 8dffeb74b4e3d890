// Processes that are no workers at all: how a load fails that meets them.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <thread>

#include "backend/worker_backend.h"

namespace fastserve {
namespace {

Status load_with(std::vector<std::string> command, std::map<std::string, std::string> parameters = {},
                 std::string refusal = {}) {
  const auto table = std::make_shared<WorkerTable>();
  const auto backend =
      make_worker_backend({"python", {std::move(command), {{"MARK", "yes"}}}, std::move(refusal), table, {}});
  LoadSpec spec;
  spec.model = "m";
  spec.backend = "python";
  spec.parameters = std::move(parameters);
  const auto loaded = backend->load(spec, [](double, std::string_view) {});
  EXPECT_TRUE(table->read().empty());
  return loaded.status();
}

TEST(WorkerProcess, AnExitFailsTheLoadWithItsLastWords) {
  const Status status = load_with({"/bin/sh", "-c", "echo mark=$MARK >&2; exit 3"});
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("exited with status 3"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("mark=yes"), std::string::npos) << status.message();
}

TEST(WorkerProcess, ASignalFailsTheLoad) {
  const Status status = load_with({"/bin/sh", "-c", "kill -SEGV $$"});
  EXPECT_NE(status.message().find("signal 11"), std::string::npos) << status.message();
}

TEST(WorkerProcess, NoSuchInterpreter) {
  const Status status = load_with({"/no/such/python"});
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("/no/such/python"), std::string::npos) << status.message();
}

TEST(WorkerProcess, InitializeHasALimit) {
  const Nanos begin = monotonic_now();
  const Status status = load_with({"/bin/sleep", "60"}, {{"initialize_timeout_s", "0.1"}});
  EXPECT_NE(status.message().find("initialize_timeout_s"), std::string::npos) << status.message();
  EXPECT_LT(monotonic_now() - begin, 10 * kSecond);
}

// A loader's own may be low, and lower than any nice value.
TEST(WorkerProcess, HasThePriorityOfWhoRegisteredItsBackend) {
  const auto table = std::make_shared<WorkerTable>();
  const std::string says = R"(awk '{print "policy " $41 " nice " $19}' /proc/self/stat >&2; exit 1)";
  const auto backend = make_worker_backend({"python", {{"/bin/sh", "-c", says}, {}}, {}, table, {}});
  Status status;
  std::thread([&] {
    const sched_param none{};
    ASSERT_EQ(::sched_setscheduler(0, SCHED_IDLE, &none), 0);
    ASSERT_EQ(::setpriority(PRIO_PROCESS, 0, 19), 0);
    LoadSpec spec;
    spec.model = "m";
    spec.backend = "python";
    status = backend->load(spec, [](double, std::string_view) {}).status();
  }).join();
  const std::string want = "policy " + std::to_string(::sched_getscheduler(0)) + " nice " +
                           std::to_string(::getpriority(PRIO_PROCESS, 0));
  EXPECT_NE(status.message().find(want), std::string::npos) << status.message() << ", want " << want;
}

// Its standard input is empty, and of our descriptors it has 1, 2, 3 and 4.
TEST(WorkerProcess, GetsNoOtherDescriptors) {
  const int leak = ::dup(2);  // without close-on-exec
  const Status status = load_with({"/bin/sh", "-c", "cat; ls /proc/self/fd | tr '\\n' ' ' >&2; exit 1"});
  ::close(leak);
  // ls itself opens the folder, as 5.
  EXPECT_NE(status.message().find("0 1 2 3 4 5 )"), std::string::npos) << status.message();
}

TEST(WorkerBackend, RefusesWhatIsNotAllowed) {
  const Status status = load_with({"/bin/true"}, {}, "not allowed here");
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_EQ(status.message(), "not allowed here");
}

TEST(WorkerBackend, ThreadsHaveBounds) {
  EXPECT_NE(load_with({"/bin/true"}, {{"worker_threads", "4097"}}).message().find("4096"), std::string::npos);
  EXPECT_EQ(load_with({"/bin/true"}, {{"worker_threads", "4096"}}).message().find("worker_threads"),
            std::string::npos);
  EXPECT_NE(load_with({"/bin/true"}, {{"worker_threads", "x"}}).message().find("worker_threads"),
            std::string::npos);
}

}  // namespace
}  // namespace fastserve
