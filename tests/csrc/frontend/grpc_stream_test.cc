// ModelStreamInfer through the front end: order, errors, limits, ends. An nghttp2 client on a socket pair, a real engine.
#include "frontend/grpc_stream.h"

#include "frontend/grpc_client.h"

namespace fastserve {
namespace {

using testing::Client;
using testing::framed;
using testing::FrontendTest;
using testing::Headers;
using testing::infer_request;
using testing::Peer;
using testing::Reply;
using testing::stream_answers;
using testing::StreamAnswer;
using testing::trailer;

constexpr std::size_t kMaxRequests = 8;  // per stream, in these tests
constexpr std::size_t kMaxMessage = 4096;
const std::string kRow(16, 'x');

class GrpcStreamTest : public FrontendTest {
 protected:
  GrpcStreamTest() : io_(engine_, limits()) { session_ = io_.open_grpc(peer_.server_fd(), nullptr); }
  // One request at a time, 50 ms each.
  void load_single() {
    LoadSpec spec = testing::identity("single", {{"execute_delay_us", "50000"}});
    spec.max_batch_rows = 1;
    ASSERT_TRUE(engine_.load(spec).is_ok());
  }
  void until_waiting(std::int64_t count) {
    until([&] {
      const auto statistics = engine_.statistics("single", 1);
      return statistics->pending == count && statistics->in_flight == count + 1;
    });
  }
  static IoLimits limits() {
    IoLimits out;
    out.max_stream_requests = kMaxRequests;
    out.max_message_bytes = kMaxMessage;
    return out;
  }

  StreamId open(const Headers& more = {}) {
    Headers headers = testing::grpc_request("/inference.GRPCInferenceService/ModelStreamInfer");
    headers.insert(headers.end(), more.begin(), more.end());
    return client_.stream(headers);
  }
  void ask(StreamId stream, std::string_view model, std::string_view id, const std::string& raw = kRow) {
    client_.send(stream, framed(infer_request(model, id, raw)));
  }
  // Both ways, once.
  void exchange() {
    const std::string up = client_.take();
    if (!up.empty()) io_.received(*session_, testing::bytes(up));
    client_.feed(peer_.read());
    for (Connection* each : io_.take_attention()) {
      if (each->stalled()) io_.writable(*each);
    }
  }
  template <class Done>
  void until(Done done) {
    const Nanos limit = monotonic_now() + 10 * kSecond;
    for (exchange(); !done() && monotonic_now() < limit; exchange()) {
      pollfd ready{io_.event_fd(), POLLIN, 0};
      if (::poll(&ready, 1, 10) > 0) io_.on_wake();
    }
  }
  void until_answers(StreamId stream, std::size_t count) {
    until([&] { return answers(stream).size() >= count; });
  }
  void until_closed(StreamId stream) {
    until([&] { return client_.replies[stream].closed; });
  }
  std::vector<StreamAnswer> answers(StreamId stream) { return stream_answers(client_.replies[stream]); }
  std::string status(StreamId stream) { return trailer(client_.replies[stream], "grpc-status"); }
  std::string words(StreamId stream) { return trailer(client_.replies[stream], "grpc-message"); }
  std::uint64_t open_calls() const { return io_.counters().open_calls.get(); }

  IoLoop io_;
  Peer peer_;
  Client client_;
  Connection* session_ = nullptr;
};

TEST_F(GrpcStreamTest, AnswersEachMessageAndEndsWhenTheClientDoes) {
  const StreamId stream = open();
  for (int i = 0; i < 5; ++i) {
    const std::string raw(16, static_cast<char>('a' + i));
    ask(stream, "echo", "id-" + std::to_string(i), raw);
    until_answers(stream, static_cast<std::size_t>(i) + 1);  // ping-pong: nothing waits for the half-close
    const StreamAnswer last = answers(stream).back();
    EXPECT_EQ(last.error, "");
    EXPECT_EQ(last.model, "echo");
    EXPECT_EQ(last.id, "id-" + std::to_string(i));
    EXPECT_EQ(last.raw, raw);
    EXPECT_TRUE(last.final);
  }
  EXPECT_FALSE(client_.replies[stream].closed);
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(status(stream), "0");
  EXPECT_EQ(answers(stream).size(), 5U);
  EXPECT_EQ(open_calls(), 0U);
}

TEST_F(GrpcStreamTest, HalfCloseWaitsForTheAnswers) {
  const StreamId stream = open();
  for (int i = 0; i < 3; ++i) ask(stream, "slow", std::to_string(i));
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), 3U);
  EXPECT_EQ(status(stream), "0");
}

