// A driver that hands over one connection's bytes at a time, with a client that always has more to say.
#include "frontend/paced_reads.h"

#include <cstring>

#include "frontend/frontend_test.h"

namespace fastserve {
namespace {

using testing::FrontendTest;
using testing::Peer;

constexpr std::string_view kBody =
    R"({"inputs":[{"name":"IN","datatype":"FP32","shape":[1,4],"data":[1,2,3,4.5]}]})";

std::string requests(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    out +=
        "POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(kBody.size()) +
        "\r\n\r\n" + std::string(kBody);
  }
  return out;
}

std::size_t answers_in(std::string_view text) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find("HTTP/1.1 200", at)) != std::string_view::npos; ++at) ++n;
  return n;
}

class PacedReadsTest : public FrontendTest {
 protected:
  // What a driver does: whatever it read goes in from the start of its buffer.
  void hand_over(std::string_view text) {
    std::memcpy(buffer_.data(), text.data(), text.size());
    reads_.received(*connection_, buffer_, text.size());
  }
  void expect_answers(std::size_t count) {
    std::string got;
    run_until([&] {
      got += client_.read();
      return answers_in(got) >= count;
    });
    EXPECT_EQ(answers_in(got), count) << got;
  }

  Peer client_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(64 * 1024);
  Connection* connection_ = loop_.open_http(client_.server_fd(), nullptr);
  PacedReads reads_{loop_};
};

TEST_F(PacedReadsTest, WhatCameDuringAPauseBelongsToTheSamePass) {
  const std::string dense = requests(3);  // from the second pass on they follow one another at once
  client_.send(requests(5));
  std::uint64_t handed = 0;
  for (int i = 0; i < 8; ++i, handed += 3) hand_over(dense);
  expect_answers(handed + 5);  // the five were read from the socket, by one of the passes
}

TEST_F(PacedReadsTest, ARequestThatIsCutByThePauseIsWhole) {
  const std::string burst = requests(6);
  const std::size_t cut = burst.size() - 40;
  hand_over(requests(3));
  client_.send(burst.substr(cut));
  std::uint64_t handed = 3;
  // Without a pause the rest stays in the socket, and the next hand-over begins with it, as a driver's would.
  hand_over(burst.substr(0, cut));
  handed += 6;
  if (loop_.submitted() < handed) hand_over(burst.substr(cut));
  EXPECT_EQ(loop_.submitted(), handed);
  expect_answers(handed);
}

TEST_F(PacedReadsTest, OneRequestAtATimeIsReadAsItComes) {
  for (int i = 0; i < 20; ++i) hand_over(requests(1));
  EXPECT_EQ(loop_.submitted(), 20U);
  expect_answers(20);
}

}  // namespace
}  // namespace fastserve
