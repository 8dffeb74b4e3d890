#include "codec/tls_session.h"

#include <gtest/gtest.h>

#include <random>

#include "codec/tls_client.h"

namespace fastserve {
namespace {

using testing::Authority;
using testing::ClientWishes;
using testing::Pem;
using testing::take_all;
using testing::TlsClient;
using testing::TlsServer;

class TlsSessionTest : public ::testing::Test {
 protected:
  std::shared_ptr<const TlsConfiguration> configuration(TlsVersion min_version = TlsVersion::k12,
                                                        bool mutual = false) {
    TlsIdentity identity{{own_.certificate, "cert.pem"}, {own_.key, "key.pem"}, {}, min_version};
    const std::string client_ca = clients_.pem();
    if (mutual) identity.client_ca = {client_ca, "ca.pem"};
    auto made = TlsConfiguration::make(identity);
    EXPECT_TRUE(made.is_ok()) << made.status().message();
    return *made;
  }
  ClientWishes wishes() const {
    ClientWishes out;
    out.authority = authority_.pem();
    return out;
  }
  // How a handshake ended.
  TlsFailure outcome(const ClientWishes& client_wishes, TlsServer& server) {
    TlsClient client(client_wishes);
    converse(client, server);
    client_error_ = client.error;
    EXPECT_EQ(server.session.established(), !server.session.failed());
    return server.session.failure();
  }