TEST_F(GrpcStreamTest, AnEmptyStreamIsOk) {
  const StreamId stream = open();
  exchange();
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(status(stream), "0");
  EXPECT_TRUE(client_.replies[stream].body.empty());
  EXPECT_EQ(open_calls(), 0U);
}

TEST_F(GrpcStreamTest, AnswersComeInTheOrderOfTheRequests) {
  const StreamId stream = open();
  ask(stream, "slow", "0");
  ask(stream, "echo", "1");
  ask(stream, "nobody", "2");  // refused at once, and still third
  ask(stream, "slow", "3");
  ask(stream, "echo", "4");
  client_.finish(stream);
  until_closed(stream);
  const auto got = answers(stream);
  ASSERT_EQ(got.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(got[i].id, std::to_string(i));
  EXPECT_NE(got[2].error, "");
}

TEST_F(GrpcStreamTest, RequestsOfOneStreamRunAtTheSameTime) {
  const StreamId stream = open();
  const Nanos start = monotonic_now();
  for (int i = 0; i < 8; ++i) ask(stream, "slow", std::to_string(i));  // 50 ms a batch of up to 8
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), 8U);
  EXPECT_LT(monotonic_now() - start, 4 * 50 * kMillisecond);
}

TEST_F(GrpcStreamTest, MessagesInEveryCut) {
  std::string wire;
  for (int i = 0; i < 6; ++i) wire += framed(infer_request("echo", std::to_string(i), kRow));
  const StreamId stream = open();
  for (const char& c : wire) {
    client_.send(stream, {&c, 1});
    exchange();
  }
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), 6U);
  EXPECT_EQ(status(stream), "0");
}

// --- errors

TEST_F(GrpcStreamTest, ErrorsTravelInTheAnswerAndTheStreamGoesOn) {
  const StreamId stream = open();
  ask(stream, "nobody", "a");
  client_.send(stream, framed("\xFF\xFF not protobuf"));
  client_.send(stream, framed(""));
  ask(stream, "echo", "b", std::string(20, 'x'));
  ask(stream, "echo", "c");
  client_.finish(stream);
  until_closed(stream);
  const auto got = answers(stream);
  ASSERT_EQ(got.size(), 5U);
  EXPECT_EQ(got[0].error, "[request id: a] Request for unknown model: 'nobody' is not found");
  EXPECT_EQ(got[0].id, "a");
  EXPECT_TRUE(got[0].final);
  EXPECT_NE(got[1].error.find("malformed protobuf"), std::string::npos) << got[1].error;
  EXPECT_EQ(got[2].error, "[request id: <id_unknown>] Request for unknown model: '' is not found");
  EXPECT_NE(got[3].error.find("inputs[\"IN\"].shape[1]: got 5, want 4"), std::string::npos);
  EXPECT_EQ(got[4].error, "");
  EXPECT_EQ(got[4].raw, kRow);
  EXPECT_EQ(status(stream), "0");
  EXPECT_EQ(io_.counters().refused_by_code[static_cast<std::size_t>(Code::kNotFound)].get(), 2U);
}

