// Requests, responses, pipelining, streaming, timeouts. Bad input: http1_limits_test.cc.
#include "codec/http1_session.h"

#include <gtest/gtest.h>

#include <random>

#include "codec/http1_recorder.h"

namespace fastserve {
namespace {

constexpr std::string_view kGet = "GET /v2/health/live?x=1 HTTP/1.1\r\nHost: h\r\n\r\n";

std::string post(std::string_view body, std::string_view headers = "") {
  return "POST /p HTTP/1.1\r\nHost: h\r\n" + std::string(headers) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}
std::string reply(std::string_view body) {
  return "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

TEST(Http1Session, ShowsTheHead) {
  Http1Recorder r;
  ASSERT_TRUE(
      r.feed("GET /a%20b?q=1&r=%2f HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nX-Two:  a b \t\r\nx-TWO: c\r\n\r\n")
          .is_ok());
  ASSERT_EQ(r.requests.size(), 1U);
  const auto& seen = r.requests[0];
  EXPECT_EQ(seen.line, "GET /a%20b");
  EXPECT_EQ(seen.query, "q=1&r=%2f");
  EXPECT_TRUE(seen.complete);
  EXPECT_TRUE(seen.keep_alive);
  EXPECT_FALSE(seen.chunked);
  EXPECT_EQ(seen.content_length, std::nullopt);
  const std::vector<std::pair<std::string, std::string>> want = {
      {"Host", "h"}, {"X-Empty", ""}, {"X-Two", "a b"}, {"x-TWO", "c"}};
  EXPECT_EQ(seen.headers, want);
}

TEST(Http1Head, FindsHeadersInAnyCase) {
  const Http1Header headers[] = {{"Content-TYPE", "a"}, {"content-type", "b"}};
  Http1Head head;
  head.headers = headers;
  EXPECT_EQ(head.header("content-type"), "a");
  EXPECT_EQ(head.header("content-typ"), std::nullopt);
}

TEST(Http1Session, ReducesAbsoluteTargets) {
  for (const auto& [target, line] :
       {std::pair{"http://h:80/a/b?q", "GET /a/b"}, {"http://h", "GET /"}, {"/a#f", "GET /a"}}) {
    Http1Recorder r;
    ASSERT_TRUE(r.feed(std::string("GET ") + target + " HTTP/1.1\r\nHost: h\r\n\r\n").is_ok()) << target;
    EXPECT_EQ(r.requests[0].line, line);
  }
  Http1Recorder options;
  ASSERT_TRUE(options.feed("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
  EXPECT_EQ(options.requests[0].line, "OPTIONS *");
}

TEST(Http1Session, AnswersInOneMessage) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed(kGet).is_ok());
  EXPECT_TRUE(r.session.request_open());
  EXPECT_FALSE(r.session.has_output());
  const Http1Header headers[] = {{"content-type", "text/plain"},
                                 {"x", "a\r\nb"},
                                 {"Content-Length", "99"},
                                 {"Transfer-Encoding", "chunked"}};
  r.session.respond(404, headers, "hello");
  EXPECT_FALSE(r.session.request_open());
  EXPECT_EQ(
      r.sent(),
      "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\nx: a  b\r\ncontent-length: 5\r\n\r\nhello");
  EXPECT_FALSE(r.session.want_close());
  r.session.respond(200, {}, "late");  // no open request: nothing
  EXPECT_FALSE(r.session.has_output());
}

TEST(Http1Session, SendsLargeBodiesByReference) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed(kGet).is_ok());
  const std::string large(100'000, 'x');
  OutMessage body;
  body.own.append("{}");
  body.add_external(wire(large));
  body.keep = std::make_shared<int>(0);
  const std::weak_ptr<const void> keep = body.keep;
  r.session.respond(200, {}, std::move(body));
  EXPECT_FALSE(keep.expired());
  EXPECT_EQ(r.sent(), reply("{}" + large));
  EXPECT_TRUE(keep.expired());
}

TEST(Http1Session, WritesNoBodyForHeadAnd204) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
  r.session.respond(200, {}, "12345");
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
  ASSERT_TRUE(r.feed("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
  const Http1Header length[] = {{"Content-Length", "77"}};
  r.session.respond(200, length, "");
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n");
  ASSERT_TRUE(r.feed("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
  r.session.respond_begin(200, {});
  r.session.respond_chunk(wire("x"));
  r.session.respond_end();
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\n\r\n");
  ASSERT_TRUE(r.feed(kGet).is_ok());
  r.session.respond(204, {}, "");
  EXPECT_EQ(r.sent(), "HTTP/1.1 204 No Content\r\n\r\n");
}

TEST(Http1Session, ReadsBodiesIntoTheBufferOrInPieces) {
  for (const bool buffered : {true, false}) {
    Http1Recorder r;
    r.use_buffer = buffered;
    r.answer_at_end = true;
    ASSERT_TRUE(r.feed(post("hello")).is_ok());
    EXPECT_EQ(r.requests[0].content_length, 5U);
    EXPECT_EQ(r.requests[0].body, "hello");
    ASSERT_TRUE(r.feed("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3;a;b=c\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\n")
                    .is_ok())
        << r.error_reason;
    EXPECT_TRUE(r.requests[1].chunked);
    EXPECT_EQ(r.requests[1].body, "abc0123456789");
    EXPECT_EQ(r.requests[1].headers.size(), 2U);  // the trailer is none
    EXPECT_EQ(r.sent(), reply("1:hello") + reply("2:abc0123456789"));
  }
}

TEST(Http1Session, AnswersPipelinedRequestsInOrder) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed(post("one") + post("two") + std::string(kGet) + "POST /cut").is_ok());
  ASSERT_EQ(r.requests.size(), 1U);  // one at a time
  EXPECT_EQ(r.sent(), "");
  r.answer();
  EXPECT_EQ(r.requests.size(), 1U);
  ASSERT_TRUE(r.session.resume(0).is_ok());
  ASSERT_EQ(r.requests.size(), 2U);
  ASSERT_TRUE(r.feed(" HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nz").is_ok());
  EXPECT_EQ(r.requests.size(), 2U);
  r.answer();
  ASSERT_TRUE(r.session.resume(0).is_ok());
  ASSERT_EQ(r.requests.size(), 3U);
  r.answer();
  ASSERT_TRUE(r.session.resume(0).is_ok());
  ASSERT_EQ(r.requests.size(), 4U);
  EXPECT_EQ(r.requests[3].line, "POST /cut");
  r.answer();
  EXPECT_EQ(r.sent(), reply("1:one") + reply("2:two") + reply("3:") + reply("4:z"));
}

TEST(Http1Session, StopsReadingWhileMuchIsHeld) {
  Http1Limits limits;
  limits.held_bytes = 100;
  Http1Recorder r(limits);
  ASSERT_TRUE(r.feed(kGet).is_ok());
  EXPECT_TRUE(r.session.wants_input());
  const std::string more = post(std::string(64, 'b'));
  ASSERT_GT(more.size(), 100U);
  ASSERT_TRUE(r.feed(more.substr(0, 99)).is_ok());
  EXPECT_TRUE(r.session.wants_input());
  ASSERT_TRUE(r.feed(more.substr(99, 1)).is_ok());
  EXPECT_FALSE(r.session.wants_input());
  r.answer();
  ASSERT_TRUE(r.session.resume(0).is_ok());
  EXPECT_TRUE(r.session.wants_input());
  ASSERT_TRUE(r.feed(more.substr(100)).is_ok());
  EXPECT_EQ(r.requests[1].body, std::string(64, 'b'));
}

// A client that sends and does not read: its answers pile up to the limit and one more.
TEST(Http1Session, LooksAtNoFurtherRequestWhileAnswersAreNotRead) {
  Http1Limits limits;
  limits.write_high_water_bytes = 500;
  Http1Recorder r(limits);
  r.answer_at_end = true;
  std::string want;
  std::string input;
  for (int i = 1; i <= 20; ++i) {
    input += post(std::string(200, 'x'));
    want += reply(std::to_string(i) + ":" + std::string(200, 'x'));
  }
  ASSERT_TRUE(r.feed(input).is_ok());
  const std::size_t first = r.requests.size();
  EXPECT_GE(first, 2U);
  EXPECT_LE(first, 4U);
  EXPECT_FALSE(r.session.wants_input());
  EXPECT_FALSE(r.session.can_resume());
  ASSERT_TRUE(r.session.resume(0).is_ok());
  EXPECT_EQ(r.requests.size(), first);
  r.session.end_of_input();  // what came whole is answered all the same
  EXPECT_FALSE(r.session.want_close());
  std::string sent = r.sent();  // written, and read by the client
  for (int rounds = 0; rounds < 20 && !r.session.want_close(); ++rounds) {
    sent += r.sent();  // with an empty queue: tells the session
    ASSERT_TRUE(r.session.can_resume());
    ASSERT_TRUE(r.session.resume(0).is_ok());
    sent += r.sent();
  }
  EXPECT_EQ(r.requests.size(), 20U);
  EXPECT_EQ(sent, want);
  EXPECT_TRUE(r.session.want_close());
}

TEST(Http1Session, AHalfReadRequestGoesOnWhileAnswersAreNotRead) {
  Http1Limits limits;
  limits.write_high_water_bytes = 100;
  Http1Recorder r(limits);
  const std::string second = post(std::string(300, 'y'));
  ASSERT_TRUE(r.feed(std::string(kGet)).is_ok());
  r.answer();
  r.session.write(r.queue);
  ASSERT_TRUE(r.feed(second.substr(0, 50)).is_ok());
  ASSERT_TRUE(r.feed(second.substr(50)).is_ok());
  r.answer();
  EXPECT_EQ(r.sent(), reply("1:") + reply("2:" + std::string(300, 'y')));
}

TEST(Http1Session, TakesAnyCutOfTheInput) {
  const std::string input = post("hello", "X-Long: " + std::string(300, 'v') + "\r\nX-None: \r\n") +
                            std::string(kGet) +
                            "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "5;ext=\"q\"\r\nabcde\r\n1\r\nf\r\n0\r\nT: v\r\n\r\n" +
                            "\r\n" + post("") + std::string(kGet);
  Http1Recorder whole;
  whole.answer_at_end = true;
  ASSERT_TRUE(whole.feed(input).is_ok()) << whole.error_reason;
  const std::string want = whole.sent();
  ASSERT_EQ(whole.requests.size(), 5U);
  std::mt19937 random(3);
  for (int run = 0; run < 2000; ++run) {
    Http1Recorder r;
    r.answer_at_end = run % 2 == 0;  // else the answers come later
    r.use_buffer = run % 3 != 0;
    std::string sent;
    for (std::size_t at = 0; at < input.size();) {
      const std::size_t n = run < 2 ? 1 : std::min<std::size_t>(1 + random() % 60, input.size() - at);
      ASSERT_TRUE(r.feed(input.substr(at, n)).is_ok());
      at += n;
      while (!r.answer_at_end && random() % 3 == 0 && r.session.request_open() &&
             r.requests.back().complete) {
        r.answer();
        ASSERT_TRUE(r.session.resume(0).is_ok());
      }
      if (random() % 4 == 0) sent += r.sent();
    }
    while (r.session.request_open()) {
      r.answer();
      ASSERT_TRUE(r.session.resume(0).is_ok());
    }
    ASSERT_EQ(sent + r.sent(), want);
    for (std::size_t i = 0; i < 5; ++i) {
      ASSERT_EQ(r.requests[i].headers, whole.requests[i].headers);
      ASSERT_EQ(r.requests[i].body, whole.requests[i].body);
    }
  }
}

TEST(Http1Session, KeepsOrClosesAsAsked) {
  const struct {
    const char* request;
    bool closes;
    const char* words;
  } cases[] = {
      {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, "content-length: 2\r\n\r\n"},
      {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true, "connection: close\r\n\r\n"},
      {"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", true, "connection: close\r\n\r\n"},
      {"GET / HTTP/1.0\r\n\r\n", true, "connection: close\r\n\r\n"},
      {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, "connection: keep-alive\r\n\r\n"},
  };
  for (const auto& c : cases) {
    Http1Recorder r;
    r.answer_at_end = true;
    ASSERT_TRUE(r.feed(std::string(c.request) + c.request).is_ok()) << c.request;
    EXPECT_EQ(r.requests.size(), c.closes ? 1U : 2U) << c.request;
    EXPECT_NE(r.sent().find(c.words), std::string::npos) << c.request;
    EXPECT_EQ(r.session.want_close(), c.closes) << c.request;
  }
  Http1Recorder r;
  ASSERT_TRUE(r.feed(kGet).is_ok());
  const Http1Header close[] = {{"Connection", "close"}};
  r.session.respond(200, close, "x");
  EXPECT_FALSE(r.session.want_close());  // not before the response is out
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx");
  EXPECT_TRUE(r.session.want_close());
  EXPECT_TRUE(r.feed(kGet).is_ok());
  EXPECT_EQ(r.requests.size(), 1U);
}

TEST(Http1Session, IgnoresUpgrade) {
  Http1Recorder r;
  r.answer_at_end = true;
  ASSERT_TRUE(r.feed("POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: "
                     "2\r\n\r\nab" +
                     std::string(kGet))
                  .is_ok());
  ASSERT_EQ(r.requests.size(), 2U);
  EXPECT_EQ(r.requests[0].body, "ab");
}

TEST(Http1Session, StreamsInChunks) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed(std::string(kGet) + std::string(kGet)).is_ok());
  r.session.respond_begin(200, {});
  EXPECT_TRUE(r.session.response_begun());
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
  r.session.respond_chunk(wire("hello"));
  r.session.respond_chunk({});
  r.session.respond_chunk(wire(std::string(17, 'x')));
  EXPECT_EQ(r.sent(), "5\r\nhello\r\n11\r\n" + std::string(17, 'x') + "\r\n");
  r.session.respond_end();
  EXPECT_EQ(r.sent(), "0\r\n\r\n");
  ASSERT_TRUE(r.session.resume(0).is_ok());
  ASSERT_EQ(r.requests.size(), 2U);
  const Http1Header length[] = {{"content-length", "4"}};
  r.session.respond_begin(200, length);
  r.session.respond_chunk(wire("abc"));
  r.session.respond_chunk(wire("def"));
  r.session.respond_end();
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd");
  EXPECT_FALSE(r.session.want_close());
}

TEST(Http1Session, ClosesWhenAStreamEndsShort) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed(kGet).is_ok());
  const Http1Header length[] = {{"content-length", "4"}};
  r.session.respond_begin(200, length);
  r.session.respond_chunk(wire("abc"));
  r.session.respond_end();
  r.sent();
  EXPECT_TRUE(r.session.want_close());

  Http1Recorder aborted;
  ASSERT_TRUE(aborted.feed(kGet).is_ok());
  aborted.session.respond_begin(200, {});
  aborted.session.respond_chunk(wire("abc"));
  aborted.session.respond_abort();
  EXPECT_EQ(aborted.sent(), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
  EXPECT_TRUE(aborted.session.want_close());
}

