#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

namespace fastserve {
namespace {

TEST(Checked, SaysFalseInsteadOfWrapping) {
  std::int64_t out = 0;
  EXPECT_TRUE(checked_mul<std::int64_t>(1 << 20, 1 << 20, out));
  EXPECT_EQ(out, std::int64_t{1} << 40);
  EXPECT_FALSE(checked_mul<std::int64_t>(INT64_MAX, 2, out));
  EXPECT_FALSE(checked_add<std::int64_t>(INT64_MAX, 1, out));
  std::uint64_t big = 0;
  EXPECT_FALSE(checked_add<std::uint64_t>(UINT64_MAX, 1, big));
}

TEST(UniqueFd, ClosesOnceAndMoves) {
  const int raw = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  {
    UniqueFd first(raw);
    UniqueFd second(std::move(first));
    EXPECT_FALSE(first.valid());  // NOLINT(bugprone-use-after-move): the point of the test
    EXPECT_EQ(second.get(), raw);
    EXPECT_NE(::fcntl(raw, F_GETFD), -1);
  }
  EXPECT_EQ(::fcntl(raw, F_GETFD), -1);
}

std::string g_logged;

TEST(Log, GoesToTheInstalledSinkAndTheFormerComesBack) {
  const LogSink former = set_log_sink([](LogLevel, std::string_view message) { g_logged = message; });
  log(LogLevel::kInfo, "hello");
  EXPECT_EQ(g_logged, "hello");
  EXPECT_NE(set_log_sink(former), nullptr);
}

TEST(Clock, NeverGoesBack) {
  const Nanos first = monotonic_now();
  EXPECT_LE(first, monotonic_now());
}

}  // namespace
}  // namespace fastserve
