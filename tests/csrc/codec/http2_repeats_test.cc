// Clients repeat their headers and we repeat ours: what is recognised, and that no peer's HPACK table gets out of step.
#include <gtest/gtest.h>

#include <string>

#include "http2_client.h"

namespace fastserve {
namespace {

using testing::Client;
using testing::exchange;
using testing::grpc_request;
using testing::Headers;
using testing::RawFrames;
using testing::Recorder;
using testing::written;

constexpr std::size_t kFrameHead = 9;
const Headers kOk{{"grpc-status", "0"}};

OutMessage message_of(std::string_view text) {
  OutMessage message;
  message.own.append(text);
  return message;
}

struct Frame {
  std::uint8_t type;
  std::uint8_t flags;
  std::string payload;
};

std::vector<Frame> frames_of(const std::string& bytes) {
  std::vector<Frame> out;
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t size = static_cast<std::size_t>(byte(at) << 16 | byte(at + 1) << 8 | byte(at + 2));
    out.push_back({byte(at + 3), byte(at + 4), bytes.substr(at + kFrameHead, size)});
    at += kFrameHead + size;
  }
  return out;
}

// A server that answers with its request's body; `trailers` of the next answer.
class Repeats : public ::testing::Test {
 protected:
  Repeats() {
    events.when_end = [this](StreamId stream) {
      session.respond(stream, kGrpcOkHeaders, message_of(events.streams[stream].body), trailers);
    };
  }
  // One call; the bytes of its answer.
  std::string call(std::string body = "body", const Headers& headers = grpc_request()) {
    id = client.request(headers, std::move(body));
    EXPECT_TRUE(session.feed(testing::as_bytes(client.take()), 0).is_ok());
    std::string down = written(session);
    client.feed(down);
    return down;
  }
  void settle() { exchange(client, session); }
  void expect_ok(const std::string& body = "body") {
    const auto& reply = client.replies.at(id);
    EXPECT_EQ(reply.body, body);
    EXPECT_EQ(reply.trailers, kOk);
    EXPECT_TRUE(reply.ended);
    EXPECT_TRUE(reply.closed);
    EXPECT_EQ(reply.error, 0U);
    EXPECT_EQ(events.streams.at(id).closed, 1);
    EXPECT_EQ(events.streams.at(id).error, Http2Error::kNoError);
    EXPECT_EQ(session.open_streams(), 0U);
  }