TEST_F(GrpcStreamTest, WithTritonGrpcErrorTheFirstErrorEndsTheStreamWithItsStatus) {
  const StreamId stream = open({{"triton_grpc_error", "true"}});
  ask(stream, "echo", "a");
  ask(stream, "nobody", "b");
  ask(stream, "slow", "c");
  until_closed(stream);
  const auto got = answers(stream);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].id, "a");
  EXPECT_EQ(status(stream), "5");
  EXPECT_EQ(words(stream), "[request id: b] Request for unknown model: 'nobody' is not found");
  until([&] { return open_calls() == 0; });
  EXPECT_EQ(open_calls(), 0U);
}

TEST_F(GrpcStreamTest, TritonGrpcErrorOfAnotherValueIsNoSwitch) {
  const StreamId stream = open({{"triton_grpc_error", "false"}});
  ask(stream, "nobody", "b");
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), 1U);
  EXPECT_EQ(status(stream), "0");
}

TEST_F(GrpcStreamTest, ABrokenFrameEndsTheStreamWithGrpcsCode) {
  const StreamId bad_flag = open();
  ask(bad_flag, "slow", "a");
  client_.send(bad_flag, framed("x", 2));
  const StreamId cut = open();
  client_.send(cut, framed("abc").substr(0, 6));
  client_.finish(cut);
  const StreamId prefix = open();
  client_.send(prefix, "\0\0");
  client_.send(prefix, std::string("\0", 1));
  client_.finish(prefix);
  for (const StreamId each : {bad_flag, cut, prefix}) {
    until_closed(each);
    EXPECT_EQ(status(each), "13") << words(each);
  }
  until([&] { return open_calls() == 0; });
  EXPECT_EQ(open_calls(), 0U);
}

// --- limits

TEST_F(GrpcStreamTest, MessagesUpToTheLimitAndNotBeyond) {
  const std::size_t overhead = infer_request("echo", "", std::string(2048, 'x')).size() - 2048;
  for (const std::size_t size : {kMaxMessage - 1, kMaxMessage, kMaxMessage + 1}) {
    const StreamId stream = open();
    ask(stream, "echo", "", std::string(size - overhead, 'x'));
    client_.finish(stream);
    until_closed(stream);
    if (size <= kMaxMessage) {  // of the wrong shape, but taken
      EXPECT_EQ(answers(stream).size(), 1U);
      EXPECT_EQ(status(stream), "0");
    } else {
      EXPECT_EQ(answers(stream).size(), 0U);
      EXPECT_EQ(status(stream), "8");
      EXPECT_EQ(words(stream), "message too large: got 4097 bytes, limit 4096");
    }
  }
}

// At the limit the stream is held: nothing is refused, what comes beyond it is taken when an answer has left.
TEST_F(GrpcStreamTest, RequestsInWorkAreLimitedByHoldingTheStream) {
  for (const std::size_t count : {kMaxRequests - 1, kMaxRequests, kMaxRequests + 1, 5 * kMaxRequests}) {
    const StreamId stream = open();
    for (std::size_t i = 0; i < count; ++i) ask(stream, "slow", std::to_string(i));
    exchange();
    EXPECT_EQ(open_calls(), 1 + std::min(count, kMaxRequests)) << count;  // the RPC itself is one
    client_.finish(stream);
    until_closed(stream);
    const auto got = answers(stream);
    ASSERT_EQ(got.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(got[i].id, std::to_string(i));
      EXPECT_EQ(got[i].error, "");
    }
    EXPECT_EQ(status(stream), "0");
    EXPECT_EQ(open_calls(), 0U);
  }
}

TEST_F(GrpcStreamTest, AHeldStreamStopsItsClientAndAnswersAllInTheEnd) {
  const StreamId stream = open();
  exchange();
  std::string wire;
  const std::string raw(3200, 'x');  // of the wrong shape: cheap to answer, but only in its turn
  ask(stream, "slow", "first");
  constexpr std::size_t kCount = 1000;
  for (std::size_t i = 0; i < kCount; ++i) wire += framed(infer_request("echo", std::to_string(i), raw));
  client_.send(stream, wire);
  client_.finish(stream);
  for (int i = 0; i < 5; ++i) exchange();  // without a wake: the first is not answered yet
  EXPECT_EQ(open_calls(), 1 + kMaxRequests);
  EXPECT_GT(client_.unsent(stream), wire.size() / 2);  // 3.2 MB, of which a window of 1 MiB may be under way
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), kCount + 1);
  EXPECT_EQ(status(stream), "0");
}

