// The front end without any event loop: socket pairs, a real engine, the identity backend.
#include "frontend/io_loop.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "engine/engine.h"

namespace fastserve {
namespace {

using namespace std::string_literals;

LoadSpec identity(std::string name, std::map<std::string, std::string> parameters = {}) {
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
class Client {
 public:
  Client() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    mine_ = UniqueFd(ends[0]);
    theirs_ = UniqueFd(ends[1]);
  }
  int server_fd() const { return theirs_.get(); }
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

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string http(std::string_view method, std::string_view target, std::string_view body) {
  return std::string(method) + " " + std::string(target) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

constexpr std::string_view kBody =
    R"({"id":"7","inputs":[{"name":"IN","datatype":"FP32","shape":[1,4],"data":[1,2,3,4.5]}]})";

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++n;
  return n;
}

class IoLoopTest : public ::testing::Test {
 protected:
  IoLoopTest() : loop_(engine_, {}) {
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
  std::string answer_of(Client& client, std::size_t answers = 1) {
    std::string got;
    run_until([&] {
      got += client.read();
      return count(got, "HTTP/1.1 ") >= answers;
    });
    return got;
  }

  Engine engine_;
  IoLoop loop_;
};

TEST_F(IoLoopTest, AnswersAnInferRequestFromTheEngine) {
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("POST", "/v2/models/echo/infer", kBody)));
  const std::string answer = answer_of(client);
  EXPECT_NE(answer.find("200 OK"), std::string::npos) << answer;
  EXPECT_NE(answer.find(R"("id":"7")"), std::string::npos) << answer;
  EXPECT_NE(answer.find("[1,2,3,4.5]"), std::string::npos) << answer;
  EXPECT_TRUE(loop_.take_cold().empty());
  EXPECT_EQ(loop_.open_calls(), 0u);
}

TEST_F(IoLoopTest, AnswersPipelinedRequestsInOrder) {
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  std::string burst = http("POST", "/v2/models/slow/infer", kBody);
  burst += http("POST", "/v2/models/nobody/infer", kBody);
  burst += http("POST", "/v2/models/echo/infer", kBody);
  loop_.received(*connection, bytes(burst));
  const std::string answers = answer_of(client, 3);
  const std::size_t slow = answers.find("\"slow\"");
  const std::size_t unknown = answers.find("Request for unknown model: 'nobody' is not found");
  const std::size_t echo = answers.find("\"echo\"");
  EXPECT_LT(slow, unknown);
  EXPECT_LT(unknown, echo);
  EXPECT_NE(echo, std::string::npos) << answers;
}

TEST_F(IoLoopTest, HandsEveryOtherRouteToTheLoopAsAColdCall) {
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("GET", "/v2/models/echo?x=1", "hello")));
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  EXPECT_EQ(cold[0]->method, "GET");
  EXPECT_EQ(cold[0]->target, "/v2/models/echo?x=1");
  EXPECT_EQ(cold[0]->request.message.view(), "hello");
  loop_.http_respond(*cold[0], 200, {}, bytes("answer"));
  loop_.done(*cold[0]);
  EXPECT_NE(answer_of(client).find("answer"), std::string::npos);
  EXPECT_EQ(loop_.open_calls(), 0u);
}

TEST_F(IoLoopTest, AColdCallThatIsDroppedIsAnswered500) {
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("GET", "/v2", "")));
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  loop_.done(*cold[0]);
  EXPECT_NE(answer_of(client).find("HTTP/1.1 500"), std::string::npos);
}

TEST_F(IoLoopTest, TellsAColdCallThatItsClientIsGone) {
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("GET", "/v2", "")));
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  loop_.close(connection);
  const std::vector<Call*> cancelled = loop_.take_cancelled();
  ASSERT_EQ(cancelled.size(), 1u);
  EXPECT_EQ(cancelled[0], cold[0]);
  loop_.http_respond(*cold[0], 200, {}, bytes("late"));  // no-op
  loop_.done(*cold[0]);
}

TEST_F(IoLoopTest, SurvivesAClientThatLeavesWhileTheEngineWorks) {
  for (int round = 0; round < 5; ++round) {
    Client client;
    Connection* connection = loop_.open_http(client.server_fd(), nullptr);
    loop_.received(*connection, bytes(http("POST", "/v2/models/slow/infer", kBody)));
    loop_.close(connection);
  }
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("POST", "/v2/models/echo/infer", kBody)));
  EXPECT_NE(answer_of(client).find("200 OK"), std::string::npos);
}

TEST_F(IoLoopTest, WaitsForTheEngineWhenItIsDestroyed) {
  Client client;
  auto loop = std::make_unique<IoLoop>(engine_, IoLimits{});
  Connection* connection = loop->open_http(client.server_fd(), nullptr);
  loop->received(*connection, bytes(http("POST", "/v2/models/slow/infer", kBody)));
  loop.reset();
  EXPECT_EQ(engine_.statistics("slow", 1).value().in_flight, 0);
}

TEST_F(IoLoopTest, ABrokenSocketAsksTheDriverToClose) {
  auto client = std::make_unique<Client>();
  const int fd = ::dup(client->server_fd());
  Connection* connection = loop_.open_http(fd, nullptr);
  client.reset();
  loop_.received(*connection, bytes(http("POST", "/v2/models/echo/infer", kBody)));
  std::vector<Connection*> attention;
  run_until([&] {
    for (Connection* each : loop_.take_attention()) attention.push_back(each);
    return !attention.empty();
  });
  ASSERT_FALSE(attention.empty());
  EXPECT_TRUE(attention[0]->finished());
  loop_.close(connection);
  ::close(fd);
}

TEST_F(IoLoopTest, HoldsBackWhatTheSocketDoesNotTake) {
  LoadSpec spec = identity("large");
  spec.inputs[0].shape = Shape{-1, 1 << 20};
  spec.outputs[0].shape = Shape{-1, 1 << 20};
  spec.max_batch_rows = 1;
  ASSERT_TRUE(engine_.load(spec).is_ok());
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  const std::string json =
      R"({"inputs":[{"name":"IN","datatype":"FP32","shape":[1,1048576],"parameters":{"binary_data_size":4194304}}],)"
      R"("parameters":{"binary_data_output":true}})";
  std::string payload(4 << 20, '\0');
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(i * 7 % 251);
  const std::string body = json + payload;
  loop_.received(
      *connection,
      bytes("POST /v2/models/large/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: " +
            std::to_string(json.size()) + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
            body));
  std::string got;
  run_until([&] {
    got += client.read();
    for (Connection* each : loop_.take_attention()) {
      if (each->stalled()) loop_.writable(*each);
    }
    return got.size() > payload.size() && got.ends_with(payload.substr(payload.size() - 64));
  });
  EXPECT_NE(got.find(payload), std::string::npos);
}

TEST_F(IoLoopTest, DrainingClosesAnHttpConnectionAfterItsAnswer) {
  Client client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("POST", "/v2/models/slow/infer", kBody)));
  loop_.shutdown();
  const std::string answer = answer_of(client);
  EXPECT_NE(answer.find("200 OK"), std::string::npos) << answer;
  EXPECT_TRUE(connection->finished());
}

}  // namespace
}  // namespace fastserve