  std::span<const Http2Header> trailers = kGrpcOkTrailers;
  Recorder events;
  Http2Session session{events};
  Client client;
  StreamId id = 0;
};

TEST_F(Repeats, AnswersAreThreeFramesTheLastOfOneByte) {
  settle();
  for (int i = 0; i < 5; ++i) {
    const auto frames = frames_of(call());
    ASSERT_EQ(frames.size(), 3U) << i;
    EXPECT_EQ(frames[0].type, NGHTTP2_HEADERS);
    EXPECT_EQ(frames[0].flags, NGHTTP2_FLAG_END_HEADERS);
    EXPECT_EQ(frames[1].type, NGHTTP2_DATA);
    EXPECT_EQ(frames[1].flags, 0);
    EXPECT_EQ(frames[2].type, NGHTTP2_HEADERS);
    EXPECT_EQ(frames[2].flags, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM);
    if (i > 0) {
      EXPECT_EQ(frames[2].payload.size(), 1U) << i;
    }
    expect_ok();
  }
}

TEST_F(Repeats, OtherHeadersBetweenMoveTheTableAndAreNoticed) {
  for (int i = 0; i < 200; ++i) {
    call();
    expect_ok();
    if (i % 3 != 0) continue;
    // A new entry in the peer's table, which moves all others; long ones push the old entries out in time.
    const std::string value = std::to_string(i) + std::string(i % 2 == 0 ? 700 : 0, 'v');
    const Http2Header with[] = {{"grpc-status", "0"}, {"x-number", value}};
    trailers = with;
    call();
    EXPECT_EQ(client.replies.at(id).trailers, (Headers{{"grpc-status", "0"}, {"x-number", value}}));
    trailers = kGrpcOkTrailers;
  }
}

TEST_F(Repeats, AClientThatShrinksItsTableIsToldSo) {
  for (const std::uint32_t size : {4096U, 0U, 4096U, 100U, 45U, 0U, 4096U}) {
    const nghttp2_settings_entry table{NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, size};
    ASSERT_EQ(nghttp2_submit_settings(client.raw(), NGHTTP2_FLAG_NONE, &table, 1), 0);
    for (int i = 0; i < 4; ++i) {
      call();
      expect_ok();
    }
    settle();
  }
  EXPECT_TRUE(client.goaways.empty());
}

TEST_F(Repeats, AnEmptyMessageKeepsItsTrailers) {
  for (int i = 0; i < 4; ++i) {
    call("");
    expect_ok("");
    call();
    expect_ok();
  }
}

TEST_F(Repeats, LargeAnswersEndBehindTheirLastByte) {
  for (int i = 0; i < 4; ++i) {
    const std::string body(300'000 + static_cast<std::size_t>(i), 'x');
    call(body);
    settle();  // the client's window opens bit by bit
    expect_ok(body);
  }
}

TEST_F(Repeats, AnAnswerBeforeTheRequestsEndStillResetsIt) {
  for (int i = 0; i < 4; ++i) {
    call();
    expect_ok();
  }
  id = client.stream(grpc_request());
  settle();
  session.respond(id, kGrpcOkHeaders, message_of("early"), kGrpcOkTrailers);
  const auto frames = frames_of(written(session));
  ASSERT_EQ(frames.size(), 4U);
  EXPECT_EQ(frames[2].payload.size(), 1U);
  EXPECT_EQ(frames[3].type, NGHTTP2_RST_STREAM);
  EXPECT_EQ(frames[3].payload, std::string(4, '\0'));
}

TEST_F(Repeats, HighWaterBetweenAnswersLosesNothing) {
  Recorder tight_events;
  Http2Limits limits;
  limits.write_high_water_bytes = 10;
  Http2Session tight(tight_events, limits);
  tight_events.when_end = [&](StreamId stream) {
    tight.respond(stream, kGrpcOkHeaders, message_of(tight_events.streams[stream].body), kGrpcOkTrailers);
  };
  Client peer;
  std::vector<StreamId> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(peer.request(grpc_request(), std::to_string(i)));
  exchange(peer, tight);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(peer.replies.at(ids[i]).body, std::to_string(i));
    EXPECT_EQ(peer.replies.at(ids[i]).trailers, kOk);
    EXPECT_TRUE(peer.replies.at(ids[i]).closed);
  }
}

// --- requests

// As gRPC's own clients encode: each field enters the table the first time and is one index from then on. (nghttp2 never
// indexes :path.) Good for 60 fields.
class IndexingEncoder {
 public:
  std::string block(const Headers& headers) {
    std::string out;
    for (const auto& field : headers) {
      const auto at = std::find(newest_last_.begin(), newest_last_.end(), field);
      if (at != newest_last_.end()) {
        out += static_cast<char>(0x80 | (61 + (newest_last_.end() - at)));
        continue;
      }
      out += '\x40' + text(field.first) + text(field.second);
      newest_last_.push_back(field);
    }
    return out;
  }
  static std::string text(const std::string& s) {  // not Huffman-coded
    if (s.size() < 127) return static_cast<char>(s.size()) + s;
    const std::size_t rest = s.size() - 127;
    return std::string{'\x7f', static_cast<char>(0x80 | (rest & 0x7f)), static_cast<char>(rest >> 7)} + s;
  }

 private:
  Headers newest_last_;
};

class RepeatedHeads : public ::testing::Test {
 protected:
  struct Heads : Recorder {
    std::vector<bool> repeated;
    void on_request(StreamId id, const Http2Head& head) override {
      repeated.push_back(head.repeated);
      Recorder::on_request(id, head);
    }
  };
  RepeatedHeads() { feed(RawFrames::preface()); }
  void feed(const std::string& bytes) {
    ASSERT_TRUE(session.feed(testing::as_bytes(bytes), 0).is_ok()) << session.status().message();
  }
  StreamId begin(const std::string& block, std::uint8_t flags) {
    next += 2;
    feed(RawFrames::frame(NGHTTP2_HEADERS, flags | NGHTTP2_FLAG_END_HEADERS, next, block));
    return next;
  }
  void request(const Headers& headers) { answer(begin(encoder.block(headers), NGHTTP2_FLAG_END_STREAM)); }
  void answer(StreamId id) {
    session.respond(id, kGrpcOkHeaders, message_of("y"), kGrpcOkTrailers);
    written(session);
    EXPECT_EQ(events.streams.at(id).closed, 1);
  }
  const Headers& last() const { return events.streams.rbegin()->second.head; }