TEST(Http1Session, StreamsToHttp10UntilClose) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").is_ok());
  r.session.respond_begin(200, {});
  r.session.respond_chunk(wire("abc"));
  r.session.respond_end();
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc");
  EXPECT_TRUE(r.session.want_close());
}

TEST(Http1Session, SaysContinueWhenTheBodyIsWanted) {
  Http1Recorder r;
  r.answer_at_end = true;
  ASSERT_TRUE(
      r.feed("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n").is_ok());
  EXPECT_EQ(r.sent(), "HTTP/1.1 100 Continue\r\n\r\n");
  ASSERT_TRUE(r.feed("ab").is_ok());
  EXPECT_EQ(r.sent(), reply("1:ab"));
  ASSERT_TRUE(r.feed("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n").is_ok());
  EXPECT_EQ(r.sent(), reply("2:"));  // nothing to continue with
}

TEST(Http1Session, RefusesInsteadOfContinueAndCloses) {
  Http1Recorder r;
  r.answer_at_head = true;
  ASSERT_TRUE(
      r.feed("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").is_ok());
  EXPECT_EQ(r.sent(), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n1:");
  EXPECT_TRUE(r.session.want_close());
}

TEST(Http1Session, DropsTheBodyOfARequestAnsweredEarly) {
  Http1Recorder r;
  r.answer_at_head = true;
  r.use_buffer = false;
  ASSERT_TRUE(r.feed(post("unwanted") + post("too")).is_ok());
  EXPECT_EQ(r.requests.size(), 2U);
  EXPECT_EQ(r.requests[0].body, "");
  EXPECT_FALSE(r.requests[0].complete);
  EXPECT_EQ(r.sent(), reply("1:") + reply("2:"));
  EXPECT_FALSE(r.session.want_close());
}

TEST(Http1Session, DrainsWhenAskedToClose) {
  Http1Recorder idle;
  idle.session.close_after_response();
  EXPECT_TRUE(idle.session.want_close());

  Http1Recorder busy;
  ASSERT_TRUE(busy.feed(std::string(kGet) + std::string(kGet)).is_ok());
  busy.session.close_after_response();
  EXPECT_FALSE(busy.session.want_close());
  busy.answer();
  EXPECT_EQ(busy.sent(), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n1:");
  EXPECT_TRUE(busy.session.want_close());
  ASSERT_TRUE(busy.session.resume(0).is_ok());
  EXPECT_EQ(busy.requests.size(), 1U);

  Http1Recorder between;
  ASSERT_TRUE(between.feed(kGet).is_ok());
  between.answer();
  between.session.close_after_response();
  EXPECT_EQ(between.sent(), reply("1:"));
  EXPECT_TRUE(between.session.want_close());
}

TEST(Http1Session, AnswersHalfClosedClients) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed(std::string(kGet) + std::string(kGet)).is_ok());
  r.session.end_of_input();
  EXPECT_FALSE(r.session.want_close());
  r.answer();
  ASSERT_TRUE(r.session.resume(0).is_ok());
  ASSERT_EQ(r.requests.size(), 2U);
  r.answer();
  ASSERT_TRUE(r.session.resume(0).is_ok());
  EXPECT_EQ(r.sent(), reply("1:") + reply("2:"));
  EXPECT_TRUE(r.session.want_close());
  EXPECT_EQ(r.errors, 0);
}

