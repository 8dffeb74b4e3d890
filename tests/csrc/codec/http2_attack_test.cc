// One hostile connection against Http2Session, frame by frame, in virtual time: every flood ends in GOAWAY ENHANCE_YOUR_CALM
// within its allowance (reliability: R5), one event below it does not.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>
#include <string>

#include "codec/http2_session.h"
#include "http2_client.h"

namespace fastserve {
namespace {

using testing::grpc_request;
using testing::Headers;
using testing::RawFrames;
using testing::Recorder;
using testing::written;

constexpr std::uint8_t kEndHeaders = NGHTTP2_FLAG_END_HEADERS;

// The error code of the last GOAWAY in `wire`, -1 without one.
std::int64_t goaway_code(std::string_view wire) {
  std::int64_t code = -1;
  const auto u = [&](std::size_t at) { return static_cast<unsigned char>(wire[at]); };
  for (std::size_t at = 0; at + 9 <= wire.size();) {
    const auto size = static_cast<std::size_t>(u(at) << 16 | u(at + 1) << 8 | u(at + 2));
    if (u(at + 3) == NGHTTP2_GOAWAY) code = u(at + 9 + 7);
    at += 9 + size;
  }
  return code;
}

struct Attack {
  Recorder events;
  std::optional<Http2Session> connection{std::in_place, events};
  Http2Session& session = *connection;
  RawFrames raw;
  std::string out;
  bool over = false;

  Attack() { EXPECT_TRUE(send(RawFrames::preface(), 0)); }
  // False once the server has closed.
  bool send(const std::string& bytes, Nanos now) {
    over = over || !session.feed(testing::as_bytes(bytes), now).is_ok();
    out += written(session);
    over = over || session.want_close();
    return !over;
  }
  // Steps until the server closes; `step(n)` gives the bytes of the n-th (from 0). All at time 0.
  int steps_until_closed(const std::function<std::string(int)>& step, int most = 30000) {
    int n = 0;
    while (n < most && send(step(n), 0)) ++n;
    return n;
  }
  void expect_calm() { EXPECT_EQ(goaway_code(out), NGHTTP2_ENHANCE_YOUR_CALM); }
};

StreamId stream_of(int n) { return 2 * n + 1; }

TEST(Http2Attack, RapidReset) {
  Attack a;
  const int n = a.steps_until_closed([&](int i) {
    return a.raw.headers(stream_of(i), grpc_request()) +
           RawFrames::frame(NGHTTP2_RST_STREAM, 0, stream_of(i), RawFrames::be(NGHTTP2_CANCEL, 4));
  });
  EXPECT_EQ(n, 200);
  a.expect_calm();
  EXPECT_EQ(a.events.closed(), a.events.streams.size());
}

TEST(Http2Attack, SlowResetsAreAllowed) {
  Attack a;
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(
        a.send(a.raw.headers(stream_of(i), grpc_request()) +
                   RawFrames::frame(NGHTTP2_RST_STREAM, 0, stream_of(i), RawFrames::be(NGHTTP2_CANCEL, 4)),
               i * kSecond / 33));
  }
}

// CVE-2025-8671: the peer makes us reset.
TEST(Http2Attack, MadeYouReset) {
  struct Trigger {
    const char* name;
    std::function<std::string(Attack&, StreamId)> frames;
  };
  const Headers with_length = [] {
    Headers h = grpc_request();
    h.emplace_back("content-length", "5");
    return h;
  }();
  const Trigger triggers[] = {
      {"window overflow",
       [](Attack& a, StreamId id) {
         return a.raw.headers(id, grpc_request()) +
                RawFrames::frame(NGHTTP2_WINDOW_UPDATE, 0, id, RawFrames::be(0x7FFFFFFF, 4));
       }},
      {"content-length mismatch",
       [&](Attack& a, StreamId id) {
         return a.raw.headers(id, with_length) +
                RawFrames::frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, id, "x");
       }},
      {"no :path",
       [](Attack& a, StreamId id) {
         return a.raw.headers(id, {{":method", "POST"}, {":scheme", "http"}});
       }},
      {"upper-case header",
       [](Attack& a, StreamId id) {
         Headers h = grpc_request();
         h.emplace_back("connection", "close");
         return a.raw.headers(id, h);
       }},
      {"data after the end",
       [](Attack& a, StreamId id) {
         return a.raw.headers(id, grpc_request(), kEndHeaders | NGHTTP2_FLAG_END_STREAM) +
                RawFrames::frame(NGHTTP2_DATA, 0, id, "x");
       }},
      {"zero window update",
       [](Attack& a, StreamId id) {
         return a.raw.headers(id, grpc_request()) +
                RawFrames::frame(NGHTTP2_WINDOW_UPDATE, 0, id, RawFrames::be(0, 4));
       }},
  };
  for (const Trigger& trigger : triggers) {
    Attack a;
    const int n = a.steps_until_closed([&](int i) { return trigger.frames(a, stream_of(i)); }, 1000);
    EXPECT_LE(n, 201) << trigger.name;
    EXPECT_NE(goaway_code(a.out), -1) << trigger.name;
    a.connection.reset();
    EXPECT_EQ(a.events.closed(), a.events.streams.size()) << trigger.name;
  }
}