  Authority authority_{"servers"};
  Authority clients_{"clients"};
  Pem own_ = authority_.issue("localhost");
  std::string client_error_;
};

TEST_F(TlsSessionTest, ShakesHandsAndCarriesBothWays) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer server(configuration());
    ClientWishes client_wishes = wishes();
    client_wishes.highest = version;
    TlsClient client(client_wishes);
    converse(client, server);
    ASSERT_TRUE(server.session.established()) << server.session.error();
    EXPECT_EQ(server.session.protocol(), "h2");
    EXPECT_EQ(server.session.version(), version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
    client.say("from the client");
    server.say("from the server");
    converse(client, server);
    EXPECT_EQ(server.received, "from the client");
    EXPECT_EQ(client.received, "from the server");
  }
}

TEST_F(TlsSessionTest, AnyCutOfTheBytes) {
  TlsServer server(configuration(TlsVersion::k12, true));
  ClientWishes client_wishes = wishes();
  client_wishes.own = clients_.issue("client");
  TlsClient client(client_wishes);
  std::string sent;
  for (int round = 0; round < 10; ++round) {
    if (client.established() && sent.empty()) client.say(sent = std::string(40000, 'x'));
    client.step();
    for (const char byte : client.take_output()) server.feed({&byte, 1});
    for (const char byte : take_all(server.out)) {
      client.give({&byte, 1});
      client.step();
    }
  }
  EXPECT_TRUE(server.session.established()) << server.session.error();
  EXPECT_EQ(server.received, sent);
}

TEST_F(TlsSessionTest, OutputWaitsForTheHandshake) {
  TlsServer server(configuration());
  server.say("early");
  EXPECT_TRUE(server.out.empty());
  EXPECT_EQ(server.plaintext.bytes(), 5U);
  TlsClient client(wishes());
  converse(client, server);
  EXPECT_EQ(client.received, "early");
}

TEST_F(TlsSessionTest, LargeDataBothWaysWithABoundOnWhatWaits) {
  TlsServer server(configuration());
  TlsClient client(wishes());
  converse(client, server);
  std::string tensor(3'000'000, '\0');
  std::mt19937 random(1);
  for (char& c : tensor) c = static_cast<char>(random());
  client.say(tensor);
  converse(client, server);
  EXPECT_TRUE(server.received == tensor);
  const auto keep = std::make_shared<std::string>(tensor);
  server.plaintext.append("head");
  server.plaintext.reference(std::as_bytes(std::span(keep->data(), keep->size())), keep);
  server.plaintext.append("tail");
  server.session.write(server.plaintext);
  EXPECT_GE(server.out.bytes(), TlsSession::kHighWaterBytes);
  EXPECT_LT(server.out.bytes(), TlsSession::kHighWaterBytes + 17 * 1024);
  EXPECT_GT(server.plaintext.bytes(), 2'800'000U);
  converse(client, server);
  EXPECT_TRUE(client.received == "head" + tensor + "tail");
  EXPECT_EQ(keep.use_count(), 1);
}

// A frame header and its payload make one record; so do many small pieces.
TEST_F(TlsSessionTest, SmallPiecesShareARecord) {
  TlsServer server(configuration());
  TlsClient client(wishes());
  converse(client, server);
  const auto keep = std::make_shared<std::string>(12'000, 'a');
  for (int i = 0; i < 3; ++i) {
    server.plaintext.append("123456789");
    server.plaintext.reference(std::as_bytes(std::span(keep->data(), 1200)), keep);
  }
  server.session.write(server.plaintext);
  EXPECT_EQ(server.out.bytes(), 3 * 1209U + 5 + 17);  // header; content type and tag
}

TEST_F(TlsSessionTest, Versions) {
  TlsServer modern(configuration());
  ClientWishes old = wishes();
  old.lowest = TLS1_VERSION;
  old.highest = TLS1_1_VERSION;
  EXPECT_EQ(outcome(old, modern), TlsFailure::kVersion);
  EXPECT_NE(client_error_.find("protocol version"), std::string::npos) << client_error_;
  TlsServer strict(configuration(TlsVersion::k13));
  ClientWishes twelve = wishes();
  twelve.highest = TLS1_2_VERSION;
  EXPECT_EQ(outcome(twelve, strict), TlsFailure::kVersion);
  TlsServer strict_again(configuration(TlsVersion::k13));
  EXPECT_EQ(outcome(wishes(), strict_again), TlsFailure::kNone);
}

TEST_F(TlsSessionTest, OldCiphersAreRefused) {
  TlsServer server(configuration());
  ClientWishes client_wishes = wishes();
  client_wishes.highest = TLS1_2_VERSION;
  client_wishes.ciphers = "ECDHE-ECDSA-AES128-SHA:AES128-SHA";
  EXPECT_EQ(outcome(client_wishes, server), TlsFailure::kCipher);
  EXPECT_EQ(server.session.error(), "no cipher, group or signature algorithm in common");
}

TEST_F(TlsSessionTest, Protocols) {
  struct Case {
    TlsProtocols ours;
    std::string offered;
    TlsFailure failure;
    std::string chosen;
  };
  const Case cases[] = {
      {TlsProtocols::kHttp2, "\x02h2", TlsFailure::kNone, "h2"},
      {TlsProtocols::kHttp2, "\x08http/1.1\x02h2", TlsFailure::kNone, "h2"},
      {TlsProtocols::kHttp2, "\x08http/1.1", TlsFailure::kProtocol, ""},
      {TlsProtocols::kHttp2, "", TlsFailure::kProtocol, ""},
      {TlsProtocols::kHttp1OrHttp2, "", TlsFailure::kNone, ""},
      {TlsProtocols::kHttp1OrHttp2, "\x08http/1.1", TlsFailure::kNone, "http/1.1"},
      {TlsProtocols::kHttp1OrHttp2, "\x08http/1.1\x02h2", TlsFailure::kNone, "h2"},
      {TlsProtocols::kHttp1OrHttp2, "\x08http/1.0", TlsFailure::kProtocol, ""},
  };
  for (const Case& each : cases) {
    TlsServer server(configuration(), each.ours);
    ClientWishes client_wishes = wishes();
    client_wishes.alpn = each.offered;
    EXPECT_EQ(outcome(client_wishes, server), each.failure) << each.offered;
    if (each.failure == TlsFailure::kNone) {
      EXPECT_EQ(server.session.protocol(), each.chosen);
    } else {
      EXPECT_NE(client_error_.find("no application protocol"), std::string::npos) << client_error_;
    }
  }
}

TEST_F(TlsSessionTest, MutualTls) {
  struct Case {
    Pem own;
    TlsFailure failure;
    std::string error;
  };
  const Case cases[] = {
      {clients_.issue("good"), TlsFailure::kNone, ""},
      {{}, TlsFailure::kNoClientCertificate, "the client shows no certificate"},
      {clients_.issue("old", "clientAuth", -100, -10), TlsFailure::kClientCertificate,
       "client certificate CN=old: certificate has expired"},
      {clients_.issue("early", "clientAuth", 1000, 2000), TlsFailure::kClientCertificate,
       "client certificate CN=early: certificate is not yet valid"},
      {authority_.issue("stranger"), TlsFailure::kClientCertificate,
       "client certificate CN=stranger: unable to get local issuer certificate"},
      {clients_.issue("server", "serverAuth"), TlsFailure::kClientCertificate,
       "client certificate CN=server: unsuitable certificate purpose"},
  };
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (const Case& each : cases) {
      TlsServer server(configuration(TlsVersion::k12, true));
      ClientWishes client_wishes = wishes();
      client_wishes.own = each.own;
      client_wishes.highest = version;
      EXPECT_EQ(outcome(client_wishes, server), each.failure) << each.error;
      EXPECT_EQ(server.session.error(), each.error);
    }
  }
}

TEST_F(TlsSessionTest, AClientThatDoesNotTrustUsSaysSo) {
  TlsServer server(configuration());
  ClientWishes client_wishes = wishes();
  client_wishes.authority = clients_.pem();
  TlsClient client(client_wishes);
  converse(client, server);
  EXPECT_EQ(server.session.failure(), TlsFailure::kRefusedByClient);
  EXPECT_EQ(server.session.error(), "the client sent the alert \"unknown CA\"");
}

TEST_F(TlsSessionTest, PlainTextIsAnsweredInPlainText) {
  for (const std::string_view request :
       {"GET /v2 HTTP/1.1\r\n\r\n", "POST /v2/models/m/infer HTTP/1.1\r\n", "OPTIONS * HTTP/1.1"}) {
    TlsServer server(configuration(), TlsProtocols::kHttp1OrHttp2);
    server.feed(request.substr(0, 2));
    EXPECT_FALSE(server.session.failed());
    server.feed(request.substr(2));
    EXPECT_EQ(server.session.failure(), TlsFailure::kPlainText);
    EXPECT_EQ(take_all(server.out),
              "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 35\r\nconnection: "
              "close\r\n\r\n"
              "this port speaks TLS, use https://\n");
  }
  TlsServer server(configuration());
  server.feed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  const std::string answer = take_all(server.out);
  EXPECT_EQ(answer.substr(0, 9), std::string("\0\0\0\x04\0\0\0\0\0", 9));
  EXPECT_EQ(static_cast<unsigned char>(answer[9 + 3]), 7);  // GOAWAY
  EXPECT_TRUE(answer.ends_with("this port speaks TLS"));
  EXPECT_EQ(server.session.error(), "the client speaks HTTP/2 without TLS");
}

TEST_F(TlsSessionTest, OtherPlainBytesAreRefusedAtTheFirst) {
  TlsServer server(configuration());
  server.feed(std::string(1, '\0'));
  EXPECT_EQ(server.session.failure(), TlsFailure::kNotTls);
  EXPECT_EQ(server.session.error(), "the first byte is 0, want a TLS handshake");
  EXPECT_TRUE(server.out.empty());
}

TEST_F(TlsSessionTest, CloseNotifyBothWays) {
  TlsServer server(configuration());
  TlsClient client(wishes());
  converse(client, server);
  client.say("last words");
  SSL_shutdown(client.native());
  converse(client, server);
  EXPECT_EQ(server.received, "last words");
  EXPECT_TRUE(server.session.peer_closed());
  server.say("the answer");  // a half-closed client still gets it
  server.session.close();
  server.session.end_of_input();
  EXPECT_FALSE(server.session.truncated());
  client.give(take_all(server.out));
  std::array<char, 100> piece;
  EXPECT_EQ(SSL_read(client.native(), piece.data(), 100), 10);
  EXPECT_EQ(SSL_get_error(client.native(), SSL_read(client.native(), piece.data(), 100)),
            SSL_ERROR_ZERO_RETURN);
  server.say("too late");
  EXPECT_TRUE(server.out.empty());
  EXPECT_TRUE(server.plaintext.empty());
}

TEST_F(TlsSessionTest, AnEndWithoutCloseNotifyIsATruncation) {
  TlsServer server(configuration());
  TlsClient client(wishes());
  converse(client, server);
  server.session.end_of_input();
  EXPECT_TRUE(server.session.peer_closed());
  EXPECT_TRUE(server.session.truncated());
  EXPECT_FALSE(server.session.failed());
  TlsServer early(configuration());
  TlsClient gone(wishes());
  gone.step();
  early.feed(gone.take_output());
  early.session.end_of_input();
  EXPECT_EQ(early.session.failure(), TlsFailure::kCutOff);
  EXPECT_FALSE(early.session.truncated());
}

TEST_F(TlsSessionTest, ATamperedRecordEndsTheConnection) {
  TlsServer server(configuration());
  TlsClient client(wishes());
  converse(client, server);
  client.say("an order");
  std::string bytes = client.take_output();
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  server.feed(bytes);
  EXPECT_EQ(server.received, "");
  EXPECT_EQ(server.session.failure(), TlsFailure::kViolation);
  EXPECT_EQ(server.session.error(), "decryption failed or bad record mac");
  EXPECT_FALSE(server.out.empty());  // the alert
  server.say("dropped");
  EXPECT_TRUE(server.plaintext.empty());
}

TEST_F(TlsSessionTest, RenegotiationIsRefused) {
  TlsServer server(configuration());
  ClientWishes client_wishes = wishes();
  client_wishes.highest = TLS1_2_VERSION;
  TlsClient client(client_wishes);
  converse(client, server);
  ASSERT_EQ(SSL_renegotiate(client.native()), 1);
  SSL_do_handshake(client.native());
  server.feed(client.take_output());
  client.give(take_all(server.out));
  SSL_do_handshake(client.native());
  EXPECT_EQ(SSL_get_secure_renegotiation_support(client.native()), 1);
  EXPECT_EQ(SSL_total_renegotiations(client.native()), 1);  // asked for
  EXPECT_EQ(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
  ERR_clear_error();
}

TEST_F(TlsSessionTest, NoTicketsAndNoCompression) {
  TlsServer server(configuration());
  TlsClient client(wishes());
  converse(client, server);
  EXPECT_EQ(SSL_session_reused(client.native()), 0);
  EXPECT_EQ(SSL_SESSION_is_resumable(SSL_get_session(client.native())), 0);
  EXPECT_EQ(SSL_get_current_compression(client.native()), nullptr);
}

TEST_F(TlsSessionTest, TheHandshakeHasATimeLimit) {
  TlsLimits limits;
  limits.handshake_timeout_ns = 3 * kSecond;
  TlsServer server(configuration(), TlsProtocols::kHttp2, limits);
  TlsClient client(wishes());
  client.step();
  server.feed(client.take_output());
  server.session.expire(3 * kSecond - 1);
  EXPECT_FALSE(server.session.failed());
  server.session.expire(3 * kSecond);
  EXPECT_EQ(server.session.failure(), TlsFailure::kTimeout);
  EXPECT_EQ(server.session.error(), "the handshake was not complete after 3 s");
  TlsServer done(configuration(), TlsProtocols::kHttp2, limits);
  TlsClient quick(wishes());
  converse(quick, done);
  done.session.expire(100 * kSecond);
  EXPECT_FALSE(done.session.failed());
}

// limit - 1, limit, limit + 1 bytes of a ClientHello that says it has 16,000 and does not end.
TEST_F(TlsSessionTest, TheHandshakeHasASizeLimit) {
  TlsLimits limits;
  limits.handshake_bytes = 1000;
  for (const std::size_t size : {999U, 1000U, 1001U}) {
    TlsServer server(configuration(), TlsProtocols::kHttp2, limits);
    std::string hello("\x16\x03\x01\x3e\x84\x01\x00\x3e\x80\x03\x03", 11);
    hello.resize(size, 'x');
    server.feed(hello);
    EXPECT_EQ(server.session.failure(), size > 1000 ? TlsFailure::kTooLarge : TlsFailure::kNone) << size;
  }
}

TEST_F(TlsSessionTest, KeyUpdatesAreCounted) {
  TlsLimits limits;
  limits.key_updates = 5;
  for (const std::uint32_t count : {4U, 5U, 6U}) {
    TlsServer server(configuration(), TlsProtocols::kHttp2, limits);
    TlsClient client(wishes());
    converse(client, server);
    for (std::uint32_t i = 0; i < count; ++i) {
      SSL_key_update(client.native(), SSL_KEY_UPDATE_REQUESTED);
      client.say("x");
      converse(client, server);
    }
    EXPECT_EQ(server.session.failed(), count > limits.key_updates) << count;
    if (count > limits.key_updates) continue;
    EXPECT_EQ(server.received, std::string(count, 'x'));
  }
}

TEST_F(TlsSessionTest, ReloadLeavesOpenConnectionsAlone) {
  auto old = configuration();
  TlsServer server(old);
  TlsClient client(wishes());
  converse(client, server);
  old.reset();
  client.say("still here");
  converse(client, server);
  EXPECT_EQ(server.received, "still here");
}

TEST_F(TlsSessionTest, RsaKeysWork) {
  own_ = authority_.issue("localhost", "serverAuth", -60, 3600, true);
  TlsServer server(configuration());
  EXPECT_EQ(outcome(wishes(), server), TlsFailure::kNone) << server.session.error();
}

// Whatever comes: no crash, no endless loop, and never plaintext that was not sent.
TEST_F(TlsSessionTest, Garbage) {
  std::mt19937 random(7);
  const auto shared = configuration();
  for (int round = 0; round < 3000; ++round) {
    TlsServer server(shared, TlsProtocols::kHttp1OrHttp2);
    TlsClient client(wishes());
    client.step();
    std::string bytes = client.take_output();
    const int kind = round % 3;
    if (kind == 0) {
      bytes.resize(random() % 600);
      for (char& c : bytes) c = static_cast<char>(random());
      if (!bytes.empty()) bytes[0] = '\x16';
    } else {
      for (unsigned flips = 1 + random() % 4; flips > 0; --flips)
        bytes[random() % bytes.size()] ^= static_cast<char>(1U << random() % 8);
      if (kind == 2) bytes.resize(random() % bytes.size());
    }
    server.feed(bytes);
    server.feed(bytes);
    EXPECT_EQ(server.received, "");
    server.session.end_of_input();
    EXPECT_TRUE(server.session.failed());
    EXPECT_FALSE(server.session.error().empty());
  }
}

// The same after the handshake: mutated application data.
TEST_F(TlsSessionTest, GarbageAfterTheHandshake) {
  std::mt19937 random(8);
  const auto shared = configuration();
  for (int round = 0; round < 300; ++round) {
    TlsServer server(shared);
    TlsClient client(wishes());
    converse(client, server);
    client.say("0123456789");
    std::string bytes = client.take_output();
    bytes[random() % bytes.size()] ^= static_cast<char>(1U << random() % 8);
    server.feed(bytes);
    server.feed(std::string(300, '\xff'));
    EXPECT_EQ(server.received, "");
    EXPECT_TRUE(server.session.failed() || server.session.established());
  }
}

TEST(TlsFailures, HaveNames) {
  for (std::size_t i = 0; i < kTlsFailures; ++i) {
    EXPECT_NE(tls_failure_name(static_cast<TlsFailure>(i)), "unknown");
  }
  EXPECT_EQ(tls_failure_name(TlsFailure::kViolation), "violation");
}

}  // namespace
}  // namespace fastserve
