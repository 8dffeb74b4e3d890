// Another process that exports GPU memory on the simulated CUDA driver: the test's own executable, running
// Exporter.DISABLED_Runs (cuda_client_memory_test.cc).
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <utility>

#include "backend/cuda_ipc.h"

namespace fastserve {

inline constexpr std::size_t kExportedBytes = 4096;  // full of 7
inline constexpr const char* kExport = "FASTSERVE_TEST_EXPORT";

class Exporter {
 public:
  Exporter() {
    int from[2] = {};
    int to[2] = {};
    EXPECT_EQ(::pipe2(from, 0), 0);
    EXPECT_EQ(::pipe2(to, 0), 0);
    const std::string out = std::to_string(from[1]);
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(to[0], STDIN_FILENO);
      ::close(to[0]);
      ::close(to[1]);
      ::setenv(kExport, out.c_str(), 1);
      const int silent = ::open("/dev/null", O_WRONLY);
      ::dup2(silent, STDOUT_FILENO);
      ::execl("/proc/self/exe", "exporter", "--gtest_also_run_disabled_tests",
              "--gtest_filter=Exporter.DISABLED_Runs", static_cast<char*>(nullptr));
      ::_exit(1);
    }
    ::close(from[1]);
    ::close(to[0]);
    read_ = from[0];
    write_ = to[1];
    EXPECT_EQ(::read(read_, handle.data(), handle.size()), static_cast<ssize_t>(handle.size()));
  }
  // Lets it look at its memory: the first byte.
  char first_byte() {
    ::close(std::exchange(write_, -1));
    char byte = 0;
    EXPECT_EQ(::read(read_, &byte, 1), 1);
    return byte;
  }
  ~Exporter() {
    if (write_ >= 0) ::close(write_);
    ::close(read_);
    ::waitpid(child_, nullptr, 0);
  }
  Exporter(const Exporter&) = delete;
  Exporter& operator=(const Exporter&) = delete;

  std::array<std::byte, kIpcHandleBytes> handle{};

 private:
  pid_t child_ = -1;
  int read_ = -1;
  int write_ = -1;
};

}  // namespace fastserve
