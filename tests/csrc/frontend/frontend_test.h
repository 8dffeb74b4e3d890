// What the tests of the front end share: a loop without an event loop, socket pairs, a real engine with identity models.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "frontend/io_loop.h"

namespace fastserve::testing {

inline LoadSpec identity(std::string name, std::map<std::string, std::string> parameters = {}) {
  LoadSpec spec;
  spec.model = std::move(name);
  spec.backend = "identity";
  spec.max_batch_rows = 8;
  spec.inputs = {{"IN", DType::kFp32, Shape{-1, 4}, false}};
  spec.outputs = {{"OUT", DType::kFp32, Shape{-1, 4}, false}};
  spec.parameters = std::move(parameters);
  return spec;
}

// One client connection: the test holds one end of a socket pair, the loop the other.
class Peer {
 public:
  Peer() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    mine_ = UniqueFd(ends[0]);
    theirs_ = UniqueFd(ends[1]);
  }
  int server_fd() const { return theirs_.get(); }
  void send(std::string_view text) {
    EXPECT_EQ(::send(mine_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  std::string read() {
    std::string out;
    char piece[65536];
    ssize_t n = 0;
    while ((n = ::recv(mine_.get(), piece, sizeof(piece), 0)) > 0)
      out.append(piece, static_cast<std::size_t>(n));
    return out;
  }

 private:
  UniqueFd mine_;
  UniqueFd theirs_;
};

inline std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class FrontendTest : public ::testing::Test {
 protected:
  FrontendTest() : loop_(engine_, {}) {
    EXPECT_TRUE(engine_.load(identity("echo")).is_ok());
    EXPECT_TRUE(engine_.load(identity("slow", {{"execute_delay_us", "50000"}})).is_ok());
  }

  // Runs the loop until `done` or for ten seconds.
  template <class Done>
  void run_until(Done done) {
    const Nanos limit = monotonic_now() + 10 * kSecond;
    while (!done() && monotonic_now() < limit) {
      pollfd ready{loop_.event_fd(), POLLIN, 0};
      if (::poll(&ready, 1, 10) > 0) loop_.on_wake();
    }
  }

  Engine engine_;
  IoLoop loop_;
};

}  // namespace fastserve::testing
