// TLS below a connection: real sockets, a client without trust in anybody.
#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "codec/tls_client.h"
#include "frontend/frontend_test.h"

namespace fastserve {
namespace {

using testing::Authority;
using testing::bytes;
using testing::ClientWishes;
using testing::Pem;
using testing::TlsClient;

// Both ends of a TCP connection: Unix sockets carry no TLS.
class TcpPair {
 public:
  TcpPair() {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener.get(), generic, size), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), generic, &size), 0);
    client = UniqueFd(::socket(AF_INET, SOCK_STREAM, 0));
    EXPECT_EQ(::connect(client.get(), generic, size), 0);
    server = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK));
  }
  UniqueFd client;
  UniqueFd server;
};

class TlsConnectionTest : public ::testing::Test {
 protected:
  TlsConnectionTest() {
    folder_ = std::filesystem::temp_directory_path() / ("fastserve_tls_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    install(authority_.issue("first"));
    auto opened = TlsFiles::open({path("cert"), path("key"), ""}, TlsVersion::k12, {});
    EXPECT_TRUE(opened.is_ok()) << opened.status().message();
    files_ = *opened;
    IoLimits limits;
    limits.tls_http = limits.tls_grpc = files_;
    loop_ = std::make_unique<IoLoop>(engine_, limits);
    EXPECT_TRUE(engine_.load(testing::identity("echo")).is_ok());
  }
  ~TlsConnectionTest() override {
    loop_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string path(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  void install(const Pem& pem) const {
    write("cert", pem.certificate);
    write("key", pem.key);
  }

  // The driver's work on one connection, and the client's, until `done`.
  template <class Done>
  void run(Connection& connection, TcpPair& sockets, TlsClient& client, Done done) {
    const Nanos limit = monotonic_now() + 10 * kSecond;
    std::array<std::byte, 65536> piece;
    while (!done() && monotonic_now() < limit) {
      client.step();
      const std::string up = client.take_output();
      if (!up.empty()) {
        ASSERT_EQ(::send(sockets.client.get(), up.data(), up.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(up.size()));
      }
      ssize_t n = ::recv(sockets.server.get(), piece.data(), piece.size(), MSG_DONTWAIT);
      if (n > 0) loop_->received(connection, std::span(piece).first(static_cast<std::size_t>(n)));
      pollfd ready{loop_->event_fd(), POLLIN, 0};
      if (::poll(&ready, 1, n > 0 ? 0 : 1) > 0) loop_->on_wake();
      static_cast<void>(loop_->take_attention());
      if (connection.stalled()) loop_->writable(connection);
      n = ::recv(sockets.client.get(), piece.data(), piece.size(), MSG_DONTWAIT);
      if (n > 0) client.give({reinterpret_cast<const char*>(piece.data()), static_cast<std::size_t>(n)});
    }
    EXPECT_TRUE(done()) << client.error;
  }

  static std::string post(std::string_view body) {
    return "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: " +
           std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
  }
  static ClientWishes rest() {
    ClientWishes out;
    out.alpn = "\x08http/1.1";
    return out;
  }

  Authority authority_{"authority"};
  std::filesystem::path folder_;
  std::shared_ptr<TlsFiles> files_;
  Engine engine_;
  std::unique_ptr<IoLoop> loop_;
};

constexpr std::string_view kBody =
    R"({"inputs":[{"name":"IN","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]})";

TEST_F(TlsConnectionTest, RestInference) {
  TcpPair sockets;
  TlsClient client(rest());
  Connection& connection = *loop_->open_http(sockets.server.get(), nullptr);
  EXPECT_TRUE(connection.secure());
  run(connection, sockets, client, [&] { return client.established(); });
  for (int i = 0; i < 3; ++i) {
    client.received.clear();
    client.say(post(kBody));
    run(connection, sockets, client, [&] { return client.received.ends_with("}"); });
    EXPECT_TRUE(client.received.starts_with("HTTP/1.1 200")) << client.received;
  }
  EXPECT_EQ(loop_->counters().tls_handshakes.get(), 1U);
}

TEST_F(TlsConnectionTest, LargeAnswersThroughAFullSocket) {
  TcpPair sockets;
  TlsClient client(rest());
  Connection& connection = *loop_->open_http(sockets.server.get(), nullptr);
  run(connection, sockets, client, [&] { return client.established(); });
  std::string body = R"({"inputs":[{"name":"IN","shape":[8,4],"datatype":"FP32","data":[0)";
  for (int i = 1; i < 32; ++i) body += ",0";
  body += "]}]}";
  std::string requests;
  constexpr std::size_t kCount = 3000;
  for (std::size_t i = 0; i < kCount; ++i) requests += post(body);
  client.say(requests);
  std::size_t seen = 0;
  std::size_t at = 0;
  run(connection, sockets, client, [&] {
    while ((at = client.received.find("HTTP/1.1 200", at)) != std::string::npos) ++seen, ++at;
    at = client.received.size() < 12 ? 0 : client.received.size() - 11;
    return seen >= kCount;
  });
}

TEST_F(TlsConnectionTest, TheEndOfTheTlsStreamEndsTheConnection) {
  TcpPair sockets;
  TlsClient client(rest());
  Connection& connection = *loop_->open_http(sockets.server.get(), nullptr);
  run(connection, sockets, client, [&] { return client.established(); });
  SSL_shutdown(client.native());
  run(connection, sockets, client, [&] { return connection.finished() && client.saw_close; });
  EXPECT_FALSE(connection.lingers());
  EXPECT_EQ(loop_->counters().tls_truncated.get(), 0U);
}

TEST_F(TlsConnectionTest, ASocketThatEndsEarlyIsCounted) {
  TcpPair sockets;
  TlsClient client(rest());
  Connection& connection = *loop_->open_http(sockets.server.get(), nullptr);
  run(connection, sockets, client, [&] { return client.established(); });
  loop_->end_of_input(connection);
  EXPECT_TRUE(connection.finished());
  EXPECT_EQ(loop_->counters().tls_truncated.get(), 1U);
  TcpPair other;
  loop_->close(loop_->open_grpc(other.server.get(), nullptr));  // within the handshake
  EXPECT_EQ(loop_->counters().tls_failures[static_cast<std::size_t>(TlsFailure::kCutOff)].get(), 1U);
}

TEST_F(TlsConnectionTest, ARefusedClientGetsTimeToReadWhy) {
  TcpPair sockets;
  ClientWishes wishes;
  wishes.alpn = "\x08http/1.1";
  TlsClient client(wishes);
  Connection& connection = *loop_->open_grpc(sockets.server.get(), nullptr);
  run(connection, sockets, client, [&] { return connection.finished() && !client.error.empty(); });
  EXPECT_TRUE(connection.lingers());
  loop_->end_of_input(connection);
  EXPECT_FALSE(connection.lingers());
  EXPECT_EQ(loop_->counters().tls_failures[static_cast<std::size_t>(TlsFailure::kProtocol)].get(), 1U);
}

TEST_F(TlsConnectionTest, UnixSocketsStayPlain) {
  testing::Peer peer;
  Connection& connection = *loop_->open_http(peer.server_fd(), nullptr);
  EXPECT_FALSE(connection.secure());
  loop_->received(connection, bytes(post("{}")));
  EXPECT_TRUE(peer.read().starts_with("HTTP/1.1 400"));
}

TEST_F(TlsConnectionTest, NewFilesForNewConnections) {
  TcpPair sockets;
  TlsClient client(rest());
  Connection& connection = *loop_->open_http(sockets.server.get(), nullptr);
  run(connection, sockets, client, [&] { return client.established(); });
  install(authority_.issue("second"));
  EXPECT_TRUE(files_->reload().is_ok());
  EXPECT_EQ(files_->current()->certificate().subject, "CN=second");
  client.say(post(kBody));
  run(connection, sockets, client, [&] { return client.received.ends_with("}"); });
  write("key", authority_.issue("other").key);
  EXPECT_EQ(files_->reload().message(),
            path("key") + ": the private key does not belong to the first certificate of " + path("cert"));
  EXPECT_EQ(files_->current()->certificate().subject, "CN=second");
  std::filesystem::remove(path("key"));
  EXPECT_EQ(files_->reload().message(), path("key") + ": No such file or directory");
}

TEST_F(TlsConnectionTest, FilesHaveASizeLimit) {
  for (const std::size_t size :
       {TlsFiles::kMaxFileBytes - 1, TlsFiles::kMaxFileBytes, TlsFiles::kMaxFileBytes + 1}) {
    write("key", std::string(size, 'x'));
    const std::string message = files_->reload().message();
    EXPECT_EQ(message.find("has more than 1048576 bytes") != std::string::npos,
              size > TlsFiles::kMaxFileBytes)
        << message;
  }
}

}  // namespace
}  // namespace fastserve
