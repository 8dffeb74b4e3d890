// gRPC through the front end: an nghttp2 client on a socket pair, a real engine.
#include <sys/socket.h>

#include "frontend/grpc_client.h"

namespace fastserve {
namespace {

using testing::Client;
using testing::framed;
using testing::FrontendTest;
using testing::Headers;
using testing::packed;
using testing::Peer;
using testing::Reply;
using testing::trailer;

std::string infer_message(std::string_view model, std::int64_t width, const std::string& raw) {
  return framed(testing::message([&](testing::pbf_writer& w) {
    w.add_string(1, model.data(), model.size());
    w.add_string(3, "id-1");
    testing::sub(w, 5, [&](testing::pbf_writer& input) {
      input.add_string(1, "IN");
      input.add_string(2, "FP32");
      testing::shape(input, {1, width});
    });
    w.add_bytes(7, raw);
  }));
}

class GrpcConnectionTest : public FrontendTest {
 protected:
  struct Session {
    Peer socket;
    Client client;
    Connection* connection = nullptr;
  };
  std::unique_ptr<Session> connect() {
    auto session = std::make_unique<Session>();
    session->connection = loop_.open_grpc(session->socket.server_fd(), nullptr);
    return session;
  }
  void send(Session& session) {
    const std::string up = session.client.take();
    if (!up.empty()) loop_.received(*session.connection, testing::bytes(up));
  }
  void settle(Session& session, std::size_t closed_streams) {
    run_until([&] {
      send(session);
      session.client.feed(session.socket.read());
      for (Connection* each : loop_.take_attention()) {
        if (each->stalled()) loop_.writable(*each);
      }
      const auto& replies = session.client.replies;
      return static_cast<std::size_t>(std::ranges::count_if(
                 replies, [](const auto& r) { return r.second.closed; })) >= closed_streams;
    });
  }
};

TEST_F(GrpcConnectionTest, AnswersManyStreamsOfOneConnection) {
  const auto session = connect();
  std::map<StreamId, std::string> sent;
  for (int i = 0; i < 50; ++i) {
    std::string raw(16, static_cast<char>('a' + i % 26));
    sent[session->client.request(testing::grpc_request(), infer_message("echo", 4, raw))] = raw;
  }
  settle(*session, sent.size());
  for (const auto& [stream, raw] : sent) {
    const Reply& reply = session->client.replies[stream];
    EXPECT_EQ(trailer(reply, "grpc-status"), "0");
    EXPECT_NE(reply.body.find(raw), std::string::npos);
    EXPECT_NE(reply.body.find("id-1"), std::string::npos);
  }
  EXPECT_EQ(loop_.counters().open_calls.get(), 0U);
}

TEST_F(GrpcConnectionTest, RefusesWithCodeAndWordsAndServesTheNext) {
  const auto session = connect();
  const StreamId unknown =
      session->client.request(testing::grpc_request(), infer_message("nobody", 4, std::string(16, 'x')));
  const StreamId shape =
      session->client.request(testing::grpc_request(), infer_message("echo", 5, std::string(20, 'x')));
  const StreamId good =
      session->client.request(testing::grpc_request(), infer_message("echo", 4, std::string(16, 'x')));
  settle(*session, 3);
  auto& replies = session->client.replies;
  EXPECT_EQ(trailer(replies[unknown], "grpc-status"), "5");
  EXPECT_EQ(trailer(replies[unknown], "grpc-message"),
            "[request id: id-1] Request for unknown model: 'nobody' is not found");
  EXPECT_EQ(trailer(replies[shape], "grpc-status"), "3");
  EXPECT_NE(trailer(replies[shape], "grpc-message").find("inputs[\"IN\"].shape[1]: got 5, want 4"),
            std::string::npos);
  EXPECT_EQ(trailer(replies[good], "grpc-status"), "0");
}

TEST_F(GrpcConnectionTest, AResetStreamFreesItsCallWhenTheEngineIsThrough) {
  const auto session = connect();
  const StreamId stream =
      session->client.request(testing::grpc_request(), infer_message("slow", 4, std::string(16, 'x')));
  send(*session);
  EXPECT_EQ(loop_.counters().open_calls.get(), 1U);
  session->client.reset(stream, NGHTTP2_CANCEL);
  send(*session);
  run_until([&] { return loop_.counters().open_calls.get() == 0; });
  EXPECT_EQ(loop_.counters().open_calls.get(), 0U);
  const StreamId next =
      session->client.request(testing::grpc_request(), infer_message("echo", 4, std::string(16, 'x')));
  settle(*session, 2);
  EXPECT_EQ(trailer(session->client.replies[next], "grpc-status"), "0");
}

TEST_F(GrpcConnectionTest, AClosedConnectionLeavesNothingBehind) {
  for (int round = 0; round < 5; ++round) {
    const auto session = connect();
    for (int i = 0; i < 8; ++i) {
      session->client.request(testing::grpc_request(),
                              infer_message(i % 2 == 0 ? "slow" : "echo", 4, std::string(16, 'x')));
    }
    session->client.open(testing::grpc_request());
    send(*session);
    loop_.close(session->connection);
    EXPECT_EQ(loop_.counters().open_calls.get(), 0U);
  }
  const auto session = connect();
  const StreamId stream =
      session->client.request(testing::grpc_request(), infer_message("echo", 4, std::string(16, 'x')));
  settle(*session, 1);
  EXPECT_EQ(trailer(session->client.replies[stream], "grpc-status"), "0");
}

TEST_F(GrpcConnectionTest, KeepsTheTensorOfALargeAnswerUntilItIsSentOrTheClientLeaves) {
  LoadSpec spec = testing::identity("large");
  spec.inputs[0].shape = spec.outputs[0].shape = Shape{-1, 1 << 18};
  ASSERT_TRUE(engine_.load(spec).is_ok());
  std::string raw(1 << 20, '\0');
  for (std::size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<char>(i * 31 % 251);
  {
    const auto gone = connect();  // reads nothing, then leaves
    for (int i = 0; i < 4; ++i)
      gone->client.request(testing::grpc_request(), infer_message("large", 1 << 18, raw));
    run_until([&] {
      send(*gone);
      gone->client.feed(gone->socket.read());
      return gone->client.replies.size() == 4;
    });
    loop_.close(gone->connection);
  }
  const auto session = connect();
  const StreamId stream =
      session->client.request(testing::grpc_request(), infer_message("large", 1 << 18, raw));
  settle(*session, 1);
  EXPECT_EQ(trailer(session->client.replies[stream], "grpc-status"), "0");
  EXPECT_NE(session->client.replies[stream].body.find(raw), std::string::npos);
}

TEST_F(GrpcConnectionTest, ColdCallsAreAnsweredThroughTheLoop) {
  const auto session = connect();
  const StreamId unary = session->client.request(
      testing::grpc_request("/inference.GRPCInferenceService/ServerLive"), framed("ab"));
  send(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1U);
  EXPECT_EQ(cold[0]->target, "/inference.GRPCInferenceService/ServerLive");
  EXPECT_EQ(cold[0]->request.message.view(), "ab");
  loop_.grpc_send(*cold[0], testing::bytes("one"));
  loop_.grpc_send(*cold[0], testing::bytes("two"));
  loop_.grpc_finish(*cold[0], Code::kOk, "", {});
  loop_.done(*cold[0]);
  settle(*session, 1);
  EXPECT_EQ(session->client.replies[unary].body, framed("one") + framed("two"));
  EXPECT_EQ(trailer(session->client.replies[unary], "grpc-status"), "0");
  EXPECT_EQ(loop_.counters().open_calls.get(), 0U);
}

TEST_F(GrpcConnectionTest, AColdCallWhoseClientLeftIsToldSo) {
  const auto session = connect();
  const StreamId stream = session->client.request(
      testing::grpc_request("/inference.GRPCInferenceService/ServerLive"), framed(""));
  send(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1U);
  session->client.reset(stream, NGHTTP2_CANCEL);
  send(*session);
  EXPECT_EQ(loop_.take_cancelled(), cold);
  loop_.grpc_send(*cold[0], testing::bytes("late"));  // no-ops
  loop_.grpc_finish(*cold[0], Code::kOk, "", {});
  loop_.done(*cold[0]);
  EXPECT_EQ(loop_.counters().open_calls.get(), 0U);
}

// --- compression

Headers with(Headers headers, const Headers& more) {
  headers.insert(headers.end(), more.begin(), more.end());
  return headers;
}

const Headers kGzipBothWays{{"grpc-encoding", "gzip"}, {"grpc-accept-encoding", "identity, deflate, gzip"}};

// ModelInfer of 3,200 bytes that can be compressed, without its prefix.
std::string wide_request() { return testing::infer_request("wide", "id-1", std::string(3200, 'x')); }

class GrpcCompressionTest : public GrpcConnectionTest {
 protected:
  GrpcCompressionTest() {
    LoadSpec spec = testing::identity("wide");
    spec.inputs[0].shape = spec.outputs[0].shape = Shape{-1, -1};
    EXPECT_TRUE(engine_.load(spec).is_ok());
  }
  Reply call(const Headers& more, const std::string& body) {
    const auto session = connect();
    const StreamId stream = session->client.request(with(testing::grpc_request(), more), body);
    settle(*session, 1);
    return session->client.replies[stream];
  }
  // What the answer's message unpacks to.
  static std::string message_of(const Reply& reply) {
    const auto messages = testing::messages_of(reply.body, trailer(reply, "grpc-encoding"));
    EXPECT_EQ(messages.size(), 1U);
    return messages.empty() ? "" : messages[0];
  }
};

TEST_F(GrpcCompressionTest, ACompressedRequestIsAnsweredCompressed) {
  const Reply reply = call(kGzipBothWays, framed(packed(Compression::kGzip, wide_request()), 1));
  EXPECT_EQ(trailer(reply, "grpc-status"), "0");
  EXPECT_EQ(trailer(reply, "grpc-encoding"), "gzip");
  EXPECT_EQ(trailer(reply, "grpc-accept-encoding"), "identity,deflate,gzip");
  EXPECT_LT(reply.body.size(), 300U);
  EXPECT_NE(message_of(reply).find(std::string(3200, 'x')), std::string::npos);
}

TEST_F(GrpcCompressionTest, AClientThatCannotReadItIsAnsweredPlain) {
  for (const Headers& more : {Headers{{"grpc-encoding", "gzip"}},
                              Headers{{"grpc-encoding", "gzip"}, {"grpc-accept-encoding", "deflate"}}}) {
    const Reply reply = call(more, framed(packed(Compression::kGzip, wide_request()), 1));
    EXPECT_EQ(trailer(reply, "grpc-status"), "0");
    EXPECT_EQ(trailer(reply, "grpc-encoding"), "");
    EXPECT_GT(reply.body.size(), 3200U);
    EXPECT_EQ(reply.body[0], '\0');
  }
}

TEST_F(GrpcCompressionTest, AClientThatOnlyReadsItIsAnsweredPlainUnlessTheServerIsToldOtherwise) {
  const Headers reads{{"grpc-accept-encoding", "identity, deflate, gzip"}};
  const Reply plain = call(reads, framed(wide_request()));
  EXPECT_EQ(trailer(plain, "grpc-encoding"), "");
  EXPECT_GT(plain.body.size(), 3200U);

  IoLimits limits;
  limits.compress_answers = true;
  IoLoop loop(engine_, limits);
  Session session;
  session.connection = loop.open_grpc(session.socket.server_fd(), nullptr);
  const StreamId stream =
      session.client.request(with(testing::grpc_request(), reads), framed(wide_request()));
  const Nanos until = monotonic_now() + 10 * kSecond;
  while (!session.client.replies[stream].closed && monotonic_now() < until) {
    if (const std::string up = session.client.take(); !up.empty())
      loop.received(*session.connection, testing::bytes(up));
    loop.on_wake();
    session.client.feed(session.socket.read());
  }
  const Reply& reply = session.client.replies[stream];
  EXPECT_EQ(trailer(reply, "grpc-encoding"), "gzip");
  EXPECT_EQ(message_of(reply), message_of(plain));
}

TEST_F(GrpcCompressionTest, SmallAnswersGoUncompressed) {
  const Reply reply =
      call(kGzipBothWays,
           framed(packed(Compression::kGzip, testing::infer_request("echo", "", std::string(16, 'x'))), 1));
  EXPECT_EQ(trailer(reply, "grpc-status"), "0");
  EXPECT_EQ(reply.body[0], '\0');
}

TEST_F(GrpcCompressionTest, AnUnknownEncodingIsUnimplementedAndSaysWhatWeTake) {
  const Reply reply = call({{"grpc-encoding", "snappy"}}, framed(wide_request(), 1));
  EXPECT_EQ(trailer(reply, "grpc-status"), "12");
  EXPECT_EQ(trailer(reply, "grpc-message"), "grpc-encoding: got 'snappy', want identity, deflate or gzip");
  EXPECT_EQ(trailer(reply, "grpc-accept-encoding"), "identity,deflate,gzip");
  EXPECT_EQ(trailer(call({{"grpc-encoding", "snappy"}}, framed(wide_request())), "grpc-status"), "0");
}

TEST_F(GrpcCompressionTest, CorruptDataAndBombsAreTheClientsFault) {
  EXPECT_EQ(trailer(call(kGzipBothWays, framed("no gzip", 1)), "grpc-status"), "3");
  EXPECT_EQ(trailer(call(kGzipBothWays, framed(packed(Compression::kGzip, wide_request()).substr(0, 40), 1)),
                    "grpc-status"),
            "3");
  const std::string bomb = packed(Compression::kGzip, std::string((std::size_t{64} << 20) + 1, '\0'));
  const Reply reply = call(kGzipBothWays, framed(bomb, 1));
  EXPECT_EQ(trailer(reply, "grpc-status"), "8");
  EXPECT_NE(trailer(reply, "grpc-message").find("67108864"), std::string::npos);
}

TEST_F(GrpcCompressionTest, ColdCallsSeeAndSendPlainMessages) {
  const auto session = connect();
  const StreamId stream = session->client.request(
      with(testing::grpc_request("/inference.GRPCInferenceService/ModelConfig"), kGzipBothWays),
      framed(packed(Compression::kGzip, "ab"), 1));
  send(*session);
  const std::vector<Call*> cold = loop_.take_cold();
  ASSERT_EQ(cold.size(), 1U);
  EXPECT_EQ(cold[0]->request.message.view(), "ab");
  const std::string large(5000, 'y');
  loop_.grpc_send(*cold[0], testing::bytes("small"));
  loop_.grpc_send(*cold[0], testing::bytes(large));
  loop_.grpc_finish(*cold[0], Code::kOk, "", {});
  loop_.done(*cold[0]);
  settle(*session, 1);
  const Reply& reply = session->client.replies[stream];
  EXPECT_EQ(trailer(reply, "grpc-status"), "0");
  EXPECT_LT(reply.body.size(), 300U);
  EXPECT_EQ(testing::messages_of(reply.body, "gzip"), (std::vector<std::string>{"small", large}));
}

TEST_F(GrpcConnectionTest, WhatWeTakeIsAnnouncedOncePerConnection) {
  const auto session = connect();
  std::vector<StreamId> streams;
  for (int i = 0; i < 3; ++i) {
    streams.push_back(
        session->client.request(testing::grpc_request(), infer_message("echo", 4, std::string(16, 'x'))));
    settle(*session, streams.size());
  }
  EXPECT_EQ(trailer(session->client.replies[streams[0]], "grpc-accept-encoding"), "identity,deflate,gzip");
  EXPECT_EQ(trailer(session->client.replies[streams[1]], "grpc-accept-encoding"), "");
}

// --- keep-alive

TEST_F(GrpcConnectionTest, ASilentPeerIsAskedAndThenClosed) {
  IoLimits limits;
  limits.keepalive_time_ns = 30 * kMillisecond;
  limits.keepalive_timeout_ns = 30 * kMillisecond;
  IoLoop loop(engine_, limits);
  Session answering;
  Session silent;
  for (Session* each : {&answering, &silent})
    each->connection = loop.open_grpc(each->socket.server_fd(), nullptr);
  const Nanos until = monotonic_now() + 10 * kSecond;
  while (!silent.connection->finished() && monotonic_now() < until) {
    ::poll(nullptr, 0, 5);
    loop.tick();
    answering.client.feed(answering.socket.read());
    if (const std::string up = answering.client.take(); !up.empty()) {
      loop.received(*answering.connection, testing::bytes(up));
    }
  }
  EXPECT_TRUE(silent.connection->finished());
  EXPECT_FALSE(answering.connection->finished());
  EXPECT_GT(answering.client.pings, 0);
}

TEST_F(GrpcConnectionTest, APeerThatNeverGreetsIsClosed) {
  IoLimits limits;
  limits.preface_timeout_ns = 50 * kMillisecond;
  IoLoop loop(engine_, limits);
  Session greeting;
  Session silent;
  Session slow;
  for (Session* each : {&greeting, &silent, &slow})
    each->connection = loop.open_grpc(each->socket.server_fd(), nullptr);
  loop.received(*greeting.connection, testing::bytes(greeting.client.take()));
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const Nanos began = monotonic_now();
  std::size_t sent = 0;
  while (!(silent.connection->finished() && slow.connection->finished()) &&
         monotonic_now() < began + 10 * kSecond) {
    EXPECT_LT(sent, preface.size());
    loop.received(*slow.connection, testing::bytes(preface.substr(sent++, 1)));  // a byte now and then
    ::poll(nullptr, 0, 5);
    loop.tick();
  }
  EXPECT_GE(monotonic_now() - began, limits.preface_timeout_ns);
  EXPECT_TRUE(silent.connection->finished());
  EXPECT_TRUE(slow.connection->finished());
  EXPECT_FALSE(greeting.connection->finished());
  EXPECT_EQ(loop.counters().refused_by_code[static_cast<std::size_t>(Code::kDeadlineExceeded)].get(), 2U);
}

TEST_F(GrpcConnectionTest, APeerThatSpeaksNoHttp2IsClosedEvenIfItReadsNothing) {
  const auto session = connect();
  loop_.received(*session->connection, testing::bytes("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_TRUE(session->connection->finished());
}

}  // namespace
}  // namespace fastserve
