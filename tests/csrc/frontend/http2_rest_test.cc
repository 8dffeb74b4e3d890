// REST over HTTP/2 through the front end (an nghttp2 client on a socket pair, a real engine), and what both versions share.
#include "codec/compression.h"
#include "codec/http1_head.h"
#include "codec/http2_client.h"
#include "frontend/frontend_test.h"

namespace fastserve {
namespace {

using testing::bytes;
using testing::Client;
using testing::FrontendTest;
using testing::Headers;
using testing::Peer;
using testing::Reply;

constexpr std::string_view kBody =
    R"({"id":"7","inputs":[{"name":"IN","datatype":"FP32","shape":[1,4],"data":[1,2,3,4.5]}]})";
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr std::size_t kLimit = 4096;  // max_message_bytes here

IoLimits small_limits() {
  IoLimits limits;
  limits.max_message_bytes = kLimit;
  limits.max_streams = 4;
  return limits;
}

Headers request(std::string method, std::string path, const Headers& more = {}) {
  Headers out = {{":method", std::move(method)},
                 {":scheme", "http"},
                 {":path", std::move(path)},
                 {":authority", "host:1"}};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

std::string header(const Reply& reply, std::string_view name) {
  for (const auto& [key, value] : reply.headers) {
    if (key == name) return value;
  }
  return "";
}

std::string packed(std::string_view text, Compression coding) {
  ByteBuffer out;
  const std::span<const std::byte> piece = bytes(text);
  EXPECT_TRUE(compress(coding, std::span(&piece, 1), out).is_ok());
  return std::string(out.view());
}

std::string unpacked(std::string_view text, Compression coding) {
  ByteBuffer out;
  EXPECT_TRUE(decompress(coding, bytes(text), 1 << 24, out).is_ok());
  return std::string(out.view());
}

class Http2RestTest : public FrontendTest {
 protected:
  Http2RestTest() : small_(engine_, small_limits()) {}

  struct Session {
    Peer socket;
    Client client;
    IoLoop* loop = nullptr;
    Connection* connection = nullptr;
    std::string raw;  // everything that was read
  };
  std::unique_ptr<Session> connect(IoLoop& loop) {
    auto session = std::make_unique<Session>();
    session->loop = &loop;
    session->connection = loop.open_http(session->socket.server_fd(), nullptr);
    return session;
  }
  static void exchange(Session& session) {
    if (const std::string up = session.client.take(); !up.empty()) {
      session.loop->received(*session.connection, bytes(up));
    }
    session.client.feed(session.socket.read());
    for (Connection* each : session.loop->take_attention()) {
      if (each->stalled()) session.loop->writable(*each);
    }
  }
  // Until `closed_streams` of them are complete.
  static void settle(Session& session, std::size_t closed_streams) {
    const Nanos limit = monotonic_now() + 10 * kSecond;
    const auto closed = [&] {
      return static_cast<std::size_t>(
          std::ranges::count_if(session.client.replies, [](const auto& r) { return r.second.closed; }));
    };
    while (closed() < closed_streams && monotonic_now() < limit) {
      exchange(session);
      pollfd ready{session.loop->event_fd(), POLLIN, 0};
      if (::poll(&ready, 1, 1) > 0) session.loop->on_wake();
    }
    EXPECT_GE(closed(), closed_streams);
  }
  Reply ask(Session& session, const Headers& headers, std::string body) {
    const StreamId id = session.client.request(headers, std::move(body));
    const std::size_t before = session.client.replies.size();
    settle(session, before + 1);
    return session.client.replies[id];
  }

  IoLoop small_;
};

TEST_F(Http2RestTest, AnswersManyInferRequestsAtATime) {
  const auto session = connect(loop_);
  std::vector<StreamId> ids;
  for (int i = 0; i < 50; ++i) {
    ids.push_back(session->client.request(
        request("POST", i % 2 == 0 ? "/v2/models/echo/infer" : "/v2/models/echo/versions/1/infer"),
        std::string(kBody)));
  }
  settle(*session, ids.size());
  for (const StreamId id : ids) {
    const Reply& reply = session->client.replies[id];
    EXPECT_EQ(header(reply, ":status"), "200");
    EXPECT_EQ(header(reply, "content-type"), "application/json");
    EXPECT_EQ(header(reply, "content-length"), std::to_string(reply.body.size()));
    EXPECT_NE(reply.body.find(R"("id":"7")"), std::string::npos);
    EXPECT_NE(reply.body.find("[1,2,3,4.5]"), std::string::npos) << reply.body;
  }
  EXPECT_EQ(loop_.counters().open_calls.get(), 0u);
}

TEST_F(Http2RestTest, ThePrefaceMayComeInSingleBytes) {
  const auto session = connect(loop_);
  session->client.request(request("POST", "/v2/models/echo/infer"), std::string(kBody));
  for (const char byte : session->client.take()) loop_.received(*session->connection, bytes({&byte, 1}));
  settle(*session, 1);
  EXPECT_EQ(header(session->client.replies[1], ":status"), "200");
}

TEST_F(Http2RestTest, WhatOnlyBeginsLikeThePrefaceIsHttp1) {
  for (std::size_t cut = 0; cut < kPreface.size(); ++cut) {
    Peer client;
    Connection* connection = loop_.open_http(client.server_fd(), nullptr);
    loop_.received(*connection, bytes(kPreface.substr(0, cut)));
    EXPECT_EQ(client.read(), "") << cut;
    loop_.received(*connection, bytes("X"));
    loop_.received(*connection, bytes(" / HTTP/1.1\r\n\r\n"));
    const std::string answer = client.read();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 ")) << cut << answer;
    loop_.close(connection);
  }
  Peer client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  for (const char byte : std::string_view("POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\n")) {
    loop_.received(*connection, bytes({&byte, 1}));
  }
  loop_.received(*connection, bytes("content-length: " + std::to_string(kBody.size()) + "\r\n\r\n"));
  loop_.received(*connection, bytes(kBody));
  std::string answer;
  run_until([&] { return !(answer += client.read()).empty(); });
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK")) << answer;
}

TEST_F(Http2RestTest, APrefaceThatStopsIsTimedOutLikeAHead) {
  Peer client;
  Connection* connection = loop_.open_http(client.server_fd(), nullptr);
  const Nanos now = monotonic_now();
  connection->feed(bytes("PRI * HT"), now);
  connection->tick(now + 9 * kSecond);
  connection->flush();
  EXPECT_EQ(client.read(), "");
  connection->tick(now + 11 * kSecond);
  connection->flush();
  EXPECT_TRUE(client.read().starts_with("HTTP/1.1 408 ")) << "the client waits for ever";
}

TEST_F(Http2RestTest, ColdRoutesGoToTheLoopWithTheirHead) {
  const auto session = connect(loop_);
  const StreamId id = session->client.request(request("GET", "/v2?x=1", {{"x-key", "value"}}), "");
  exchange(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  EXPECT_EQ(cold[0]->method, "GET");
  EXPECT_EQ(cold[0]->target, "/v2?x=1");
  const std::vector<std::pair<std::string, std::string>> fields = {{"host", "host:1"}, {"x-key", "value"}};
  EXPECT_EQ(cold[0]->fields, fields);
  const std::vector<std::pair<std::string, std::string>> headers = {
      {"Content-Type", "text/plain"}, {"connection", "close"}, {"x-split", "a\r\nb"}};
  loop_.http_respond(*cold[0], 203, headers, bytes("answer"));
  loop_.done(*cold[0]);
  settle(*session, 1);
  const Reply& reply = session->client.replies[id];
  const Headers want = {
      {":status", "203"}, {"content-type", "text/plain"}, {"x-split", "a  b"}, {"content-length", "6"}};
  EXPECT_EQ(reply.headers, want);
  EXPECT_EQ(reply.body, "answer");
}

TEST_F(Http2RestTest, StreamedAnswersEndOrAreSeenToBeCut) {
  const auto session = connect(loop_);
  const StreamId whole = session->client.request(request("GET", "/stream"), "");
  const StreamId cut = session->client.request(request("GET", "/stream"), "");
  exchange(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 2u);
  for (Call* call : cold) {
    loop_.http_begin(*call, 200, {});
    loop_.http_chunk(*call, bytes("one "));
    loop_.http_chunk(*call, {});
    loop_.http_chunk(*call, bytes("two"));
  }
  loop_.http_end(*cold[0]);
  loop_.http_abort(*cold[1]);
  for (Call* call : cold) loop_.done(*call);
  settle(*session, 2);
  EXPECT_EQ(session->client.replies[whole].body, "one two");
  EXPECT_TRUE(session->client.replies[whole].ended);
  EXPECT_EQ(session->client.replies[whole].error, 0u);
  EXPECT_FALSE(session->client.replies[cut].ended);
  EXPECT_EQ(session->client.replies[cut].error, static_cast<std::uint32_t>(Http2Error::kInternalError));
}

TEST_F(Http2RestTest, HeadHasTheLengthAndNoBody) {
  const auto session = connect(loop_);
  session->client.request(request("HEAD", "/v2"), "");
  exchange(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  const std::vector<std::pair<std::string, std::string>> headers = {{"content-length", "17"}};
  loop_.http_respond(*cold[0], 200, headers, {});
  loop_.done(*cold[0]);
  settle(*session, 1);
  EXPECT_EQ(header(session->client.replies[1], "content-length"), "17");
  EXPECT_TRUE(session->client.replies[1].body.empty());
}

TEST_F(Http2RestTest, AResetCancelsWhatWaits) {
  const auto session = connect(loop_);
  std::vector<StreamId> ids;
  for (int i = 0; i < 3; ++i) {  // one runs 50 ms; 8 rows a batch: fill it, so that the rest waits
    ids.push_back(session->client.request(request("POST", "/v2/models/slow/infer"), std::string(kBody)));
    exchange(*session);
    run_until([&] { return engine_.statistics("slow", 1).value().pending == (i == 0 ? 0 : i); });
  }
  EXPECT_EQ(engine_.statistics("slow", 1).value().pending, 2);
  session->client.reset(ids[1], static_cast<std::uint32_t>(Http2Error::kCancel));
  session->client.reset(ids[2], static_cast<std::uint32_t>(Http2Error::kCancel));
  settle(*session, 3);
  run_until([&] { return engine_.statistics("slow", 1).value().in_flight == 0; });
  EXPECT_EQ(engine_.statistics("slow", 1).value().cancel.count, 2u);
  EXPECT_EQ(engine_.statistics("slow", 1).value().pending, 0);
  EXPECT_EQ(header(session->client.replies[ids[0]], ":status"), "200");
}

// The same for HTTP/1.1: the client's socket is closed while its request waits behind another's.
TEST_F(Http2RestTest, AClosedHttp1ConnectionCancelsWhatWaits) {
  const std::string text =
      "POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: " + std::to_string(kBody.size()) +
      "\r\n\r\n" + std::string(kBody);
  Peer first;
  Peer second;
  loop_.received(*loop_.open_http(first.server_fd(), nullptr), bytes(text));
  run_until([&] { return engine_.statistics("slow", 1).value().pending == 0; });
  Connection* leaving = loop_.open_http(second.server_fd(), nullptr);
  loop_.received(*leaving, bytes(text));
  EXPECT_EQ(engine_.statistics("slow", 1).value().pending, 1);
  loop_.end_of_input(*leaving);
  run_until([&] { return engine_.statistics("slow", 1).value().in_flight == 0; });
  EXPECT_EQ(engine_.statistics("slow", 1).value().cancel.count, 1u);
  std::string answer;
  run_until([&] { return !(answer += first.read()).empty(); });
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK"));
}

TEST_F(Http2RestTest, TheBodyLimitHoldsOnTheWireAndUnpacked) {
  const auto padded = [](std::size_t size) {
    std::string text(kBody);
    text.append(size - text.size(), ' ');
    return text;
  };
  const auto session = connect(small_);
  const Headers infer = request("POST", "/v2/models/echo/infer");
  for (const auto& [size, status] : {std::pair{kLimit - 1, "200"}, {kLimit, "200"}, {kLimit + 1, "413"}}) {
    EXPECT_EQ(header(ask(*session, infer, padded(size)), ":status"), status) << size;
    for (const Compression coding : {Compression::kGzip, Compression::kDeflate}) {
      Headers encoded = infer;
      encoded.emplace_back("content-encoding", compression_name(coding));
      const Reply reply = ask(*session, encoded, packed(padded(size), coding));
      EXPECT_EQ(header(reply, ":status"), status) << size << reply.body;
    }
  }
  Headers declared = infer;
  declared.emplace_back("content-length", std::to_string(kLimit + 1));
  EXPECT_EQ(header(ask(*session, declared, padded(kLimit + 1)), ":status"), "413");
  EXPECT_EQ(small_.counters().refused_by_code[static_cast<std::size_t>(Code::kResourceExhausted)].get(), 4u);
  EXPECT_EQ(small_.counters().open_calls.get(), 0u);
}

TEST_F(Http2RestTest, BadEncodingsAreTheClientsFault) {
  const auto session = connect(loop_);
  for (const char* path : {"/v2/models/echo/infer", "/v2/repository/index"}) {
    const Reply unknown = ask(*session, request("POST", path, {{"content-encoding", "br"}}), "x");
    EXPECT_EQ(header(unknown, ":status"), "415");
    EXPECT_EQ(header(unknown, "accept-encoding"), "gzip, deflate, identity");
    EXPECT_NE(unknown.body.find("content-encoding: got \\\"br\\\""), std::string::npos) << unknown.body;
    const Reply corrupt = ask(*session, request("POST", path, {{"content-encoding", "gzip"}}), "no gzip");
    EXPECT_EQ(header(corrupt, ":status"), "400");
    EXPECT_NE(corrupt.body.find("does not unpack"), std::string::npos) << corrupt.body;
  }
  EXPECT_TRUE(loop_.take_cold().empty());
}

TEST_F(Http2RestTest, AColdCallGetsTheUnpackedBody) {
  const auto session = connect(loop_);
  const std::string body = packed("{\"ready\":true}", Compression::kDeflate);
  session->client.request(
      request("POST", "/v2/repository/index",
              {{"content-encoding", "deflate"}, {"content-length", std::to_string(body.size())}}),
      body);
  exchange(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1u);
  EXPECT_EQ(cold[0]->request.message.view(), "{\"ready\":true}");
  const std::vector<std::pair<std::string, std::string>> fields = {{"host", "host:1"},
                                                                   {"content-length", "14"}};
  EXPECT_EQ(cold[0]->fields, fields);
  loop_.http_respond(*cold[0], 200, {}, bytes(std::string(1024, 'a')));
  loop_.done(*cold[0]);
}

TEST_F(Http2RestTest, AnswersArePackedFromASizeOnForClientsThatAcceptIt) {
  const auto session = connect(loop_);
  std::vector<std::pair<std::string, std::string>> headers = {{"vary", "accept-encoding"}};
  std::size_t asked = 0;
  const auto cold_answer = [&](const char* accept, std::size_t size) {
    const StreamId id = session->client.request(request("GET", "/x", {{"accept-encoding", accept}}), "");
    exchange(*session);
    const std::vector<Call*> cold = loop_.take_cold();
    EXPECT_EQ(cold.size(), 1u);
    loop_.http_respond(*cold[0], 200, headers, bytes(std::string(size, 'a')));
    loop_.done(*cold[0]);
    settle(*session, ++asked);
    return session->client.replies[id];
  };
  const Reply small = cold_answer("gzip", 1023);
  EXPECT_EQ(header(small, "content-encoding"), "");
  const Reply large = cold_answer("gzip;q=0.5, deflate", 1024);
  EXPECT_EQ(header(large, "content-encoding"), "deflate");
  EXPECT_EQ(header(large, "vary"), "accept-encoding");
  EXPECT_EQ(header(large, "content-length"), std::to_string(large.body.size()));
  EXPECT_EQ(unpacked(large.body, Compression::kDeflate), std::string(1024, 'a'));
  const Reply plain = cold_answer("br", 1024);
  EXPECT_EQ(header(plain, "content-encoding"), "");
  headers.clear();  // the application does not offer it
  EXPECT_EQ(header(cold_answer("gzip", 1024), "content-encoding"), "");
}

TEST_F(Http2RestTest, LimitsOfTheHead) {
  const auto session = connect(loop_);
  const std::size_t line = Http1Limits{}.line_bytes;
  for (const auto& [size, status] : {std::pair{line, "404"}, {line + 1, "414"}}) {
    const std::string path = "/v2/models/" + std::string(size - 17, 'a') + "/infer";
    ASSERT_EQ(path.size(), size);
    EXPECT_EQ(header(ask(*session, request("POST", path), std::string(kBody)), ":status"), status);
  }
  EXPECT_EQ(header(ask(*session, request("POST", "/v2/models/%zz/infer"), "{}"), ":status"), "400");
}

TEST_F(Http2RestTest, StreamsThatWereResetCountUntilTheirWorkIsDone) {
  const auto session = connect(small_);
  const Headers slow = request("POST", "/v2/models/slow/infer");
  for (int i = 0; i < 4; ++i) {
    const StreamId id = session->client.request(slow, std::string(kBody));
    exchange(*session);
    run_until([&] { return i != 0 || engine_.statistics("slow", 1).value().pending == 0; });
    session->client.reset(id, static_cast<std::uint32_t>(Http2Error::kCancel));
    exchange(*session);
  }
  const Reply reply = ask(*session, request("POST", "/v2/models/echo/infer"), std::string(kBody));
  EXPECT_TRUE(header(reply, ":status") == "503" || header(reply, ":status") == "200") << reply.body;
}

TEST_F(Http2RestTest, QuietConnectionsAreClosedAndBodiesTimedOut) {
  const auto session = connect(loop_);
  const StreamId id = session->client.stream(request("POST", "/v2/models/echo/infer"));
  session->client.send(id, "{");
  exchange(*session);
  const Nanos now = monotonic_now();
  session->connection->tick(now + 29 * kSecond);
  session->connection->flush();
  exchange(*session);
  EXPECT_FALSE(session->client.replies[id].closed);
  session->connection->tick(now + 31 * kSecond);
  session->connection->flush();
  session->client.feed(session->socket.read());
  EXPECT_EQ(header(session->client.replies[id], ":status"), "408");
  session->connection->tick(now + 119 * kSecond);
  session->connection->flush();
  EXPECT_FALSE(session->connection->finished());
  session->connection->tick(now + 121 * kSecond);
  session->connection->flush();
  EXPECT_TRUE(session->connection->finished());
}

TEST_F(Http2RestTest, DrainAnswersWhatIsIn) {
  const auto session = connect(loop_);
  session->client.request(request("POST", "/v2/models/slow/infer"), std::string(kBody));
  exchange(*session);
  loop_.shutdown();
  settle(*session, 1);
  EXPECT_EQ(header(session->client.replies[1], ":status"), "200");
  run_until([&] {
    exchange(*session);
    return session->connection->finished();
  });
  EXPECT_TRUE(session->connection->finished());
}

TEST_F(Http2RestTest, AClientThatLeavesLeavesNothingBehind) {
  for (int i = 0; i < 5; ++i) {
    const auto session = connect(loop_);
    session->client.request(request("POST", "/v2/models/slow/infer"), std::string(kBody));
    session->client.request(request("GET", "/v2"), "");
    exchange(*session);
    loop_.close(session->connection);
    for (Call* call : loop_.take_cold()) loop_.done(*call);
  }
  run_until([&] { return engine_.statistics("slow", 1).value().in_flight == 0; });
  EXPECT_EQ(loop_.counters().open_calls.get(), 0u);
}

}  // namespace
}  // namespace fastserve
