// What Http1Session refuses: framing, limits at the edge, mutants.
#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "codec/http1_recorder.h"

namespace fastserve {
namespace {

struct BadCase {
  const char* name;
  std::string input;
  int status;
};

std::vector<BadCase> bad_cases() {
  const std::string host = "Host: h\r\n";
  const std::string chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  return {
      {"unknown method", "FOO / HTTP/1.1\r\n" + host + "\r\n", 501},
      {"connect", "CONNECT h:80 HTTP/1.1\r\n" + host + "\r\n", 501},
      {"lower case method", "get / HTTP/1.1\r\n" + host + "\r\n", 400},
      {"tls hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), 400},
      {"http2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"http 0.9", "GET /\r\n\r\n", 505},
      {"http 2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", 505},
      {"http 1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", 505},
      {"http 3", "GET / HTTP/3.0\r\n" + host + "\r\n", 505},
      {"no protocol", "GET / HTPP/1.1\r\n" + host + "\r\n", 400},
      {"no target", "GET  HTTP/1.1\r\n" + host + "\r\n", 400},
      {"relative target", "GET a/b HTTP/1.1\r\n" + host + "\r\n", 400},
      {"star for GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400},
      {"blank in target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
      {"nul in target", std::string("GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n", 31), 400},
      {"high byte in target", "GET /\xff HTTP/1.1\r\n" + host + "\r\n", 400},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
      {"blank before colon", "GET / HTTP/1.1\r\n" + host + "X : y\r\n\r\n", 400},
      {"blank in header name", "GET / HTTP/1.1\r\n" + host + "X y: z\r\n\r\n", 400},
      {"empty header name", "GET / HTTP/1.1\r\n" + host + ": z\r\n\r\n", 400},
      {"no colon", "GET / HTTP/1.1\r\n" + host + "Xyz\r\n\r\n", 400},
      {"nul in header", std::string("GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 36), 400},
      {"control in header",
       "GET / HTTP/1.1\r\n" + host +
           "X: a\x01"
           "b\r\n\r\n",
       400},
      {"cr in header", "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", 400},
      {"bare lf in header", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400},
      {"folded header", "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", 400},
      {"folded empty header", "GET / HTTP/1.1\r\n" + host + "X:\r\n b\r\n\r\n", 400},
      {"folded with tab", "GET / HTTP/1.1\r\n" + host + "X: a\r\n\tb\r\n\r\n", 400},
      {"folded transfer-encoding",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
      {"leading blank header", "GET / HTTP/1.1\r\n X: y\r\n" + host + "\r\n", 400},
      {"both lengths",
       "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400},
      {"both lengths 2",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
       400},
      {"both, other coding",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 400},
      {"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
       400},
      {"length list", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", 400},
      {"length sign", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 400},
      {"length negative", "POST / HTTP/1.1\r\n" + host + "Content-Length: -3\r\n\r\nabc", 400},
      {"length hex", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\nabc", 400},
      {"length empty", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\nabc", 400},
      {"length 2^64", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551616\r\n\r\nabc", 400},
      {"length 2^64-1", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551615\r\n\r\nabc",
       413},
      {"coding gzip", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\nabc", 501},
      {"coding gzip, chunked",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"coding twice",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       501},
      {"coding xchunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
      {"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"other expectation", "POST / HTTP/1.1\r\n" + host + "Expect: tea\r\nContent-Length: 1\r\n\r\na", 417},
      {"chunk size junk", chunked + "x\r\n", 400},
      {"chunk size negative", chunked + "-1\r\n", 400},
      {"chunk size overflow", chunked + "10000000000000000\r\n", 400},
      {"chunk size 2^64-1", chunked + "ffffffffffffffff\r\n", 413},
      {"chunk without crlf", chunked + "3\r\nabcd\r\n", 400},
      {"chunk bare lf", chunked + "3\nabc\r\n", 400},
      {"chunk size blank", chunked + "3 3\r\nabc\r\n", 400},
  };
}

class Http1Bad : public testing::TestWithParam<BadCase> {};

TEST_P(Http1Bad, IsAnsweredReportedAndClosed) {
  for (const bool byte_by_byte : {false, true}) {
    Http1Recorder r;
    r.answer_at_end = true;
    ASSERT_TRUE(r.feed("GET /ok HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());  // a good one before
    const std::string ok = r.sent();
    const std::size_t step = byte_by_byte ? 1 : GetParam().input.size();
    Status status;
    for (std::size_t at = 0; at < GetParam().input.size() && status.is_ok(); at += step) {
      status = r.feed(std::string_view(GetParam().input).substr(at, step));
    }
    const std::string sent = r.sent();
    EXPECT_EQ(r.error_status, GetParam().status) << r.error_reason << "\n" << sent;
    EXPECT_EQ(r.errors, 1);
    EXPECT_TRUE(sent.starts_with("HTTP/1.1 " + std::to_string(GetParam().status) + " ")) << sent;
    EXPECT_NE(sent.find("connection: close\r\n\r\n{\"error\":\""), std::string::npos) << sent;
    EXPECT_EQ(sent.find("HTTP/1.1", 1), std::string::npos) << "answered twice: " << sent;
    EXPECT_TRUE(r.session.want_close());
    EXPECT_FALSE(r.session.wants_input());
    EXPECT_TRUE(r.feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());  // dropped
    EXPECT_EQ(r.sent(), "");
  }
}

INSTANTIATE_TEST_SUITE_P(All, Http1Bad, testing::ValuesIn(bad_cases()), [](const auto& bad) {
  std::string name;
  for (const char c : std::string(bad.param.name))
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

// RFC 9112 section 2.2 allows it behind the request line, and llhttp takes it there (and nowhere else, see above).
TEST(Http1Session, TakesABareLineFeedBehindTheRequestLine) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed("GET / HTTP/1.1\nHost: h\r\n\r\n").is_ok());
  EXPECT_EQ(r.requests.size(), 1U);
}

// Runs a request of a given size against a limit: the HTTP status of the refusal, 0 when it went through.
int outcome(const std::string& input, const Http1Limits& limits = {}) {
  Http1Recorder r(limits);
  r.answer_at_end = true;
  const Status status = r.feed(input);
  if (status.is_ok()) {
    EXPECT_TRUE(r.requests.size() == 1 && r.requests[0].complete);
    return 0;
  }
  return r.error_status;
}

TEST(Http1Limits, RequestLine) {
  const auto request = [](std::size_t line) {
    return "GET /" + std::string(line - 14, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n";
  };
  EXPECT_EQ(request(100).find('\r'), 100U);
  EXPECT_EQ(outcome(request(8191)), 0);
  EXPECT_EQ(outcome(request(8192)), 0);
  EXPECT_EQ(outcome(request(8193)), 414);
}

TEST(Http1Limits, HeaderBytes) {
  const auto request = [](std::size_t bytes) {  // Host: h counts 9
    return "GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(bytes - 9 - 5, 'a') + "\r\n\r\n";
  };
  EXPECT_EQ(outcome(request(16383)), 0);
  EXPECT_EQ(outcome(request(16384)), 0);
  EXPECT_EQ(outcome(request(16385)), 431);
  const auto name = [](std::size_t bytes) {
    return "GET / HTTP/1.1\r\nHost: h\r\n" + std::string(bytes - 9 - 4, 'n') + ": \r\n\r\n";
  };
  EXPECT_EQ(outcome(name(16384)), 0);
  EXPECT_EQ(outcome(name(16385)), 431);
}

TEST(Http1Limits, HeaderCount) {
  const auto request = [](int count, int trailers) {
    std::string text = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";
    for (int i = 2; i < count; ++i) text += "X: y\r\n";
    text += "\r\n1\r\na\r\n0\r\n";
    for (int i = 0; i < trailers; ++i) text += "T: y\r\n";
    return text + "\r\n";
  };
  EXPECT_EQ(outcome(request(63, 0)), 0);
  EXPECT_EQ(outcome(request(64, 0)), 0);
  EXPECT_EQ(outcome(request(65, 0)), 431);
  EXPECT_EQ(outcome(request(60, 4)), 0);
  EXPECT_EQ(outcome(request(60, 5)), 431);
}

TEST(Http1Limits, BodyBytes) {
  Http1Limits limits;
  limits.body_bytes = 1000;
  const auto sized = [](std::size_t bytes) {
    return "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(bytes) + "\r\n\r\n" +
           std::string(bytes, 'b');
  };
  const auto chunked = [](std::size_t bytes) {  // two chunks
    std::ostringstream text;
    text << "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" << std::hex;
    for (const std::size_t part : {bytes / 2, bytes - bytes / 2}) {
      text << part << "\r\n" << std::string(part, 'b') << "\r\n";
    }
    return text.str() + "0\r\n\r\n";
  };
  for (const auto& [bytes, status] : {std::pair{999U, 0}, {1000U, 0}, {1001U, 413}}) {
    EXPECT_EQ(outcome(sized(bytes), limits), status) << bytes;
    EXPECT_EQ(outcome(chunked(bytes), limits), status) << bytes;
  }
  EXPECT_EQ(Http1Limits{}.body_bytes, 64U << 20);
}

TEST(Http1Limits, ChunkCount) {
  const auto request = [](std::size_t chunks) {
    std::string text = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (std::size_t i = 0; i < chunks; ++i) text += "1\r\na\r\n";
    return text + "0\r\n\r\n";
  };
  EXPECT_EQ(outcome(request(65'535)), 0);
  EXPECT_EQ(outcome(request(65'536)), 0);
  EXPECT_EQ(outcome(request(65'537)), 413);
}

TEST(Http1Limits, ChunkExtensions) {
  const auto request = [](std::size_t bytes) {  // over two chunks
    return "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
           std::string(bytes / 2, 'e') + "\r\na\r\n1;x=" + std::string(bytes - bytes / 2 - 1, 'v') +
           "\r\nb\r\n0\r\n\r\n";
  };
  EXPECT_EQ(outcome(request(255)), 0);
  EXPECT_EQ(outcome(request(256)), 0);
  EXPECT_EQ(outcome(request(257)), 400);
}

TEST(Http1Limits, ABodyThatIsOnlyClaimedReservesLittle) {
  Http1Recorder r;
  ASSERT_TRUE(r.feed("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n").is_ok());
  EXPECT_LE(r.buffer.capacity(), 1U << 20);
}

// No request of the client may make the session die, answer twice, or lose the count of requests and responses.
TEST(Http1Session, SurvivesMutants) {
  const std::string seed =
      "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: "
      "keep-alive\r\n\r\nhello"
      "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
      "5;e=v\r\nabcde\r\n0\r\nT: v\r\n\r\n"
      "GET / HTTP/1.0\r\n\r\n";
  const std::string alphabet("\r\n :;,/0159afAZ\0\x7f\xff\t-+", 21);
  std::mt19937 random(5);
  std::size_t good = 0;
  std::size_t refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string input = seed;
    for (auto edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % input.size();
      switch (random() % 4) {
        case 0:
          input[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          input.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          input.erase(at, 1 + random() % 4);
          break;
        default:
          input.insert(at, input.substr(random() % input.size(), random() % 20));
          break;
      }
    }
    Http1Recorder r;
    r.use_buffer = i % 2 == 0;
    std::string sent;
    for (std::size_t at = 0; at < input.size();) {
      const std::size_t n = std::min<std::size_t>(1 + random() % 100, input.size() - at);
      const Status status = r.feed(std::string_view(input).substr(at, n));
      ASSERT_TRUE(status.is_ok() || r.errors == 1);
      at += n;
      while (r.session.request_open() && r.requests.back().complete) {
        r.answer();
        static_cast<void>(r.session.resume(0));
      }
      sent += r.sent();
    }
    r.session.end_of_input();
    sent += r.sent();
    ASSERT_TRUE(r.session.want_close());
    std::size_t responses = 0;
    for (std::size_t at = sent.find("HTTP/1.1 "); at != std::string::npos;
         at = sent.find("HTTP/1.1 ", at + 1)) {
      responses += sent.compare(at, 12, "HTTP/1.1 100") == 0 || (at != 0 && sent[at - 1] == ':') ? 0 : 1;
    }
    std::size_t complete = 0;
    for (const auto& seen : r.requests) complete += seen.complete ? 1 : 0;
    ASSERT_LE(r.errors, 1);
    ASSERT_LE(complete, responses) << input;
    ASSERT_LE(responses, complete + 1) << input;
    good += complete;
    refused += r.error_status > 0 ? 1 : 0;
  }
  EXPECT_GT(good, 1000U);
  EXPECT_GT(refused, 1000U);
}

}  // namespace
}  // namespace fastserve
