// HTTP/1.1 through the front end, without any event loop.
#include "frontend/frontend_test.h"

namespace fastserve {
namespace {

using testing::bytes;
using testing::FrontendTest;
using testing::identity;
using testing::Peer;

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

class IoLoopTest : public FrontendTest {
 protected:
  std::string answer_of(Peer& client, std::size_t answers = 1) {
    std::string got;
    run_until([&] {
      got += client.read();
      return count(got, "HTTP/1.1 ") >= answers;
    });
    return got;
  }
};

TEST_F(IoLoopTest, AnswersAnInferRequestFromTheEngine) {
  Peer client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("POST", "/v2/models/echo/infer", kBody)));
  const std::string answer = answer_of(client);
  EXPECT_NE(answer.find("200 OK"), std::string::npos) << answer;
  EXPECT_NE(answer.find(R"("id":"7")"), std::string::npos) << answer;
  EXPECT_NE(answer.find("[1,2,3,4.5]"), std::string::npos) << answer;
  EXPECT_TRUE(loop_.take_cold().empty());
  EXPECT_EQ(loop_.counters().open_calls.get(), 0u);
}

TEST_F(IoLoopTest, AnswersPipelinedRequestsInOrder) {
  Peer client;
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
  Peer client;
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
  EXPECT_EQ(loop_.counters().open_calls.get(), 0u);
}

TEST_F(IoLoopTest, AColdCallThatIsDroppedIsAnswered500) {
  Peer client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("GET", "/v2", "")));
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  loop_.done(*cold[0]);
  EXPECT_NE(answer_of(client).find("HTTP/1.1 500"), std::string::npos);
}

TEST_F(IoLoopTest, TellsAColdCallThatItsClientIsGone) {
  Peer client;
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
    Peer client;
    Connection* connection = loop_.open_http(client.server_fd(), nullptr);
    loop_.received(*connection, bytes(http("POST", "/v2/models/slow/infer", kBody)));
    loop_.close(connection);
  }
  Peer client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("POST", "/v2/models/echo/infer", kBody)));
  EXPECT_NE(answer_of(client).find("200 OK"), std::string::npos);
}

TEST_F(IoLoopTest, WaitsForTheEngineWhenItIsDestroyed) {
  Peer client;
  auto loop = std::make_unique<IoLoop>(engine_, IoLimits{});
  Connection* connection = loop->open_http(client.server_fd(), nullptr);
  loop->received(*connection, bytes(http("POST", "/v2/models/slow/infer", kBody)));
  loop.reset();
  EXPECT_EQ(engine_.statistics("slow", 1).value().in_flight, 0);
}

TEST_F(IoLoopTest, ABrokenSocketAsksTheDriverToClose) {
  auto client = std::make_unique<Peer>();
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
  Peer client;
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
  Peer client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  loop_.received(*connection, bytes(http("POST", "/v2/models/slow/infer", kBody)));
  loop_.shutdown();
  const std::string answer = answer_of(client);
  EXPECT_NE(answer.find("200 OK"), std::string::npos) << answer;
  EXPECT_TRUE(connection->finished());
}

}  // namespace
}  // namespace fastserve
