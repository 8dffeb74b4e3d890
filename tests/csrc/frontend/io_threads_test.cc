// The native driver with real sockets: REST over loopback, cold calls answered from another thread, drain and teardown.
#include "frontend/io_threads.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "frontend_test.h"

namespace fastserve::testing {
namespace {

constexpr std::string_view kInfer =
    "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 77\r\n\r\n"
    R"({"inputs":[{"name":"IN","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]})"
    "\r\n";
constexpr std::string_view kCold = "GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n";

// Within ten seconds.
template <class Condition>
bool eventually(Condition condition) {
  const Nanos until = monotonic_now() + 10 * kSecond;
  while (!condition()) {
    if (monotonic_now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

// A listening socket on a free port of loopback.
std::pair<UniqueFd, std::uint16_t> listening() {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(fd.get(), 128), 0);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return {std::move(fd), ntohs(address.sin_port)};
}

// A blocking client.
class Client {
 public:
  explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval limit{10, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  void send(std::string_view text) {
    EXPECT_EQ(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // Until `end` was seen or the server closed.
  std::string read_until(std::string_view end) {
    std::string out;
    char piece[4096];
    while (out.find(end) == std::string::npos) {
      const ssize_t n = ::recv(fd_.get(), piece, sizeof(piece), 0);
      if (n <= 0) break;
      out.append(piece, static_cast<std::size_t>(n));
    }
    return out;
  }
  std::string read_to_end() { return read_until("\xff\xff never"); }
  void reset() {  // an RST: an orderly close may be a client that still waits for its answer
    const linger at_once{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    fd_.reset();
  }

 private:
  UniqueFd fd_;
};

// Answers cold calls on a thread of its own, as the Python loop does.
class Answerer {
 public:
  explicit Answerer(IoThreads& threads) : threads_(threads), thread_([this] { run(); }) {}
  ~Answerer() {
    stop_ = true;
    thread_.join();
  }
  std::atomic<int> cancelled{0};
  std::atomic<int> held{0};  // calls of /hold, which get no answer until they are cancelled

 private:
  void run() {
    while (!stop_) {
      pollfd ready{threads_.event_fd(), POLLIN, 0};
      ::poll(&ready, 1, 10);
      for (const ColdEvent& event : threads_.take_cold()) answer(event);
    }
  }
  void answer(const ColdEvent& event) {
    if (event.kind == ColdEvent::Kind::kCancelled) {
      if (event.call->loop_object == nullptr) return;
      ++cancelled;
      event.call->loop_object = nullptr;
      event.port->done(*event.call);
    } else if (event.call->target == "/hold") {
      event.call->loop_object = this;
      ++held;
    } else {
      event.port->http_respond(*event.call, 200, {}, bytes("cold:" + event.call->target));
      event.port->done(*event.call);
    }
  }

  IoThreads& threads_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class IoThreadsTest : public ::testing::Test {
 protected:
  IoThreadsTest() {
    EXPECT_TRUE(engine_.load(identity("echo")).is_ok());
    EXPECT_TRUE(engine_.load(identity("slow", {{"execute_delay_us", "50000"}})).is_ok());
  }
  std::uint16_t start(int count) {
    threads_ = std::make_unique<IoThreads>(engine_, IoLimits{}, count);
    auto [fd, port] = listening();
    threads_->listen(Protocol::kHttp, std::move(fd));
    return port;
  }
  Engine engine_;
  std::unique_ptr<IoThreads> threads_;
};

TEST_F(IoThreadsTest, AnswersInferenceWithoutAnybodyElse) {
  const std::uint16_t port = start(1);
  Client client(port);
  for (int i = 0; i < 3; ++i) {
    client.send(kInfer);
    EXPECT_NE(client.read_until("]}]}").find("\"data\":[1,2,3,4]"), std::string::npos);
  }
  EXPECT_EQ(threads_->counters(0).http_connections.get(), 1U);
}

TEST_F(IoThreadsTest, SpreadsConnectionsEvenly) {
  const std::uint16_t port = start(3);
  std::vector<Client> clients;
  for (int i = 0; i < 9; ++i) {
    clients.emplace_back(port);
    clients.back().send(kInfer);
    EXPECT_NE(clients.back().read_until("]}]}").find("200 OK"), std::string::npos);
  }
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(threads_->counters(i).http_connections.get(), 3U);
}

TEST_F(IoThreadsTest, ColdCallsAreAnsweredFromAnotherThread) {
  const std::uint16_t port = start(2);
  const Answerer answerer(*threads_);
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([port] {
      Client client(port);
      for (int k = 0; k < 50; ++k) {
        client.send(kCold);
        EXPECT_NE(client.read_until("cold:/v2").find("200 OK"), std::string::npos);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(IoThreadsTest, TellsTheAnswererThatAClientIsGone) {
  const std::uint16_t port = start(1);
  const Answerer answerer(*threads_);
  Client client(port);
  client.send("GET /hold HTTP/1.1\r\nhost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return answerer.held != 0; }));
  client.reset();
  ASSERT_TRUE(eventually([&] { return answerer.cancelled != 0; }));
  ASSERT_TRUE(eventually([&] { return threads_->connections() == 0; }));
}

TEST_F(IoThreadsTest, AClientThatReadsSlowlyGetsEverything) {
  const std::uint16_t port = start(1);
  Client client(port);
  constexpr int kRequests = 2000;  // more than the sockets' buffers hold of answers
  std::thread sender([&client] {
    for (int i = 0; i < kRequests; ++i) client.send(kInfer);
  });
  std::size_t answers = 0;
  std::string rest;
  while (answers < kRequests) {
    const std::string piece = client.read_until("]}]}");
    if (piece.empty()) break;
    rest += piece;
    for (std::size_t at = 0; (at = rest.find("200 OK")) != std::string::npos;) {
      ++answers;
      rest.erase(0, at + 6);
    }
  }
  sender.join();
  EXPECT_EQ(answers, static_cast<std::size_t>(kRequests));
}

TEST_F(IoThreadsTest, DrainAnswersWhatIsInAndCloses) {
  const std::uint16_t port = start(1);
  Client client(port);
  std::string slow(kInfer);
  slow.replace(slow.find("echo"), 4, "slow");
  client.send(slow);
  ASSERT_TRUE(eventually([&] { return threads_->counters(0).open_calls.get() != 0; }));
  threads_->stop_listening();
  threads_->shutdown();
  const std::string answer = client.read_to_end();
  EXPECT_NE(answer.find("200 OK"), std::string::npos);
  EXPECT_NE(answer.find("connection: close"), std::string::npos);
}

TEST_F(IoThreadsTest, CanBeDestroyedWithWorkInTheEngine) {
  const std::uint16_t port = start(2);
  std::string slow(kInfer);
  slow.replace(slow.find("echo"), 4, "slow");
  std::vector<Client> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back(port);
    clients.back().send(slow);
  }
  ASSERT_TRUE(eventually([&] { return threads_->counters(0).open_calls.get() != 0; }));
  threads_.reset();
  for (Client& client : clients) client.read_to_end();  // closed, answered or not
}

}  // namespace
}  // namespace fastserve::testing