TEST_F(GrpcStreamTest, AClientThatReadsNothingIsHeld) {
  LoadSpec spec = testing::identity("wide");
  spec.inputs[0].shape = spec.outputs[0].shape = Shape{-1, -1};
  ASSERT_TRUE(engine_.load(spec).is_ok());
  const StreamId stream = open();
  exchange();
  std::string wire;
  const std::string raw(4000, 'x');
  constexpr std::size_t kCount = 2000;
  for (std::size_t i = 0; i < kCount; ++i) wire += framed(infer_request("wide", std::to_string(i), raw));
  client_.send(stream, wire);
  client_.finish(stream);
  std::string unread;
  const auto no_reading = [&] {  // the client reads no answer, and so gives no window back
    for (int i = 0; i < 100; ++i) {
      const std::string up = client_.take();
      if (!up.empty()) io_.received(*session_, testing::bytes(up));
      unread += peer_.read();
      pollfd ready{io_.event_fd(), POLLIN, 0};
      if (::poll(&ready, 1, 5) > 0) io_.on_wake();
    }
  };
  no_reading();
  EXPECT_GT(client_.unsent(stream), wire.size() / 2);
  EXPECT_LT(io_.counters().bytes_received.get(), 4U << 20);
  client_.feed(unread);
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), kCount);
  EXPECT_EQ(status(stream), "0");
}

// --- ends

TEST_F(GrpcStreamTest, ResetCancelsAllRequestsOfTheStream) {
  load_single();
  const StreamId stream = open();
  for (std::size_t i = 0; i < kMaxRequests; ++i) ask(stream, "single", std::to_string(i));
  until_waiting(kMaxRequests - 1);
  EXPECT_EQ(open_calls(), 1 + kMaxRequests);
  client_.reset(stream, NGHTTP2_CANCEL);
  until([&] { return open_calls() == 0; });
  EXPECT_EQ(open_calls(), 0U);
  const auto statistics = engine_.statistics("single", 1);
  ASSERT_TRUE(statistics.is_ok());
  EXPECT_EQ(statistics->pending, 0);
  EXPECT_EQ(statistics->cancel.count, kMaxRequests - 1);  // all but the one that ran
  const StreamId next = open();
  ask(next, "echo", "x");
  until_answers(next, 1);
  EXPECT_EQ(answers(next).size(), 1U);
}

TEST_F(GrpcStreamTest, AClosedConnectionCancelsAllRequests) {
  for (int i = 0; i < 3; ++i) {
    const StreamId stream = open();
    for (int k = 0; k < 12; ++k) ask(stream, "slow", std::to_string(k));
  }
  exchange();
  io_.close(session_);
  EXPECT_EQ(open_calls(), 0U);
  session_ = nullptr;
}

TEST_F(GrpcStreamTest, TheDeadlineOfTheStreamIsTheDeadlineOfItsRequests) {
  load_single();
  const StreamId stream = open({{"grpc-timeout", "40m"}});
  ask(stream, "single", "a");
  ask(stream, "single", "b");
  until_closed(stream);
  EXPECT_EQ(status(stream), "4");
  EXPECT_EQ(words(stream), "Deadline Exceeded");
  until([&] { return open_calls() == 0; });
  EXPECT_EQ(open_calls(), 0U);
}

TEST_F(GrpcStreamTest, TheDeadlineEndsAnIdleStream) {
  const StreamId stream = open({{"grpc-timeout", "10m"}});
  exchange();
  const Nanos from = monotonic_now();
  until([&] { return monotonic_now() - from > 20 * kMillisecond; });
  io_.tick();
  until_closed(stream);
  EXPECT_EQ(status(stream), "4");
  EXPECT_EQ(open_calls(), 0U);
}