  Heads events;
  Http2Session session{events};
  IndexingEncoder encoder;
  StreamId next = -1;
};

TEST_F(RepeatedHeads, AreKnownFromTheSecondOn) {
  for (int i = 0; i < 4; ++i) {
    request(grpc_request());
    EXPECT_EQ(events.repeated.back(), i > 0);
    EXPECT_EQ(last()[1].second, "/inference.GRPCInferenceService/ModelInfer");
    EXPECT_EQ(last().back(), (std::pair<std::string, std::string>("user-agent", "test")));
    EXPECT_EQ(last().size(), 7U);
  }
}

TEST_F(RepeatedHeads, OneMoreOneLessOrAnotherValueIsAnotherHead) {
  Headers more = grpc_request();
  more.emplace_back("x-more", "1");
  Headers other = more;
  other.back().second = "2";
  Headers swapped = grpc_request();
  std::swap(swapped[5], swapped[6]);
  const std::vector<Headers> kinds{grpc_request(), more, other, swapped, grpc_request("/other")};
  for (const Headers& kind : kinds) request(kind);  // all in the table
  std::mt19937 random(5);
  std::size_t before = kinds.size() - 1;
  for (int i = 0; i < 500; ++i) {
    const std::size_t kind = random() % kinds.size();
    request(kinds[kind]);
    EXPECT_EQ(events.repeated.back(), kind == before);
    EXPECT_EQ(last()[1].second, kinds[kind][2].second);
    ASSERT_EQ(last().size(), kinds[kind].size());
    for (std::size_t k = 4; k < kinds[kind].size(); ++k) EXPECT_EQ(last()[k], kinds[kind][k]);
    before = kind;
  }
}

TEST_F(RepeatedHeads, LiteralsAreNeverTakenForOld) {
  for (int i = 0; i < 500; ++i) {  // in no table: new memory each time, often where the last but one lay
    const std::string path = "/p" + std::to_string(i % 10);
    std::string block = "\x83\x86";  // :method POST, :scheme http
    for (const auto& [name, value] : Headers{{":path", path}, {":authority", "a"}}) {
      block += '\x10' + IndexingEncoder::text(name) + IndexingEncoder::text(value);
    }
    answer(begin(block, NGHTTP2_FLAG_END_STREAM));
    EXPECT_EQ(last()[1].second, path);
    EXPECT_FALSE(events.repeated.back());
  }
}

TEST_F(RepeatedHeads, TrailersOfTheRequestChangeNothing) {
  request(grpc_request());
  const StreamId id = begin(encoder.block(grpc_request()), 0);
  const std::string trailers = encoder.block({{"x-trailer", "1"}, {"x-other", "2"}});
  feed(RawFrames::frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_END_HEADERS, id, trailers));
  EXPECT_EQ(events.streams.at(id).ends, 1);
  answer(id);
  request(grpc_request());
  EXPECT_EQ(events.repeated, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(last().size(), 7U);
}

TEST_F(RepeatedHeads, ASectionThatWasRefusedIsNotTheLastOne) {
  request(grpc_request("/first"));
  Headers second = grpc_request("/second");
  for (int i = 0; i < 3; ++i) {
    // Its last field is not lower-case: the stream is reset before anybody hears of it.
    begin(encoder.block(second) + '\x10' + IndexingEncoder::text("X-Upper") + IndexingEncoder::text("1"),
          NGHTTP2_FLAG_END_STREAM);
    written(session);
    EXPECT_EQ(events.streams.contains(next), false);
    request(second);  // the same fields without it
    EXPECT_EQ(last()[1].second, second[2].second);
    EXPECT_EQ(events.repeated.back(), false);
    request(second);
    EXPECT_EQ(events.repeated.back(), true);
    second = grpc_request("/number/" + std::to_string(i));
  }
}

TEST_F(RepeatedHeads, ARefusedSectionOfTheSameBeginningChangesNothing) {
  request(grpc_request());
  Headers cut = grpc_request();
  cut.resize(3);  // without :authority, which is no fault, but with a connection header, which is one
  begin(encoder.block(cut) + '\x10' + IndexingEncoder::text("connection") + IndexingEncoder::text("close"),
        NGHTTP2_FLAG_END_STREAM);
  written(session);
  request(grpc_request());
  EXPECT_EQ(events.repeated, (std::vector<bool>{false, true}));
  EXPECT_EQ(last()[2].second, "localhost:8001");
}

TEST_F(RepeatedHeads, LargeOnesAreReadAnewEachTime) {
  const std::string large(10'000, 'l');
  for (int i = 0; i < 3; ++i) {
    answer(begin(encoder.block(grpc_request()) + '\x10' + IndexingEncoder::text("x-large") +
                     IndexingEncoder::text(large),
                 NGHTTP2_FLAG_END_STREAM));
    EXPECT_EQ(last().size(), 8U);
    EXPECT_EQ(last().back().second, large);
  }
  request(grpc_request());
  request(grpc_request());
  EXPECT_EQ(events.repeated, (std::vector<bool>{false, false, false, false, true}));
}

}  // namespace
}  // namespace fastserve