TEST(Http1Session, ReportsRequestsCutByTheClient) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab").is_ok());
  r.session.end_of_input();
  EXPECT_EQ(r.error_status, 0);
  EXPECT_EQ(r.sent(), "");
  EXPECT_TRUE(r.session.want_close());

  Http1Recorder idle;
  idle.session.end_of_input();
  EXPECT_TRUE(idle.session.want_close());
  EXPECT_EQ(idle.errors, 0);

  Http1Recorder piped;  // the second one is cut
  ASSERT_TRUE(
      piped.feed(std::string(kGet) + "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab").is_ok());
  piped.session.end_of_input();
  piped.answer();
  ASSERT_TRUE(piped.session.resume(0).is_ok());
  EXPECT_EQ(piped.error_status, 0);
  EXPECT_EQ(piped.sent(), reply("1:"));
  EXPECT_TRUE(piped.session.want_close());
}

TEST(Http1Session, TimesOutIdleHeadAndBody) {
  const Http1Limits limits;
  Http1Recorder r;
  EXPECT_EQ(r.session.deadline(), kNever);
  ASSERT_TRUE(r.feed("", 1000).is_ok());
  EXPECT_EQ(r.session.deadline(), 1000 + limits.idle_timeout_ns);
  ASSERT_TRUE(r.feed("GET / HT", 2000).is_ok());
  ASSERT_TRUE(r.feed("TP/1.1\r\n", 3000).is_ok());
  EXPECT_EQ(r.session.deadline(), 2000 + limits.head_timeout_ns);  // drops of bytes do not prolong it
  ASSERT_TRUE(r.feed("Host: h\r\nContent-Length: 3\r\n\r\na", 4000).is_ok());
  EXPECT_EQ(r.session.deadline(), 4000 + limits.body_timeout_ns);
  ASSERT_TRUE(r.feed("b", 5000).is_ok());
  EXPECT_EQ(r.session.deadline(), 5000 + limits.body_timeout_ns);
  ASSERT_TRUE(r.feed("c", 6000).is_ok());
  EXPECT_EQ(r.session.deadline(), kNever);
  r.answer();
  EXPECT_EQ(r.session.deadline(), 6000 + limits.idle_timeout_ns);
  r.session.expire(6000 + limits.idle_timeout_ns - 1);
  EXPECT_EQ(r.sent(), reply("1:abc"));
  EXPECT_FALSE(r.session.want_close());
  r.session.expire(6000 + limits.idle_timeout_ns);
  EXPECT_TRUE(r.session.want_close());
  EXPECT_EQ(r.errors, 0);
}

TEST(Http1Session, Answers408) {
  for (const char* input :
       {"GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na"}) {
    Http1Recorder r;
    ASSERT_TRUE(r.feed(input, 0).is_ok());
    r.session.expire(r.session.deadline() - 1);
    EXPECT_EQ(r.errors, 0);
    r.session.expire(r.session.deadline());
    EXPECT_EQ(r.error_status, 408);
    EXPECT_TRUE(r.sent().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    EXPECT_TRUE(r.session.want_close());
  }
  Http1Recorder answered;  // before its body came: no second answer
  answered.answer_at_head = true;
  ASSERT_TRUE(answered.feed("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na", 0).is_ok());
  answered.session.expire(answered.session.deadline());
  EXPECT_EQ(answered.sent(), reply("1:"));
  EXPECT_TRUE(answered.session.want_close());
}

}  // namespace
}  // namespace fastserve