TEST_F(GrpcStreamTest, ABadTimeoutIsRefused) {
  const StreamId stream = open({{"grpc-timeout", "soon"}});
  until_closed(stream);
  EXPECT_EQ(status(stream), "3");
}

TEST_F(GrpcStreamTest, TheTimeoutParameterOfOneRequestIsItsOwnError) {
  load_single();
  const StreamId stream = open();
  ask(stream, "single", "a");
  until_waiting(0);
  client_.send(stream, framed(infer_request("single", "b", kRow, [](testing::pbf_writer& w) {
                 testing::parameter(w, 4, "timeout",
                                    [](testing::pbf_writer& value) { value.add_int64(2, 1000); });
               })));
  client_.finish(stream);
  until_closed(stream);
  const auto got = answers(stream);
  ASSERT_EQ(got.size(), 2U);
  EXPECT_EQ(got[0].error, "");
  EXPECT_EQ(got[1].error, "[request id: b] Request timeout expired");
  EXPECT_EQ(status(stream), "0");
}

TEST_F(GrpcStreamTest, DrainAnswersWhatIsInAndEndsUnavailable) {
  const StreamId busy = open();
  ask(busy, "slow", "a");
  ask(busy, "slow", "b");
  client_.send(busy, framed("half").substr(0, 7));
  const StreamId idle = open();
  exchange();
  io_.shutdown();
  ask(busy, "echo", "too late");
  until_closed(busy);
  until_closed(idle);
  const auto got = answers(busy);
  ASSERT_EQ(got.size(), 2U);
  EXPECT_EQ(got[0].error, "");
  EXPECT_EQ(got[1].error, "");
  EXPECT_EQ(status(busy), "14");
  EXPECT_EQ(words(busy), "the server is shutting down");
  EXPECT_EQ(status(idle), "14");
  EXPECT_FALSE(client_.goaways.empty());
  EXPECT_EQ(open_calls(), 0U);
}

TEST_F(GrpcStreamTest, DrainLetsAHalfClosedStreamEndOk) {
  const StreamId stream = open();
  ask(stream, "slow", "a");
  client_.finish(stream);
  exchange();
  io_.shutdown();
  until_closed(stream);
  EXPECT_EQ(answers(stream).size(), 1U);
  EXPECT_EQ(status(stream), "0");
}

// --- compression

TEST_F(GrpcStreamTest, CompressedMessagesBothWays) {
  LoadSpec spec = testing::identity("wide");
  spec.inputs[0].shape = spec.outputs[0].shape = Shape{-1, -1};
  ASSERT_TRUE(engine_.load(spec).is_ok());
  const StreamId stream =
      open({{"grpc-encoding", "gzip"}, {"grpc-accept-encoding", "identity, deflate, gzip"}});
  const std::string raw(3200, 'x');
  client_.send(stream, framed(testing::packed(Compression::kGzip, infer_request("wide", "a", raw)), 1));
  client_.send(stream, framed(infer_request("echo", "b", kRow)));  // a message may go uncompressed
  client_.finish(stream);
  until_closed(stream);
  EXPECT_EQ(trailer(client_.replies[stream], "grpc-encoding"), "gzip");
  EXPECT_LT(client_.replies[stream].body.size(), 400U);
  const auto got = answers(stream);
  ASSERT_EQ(got.size(), 2U);
  EXPECT_EQ(got[0].raw, raw);
  EXPECT_EQ(got[1].raw, kRow);
}

TEST_F(GrpcStreamTest, ABombEndsTheStream) {
  const StreamId stream = open({{"grpc-encoding", "deflate"}});
  ask(stream, "slow", "a");
  client_.send(stream, framed(testing::packed(Compression::kDeflate, std::string(1 << 20, '\0')), 1));
  until_closed(stream);
  EXPECT_EQ(status(stream), "8");
}

}  // namespace
}  // namespace fastserve
