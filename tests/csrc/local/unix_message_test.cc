#include "local/unix_message.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace fastserve {
namespace {

struct Pair {
  Pair() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    client = UniqueFd(ends[0]);
    server = UniqueFd(ends[1]);
  }
  UniqueFd client, server;
};

void send(const UniqueFd& from, std::string_view text) {
  ASSERT_TRUE(send_message(from.get(), std::as_bytes(std::span(text)), {}).is_ok());
}

TEST(UnixMessage, LastWordsAreHeardThoughTheSenderDidNotListen) {
  Pair pair;
  send(pair.client, "hello");
  send(pair.server, "too many");
  pair.server.reset();  // with "hello" unread: the kernel reports ECONNRESET before what was sent
  std::array<std::byte, 64> buffer{};
  auto got = receive_message(pair.client.get(), buffer, MSG_DONTWAIT);
  ASSERT_TRUE(got.is_ok());
  EXPECT_FALSE(got->ended);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(buffer.data()), got->bytes), "too many");
  got = receive_message(pair.client.get(), buffer, MSG_DONTWAIT);
  ASSERT_TRUE(got.is_ok());
  EXPECT_TRUE(got->ended);
}

TEST(UnixMessage, EndAndNothingYetAreTold) {
  Pair pair;
  std::array<std::byte, 64> buffer{};
  auto got = receive_message(pair.client.get(), buffer, MSG_DONTWAIT);
  ASSERT_TRUE(got.is_ok());
  EXPECT_TRUE(got->would_block);
  send(pair.client, "never read");
  pair.server.reset();
  got = receive_message(pair.client.get(), buffer, MSG_DONTWAIT);
  ASSERT_TRUE(got.is_ok());
  EXPECT_TRUE(got->ended);
}

TEST(UnixMessage, LongerThanTheBufferIsRefused) {
  Pair pair;
  send(pair.client, "12345");
  std::array<std::byte, 4> buffer{};
  EXPECT_EQ(receive_message(pair.server.get(), buffer, MSG_DONTWAIT).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace fastserve