// The same in one piece, so that nothing is pumped in between: the outbound queue has its own limit.
TEST(Http2Attack, MadeYouResetInOneRead) {
  Attack a;
  std::string wire;
  for (int i = 0; i < 3000; ++i)
    wire += a.raw.headers(stream_of(i), {{":method", "POST"}, {":scheme", "http"}});
  EXPECT_EQ(a.session.feed(testing::as_bytes(wire), 0).code(), Code::kResourceExhausted);
  WriteQueue queue;
  a.session.write(queue);
  EXPECT_LE(queue.bytes(), 1200U * 13 + 200);
  EXPECT_EQ(goaway_code(testing::drain(queue)), NGHTTP2_ENHANCE_YOUR_CALM);
}

TEST(Http2Attack, ControlFrameFloods) {
  struct Flood {
    const char* name;
    std::string frame;
    int allowed;
  };
  Attack probe;
  const std::string padding_only =
      RawFrames::frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, std::string("\x03\0\0\0", 4));
  const Flood floods[] = {
      {"ping", RawFrames::frame(NGHTTP2_PING, 0, 0, "12345678"), 100},
      {"settings", RawFrames::frame(NGHTTP2_SETTINGS, 0, 0, ""), 99},  // one was the preface's
      {"priority", RawFrames::frame(NGHTTP2_PRIORITY, 0, 1, std::string("\0\0\0\3\1", 5)), 100},
      {"empty data", RawFrames::frame(NGHTTP2_DATA, 0, 1, ""), 100},
      {"padding only", padding_only, 100},
      {"unknown", RawFrames::frame(0xEE, 0, 1, "x"), 100},
      {"unknown empty", RawFrames::frame(0x0B, 0, 0, ""), 100},
      {"window update", RawFrames::frame(NGHTTP2_WINDOW_UPDATE, 0, 0, RawFrames::be(1, 4)), 10'000},
  };
  for (const Flood& flood : floods) {
    Attack a;
    ASSERT_TRUE(a.send(a.raw.headers(1, grpc_request()), 0));
    EXPECT_EQ(a.steps_until_closed([&](int) { return flood.frame; }), flood.allowed) << flood.name;
    a.expect_calm();
    EXPECT_EQ(a.events.streams.at(1).closed, 1) << flood.name;
    EXPECT_EQ(a.events.streams.at(1).error, Http2Error::kEnhanceYourCalm) << flood.name;
  }
}

TEST(Http2Attack, ContinuationFlood) {
  for (const int count : {8, 9}) {
    Attack a;
    std::string wire = RawFrames::frame(NGHTTP2_HEADERS, 0, 1, "");
    const std::string block = a.raw.block(grpc_request());
    wire += RawFrames::frame(NGHTTP2_CONTINUATION, 0, 1, block.substr(0, 5));
    for (int i = 1; i < count - 1; ++i)
      wire += RawFrames::frame(NGHTTP2_CONTINUATION, 0, 1, block.substr(4 + static_cast<std::size_t>(i), 1));
    wire += RawFrames::frame(NGHTTP2_CONTINUATION, kEndHeaders, 1,
                             block.substr(3 + static_cast<std::size_t>(count)));
    EXPECT_EQ(a.send(wire, 0), count == 8) << count;
    EXPECT_EQ(a.events.streams.size(), count == 8 ? 1U : 0U);
    if (count == 9) a.expect_calm();
  }
}

// 3 KB in the table, referred to by one byte each.
TEST(Http2Attack, HpackBomb) {
  Attack a;
  Headers bomb = grpc_request();
  bomb.emplace_back("x-bomb", std::string(2900, 'b'));
  ASSERT_TRUE(a.send(a.raw.headers(1, bomb), 0));
  for (int i = 0; i < 12; ++i) bomb.emplace_back("x-bomb", std::string(2900, 'b'));
  EXPECT_FALSE(a.send(a.raw.headers(3, bomb), 0));
  EXPECT_EQ(a.events.streams.size(), 1U);
  a.expect_calm();
}

TEST(Http2Attack, HeaderCountLimitIsExact) {
  const Http2Limits limits;
  for (const std::uint32_t count : {limits.max_headers - 1, limits.max_headers, limits.max_headers + 1}) {
    Attack a;
    Headers headers = grpc_request();
    while (headers.size() < count) headers.emplace_back("x-" + std::to_string(headers.size()), "v");
    EXPECT_EQ(a.send(a.raw.headers(1, headers), 0), count <= limits.max_headers) << count;
    if (count > limits.max_headers) a.expect_calm();
  }
}

TEST(Http2Attack, HeaderListBytesLimitIsExact) {
  const Http2Limits limits;
  Headers headers = grpc_request();
  headers.emplace_back("x-fill", "");
  std::size_t list = 0;
  for (const auto& [name, value] : headers) list += name.size() + value.size() + 32;
  for (const std::size_t wanted :
       {limits.max_header_list_bytes - 1, limits.max_header_list_bytes, limits.max_header_list_bytes + 1}) {
    Attack a;
    headers.back().second.assign(wanted - list, 'x');
    const std::string block = a.raw.block(headers);
    const std::string wire = RawFrames::frame(NGHTTP2_HEADERS, 0, 1, block.substr(0, 16000)) +
                             RawFrames::frame(NGHTTP2_CONTINUATION, kEndHeaders, 1,
                                              block.size() > 16000 ? block.substr(16000) : "");
    EXPECT_EQ(a.send(wire, 0), wanted <= limits.max_header_list_bytes) << wanted;
    if (wanted > limits.max_header_list_bytes) a.expect_calm();
  }
}

// A legal, silly client: cost by the bytes, no violation.
TEST(Http2Attack, OneByteDataFramesAreData) {
  Attack a;
  ASSERT_TRUE(a.send(a.raw.headers(1, grpc_request()), 0));
  const std::string frame = RawFrames::frame(NGHTTP2_DATA, 0, 1, "x");
  for (int i = 0; i < 60000; ++i) ASSERT_TRUE(a.send(frame, 0));
  EXPECT_EQ(a.events.streams.at(1).body.size(), 60000U);
}

TEST(Http2Attack, ProtocolErrorsEndTheConnectionWithTheRfcsCode) {
  struct Case {
    const char* name;
    std::string frame;
    std::int64_t code;
  };
  const Case cases[] = {
      {"data on stream 0", RawFrames::frame(NGHTTP2_DATA, 0, 0, "x"), NGHTTP2_PROTOCOL_ERROR},
      {"data on an idle stream", RawFrames::frame(NGHTTP2_DATA, 0, 9, "x"), NGHTTP2_PROTOCOL_ERROR},
      {"even stream", RawFrames::frame(NGHTTP2_HEADERS, kEndHeaders, 2, "\x82"), NGHTTP2_PROTOCOL_ERROR},
      {"hpack rubbish", RawFrames::frame(NGHTTP2_HEADERS, kEndHeaders, 1, "\xFF\xFF\xFF\xFF\xFF"),
       NGHTTP2_COMPRESSION_ERROR},
      {"frame over 16 KiB", RawFrames::frame(NGHTTP2_DATA, 0, 1, std::string(16385, 'x')),
       NGHTTP2_FRAME_SIZE_ERROR},
      {"ping of 7 bytes", RawFrames::frame(NGHTTP2_PING, 0, 0, "1234567"), NGHTTP2_FRAME_SIZE_ERROR},
      {"push promise", RawFrames::frame(NGHTTP2_PUSH_PROMISE, kEndHeaders, 1, RawFrames::be(2, 4)),
       NGHTTP2_PROTOCOL_ERROR},
      {"lone continuation", RawFrames::frame(NGHTTP2_CONTINUATION, kEndHeaders, 1, "x"),
       NGHTTP2_PROTOCOL_ERROR},
      {"connection window overflow",
       RawFrames::frame(NGHTTP2_WINDOW_UPDATE, 0, 0, RawFrames::be(0x7FFFFFFF, 4)),
       NGHTTP2_FLOW_CONTROL_ERROR},
  };
  for (const Case& c : cases) {
    Attack a;
    EXPECT_FALSE(a.send(c.frame, 0)) << c.name;
    EXPECT_EQ(goaway_code(a.out), c.code) << c.name;
  }
}

TEST(Http2Attack, MutatedConnectionsNeverBreakTheServer) {
  std::mt19937 random(5);
  RawFrames raw;
  std::string good = RawFrames::preface();
  for (int i = 0; i < 6; ++i) {
    good += raw.headers(stream_of(i), grpc_request()) +
            RawFrames::frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, stream_of(i), std::string(50, 'x'));
    good += RawFrames::frame(NGHTTP2_PING, 0, 0, "12345678");
  }
  for (int round = 0; round < 5000; ++round) {
    std::string wire = good;
    for (unsigned k = 0; k < 1 + random() % 6; ++k) {
      const std::size_t at = 24 + random() % (wire.size() - 24);
      if (random() % 3 == 0)
        wire.erase(at, 1 + random() % 5);
      else
        wire[at] = static_cast<char>(random());
    }
    Recorder events;
    {
      Http2Session session(events);
      events.when_end = [&](StreamId id) {
        OutMessage message;
        message.own.append(events.streams[id].body);
        session.respond(id, kGrpcOkHeaders, std::move(message), kGrpcOkTrailers);
      };
      const std::size_t cut = 1 + random() % wire.size();
      for (std::size_t at = 0; at < wire.size(); at += cut) {
        if (!session.feed(testing::as_bytes(std::string_view(wire).substr(at, cut)), round)) break;
        (void)written(session);
        if (session.want_close()) break;
      }
      (void)written(session);
    }
    ASSERT_EQ(events.closed(), events.streams.size());
  }
}

}  // namespace
}  // namespace fastserve
