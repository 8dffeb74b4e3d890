// Two ends for tests of Http2Session: an nghttp2 client session, a writer of raw frames, and an Http2Events that records.
#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "codec/http2_session.h"

namespace fastserve::testing {

using Headers = std::vector<std::pair<std::string, std::string>>;

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline nghttp2_nv nv(const std::pair<std::string, std::string>& h) {
  const auto bytes = [](const std::string& s) {
    return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(s.data()));
  };
  return {bytes(h.first), bytes(h.second), h.first.size(), h.second.size(), NGHTTP2_NV_FLAG_NONE};
}

inline Headers grpc_request(const std::string& path = "/inference.GRPCInferenceService/ModelInfer") {
  return {{":method", "POST"},
          {":scheme", "http"},
          {":path", path},
          {":authority", "localhost:8001"},
          {"content-type", "application/grpc"},
          {"te", "trailers"},
          {"user-agent", "test"}};
}

// --- the server's side

struct Seen {
  Headers head;  // pseudo-headers by name, then the fields
  std::string body;
  int ends = 0;
  int closed = 0;
  Http2Error error = Http2Error::kNoError;
};

class Recorder : public Http2Events {
 public:
  std::map<StreamId, Seen> streams;
  std::function<void(StreamId)> when_request = [](StreamId) {};
  std::function<void(StreamId)> when_data = [](StreamId) {};
  std::function<void(StreamId)> when_end = [](StreamId) {};
  std::function<void(StreamId)> when_closed = [](StreamId) {};

  void on_request(StreamId id, const Http2Head& head) override {
    EXPECT_FALSE(streams.contains(id));
    Seen& seen = streams[id];
    seen.head = {{":method", std::string(head.method)},
                 {":path", std::string(head.path)},
                 {":authority", std::string(head.authority)},
                 {":scheme", std::string(head.scheme)}};
    for (const Http2Header& f : head.fields) seen.head.emplace_back(f.name, f.value);
    when_request(id);
  }
  void on_data(StreamId id, std::span<const std::byte> bytes) override {
    EXPECT_FALSE(bytes.empty());
    open(id).body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    when_data(id);
  }
  void on_end(StreamId id) override {
    ++open(id).ends;
    when_end(id);
  }
  void on_closed(StreamId id, Http2Error error) override {
    Seen& seen = open(id);
    ++seen.closed;
    seen.error = error;
    when_closed(id);
  }
  std::size_t closed() const {
    return static_cast<std::size_t>(
        std::count_if(streams.begin(), streams.end(), [](const auto& s) { return s.second.closed == 1; }));
  }

 private:
  Seen& open(StreamId id) {
    EXPECT_TRUE(streams.contains(id)) << id;
    EXPECT_EQ(streams[id].closed, 0) << id;
    return streams[id];
  }
};

inline std::string drain(WriteQueue& queue) {
  std::string out;
  std::array<iovec, 8> iov;
  while (!queue.empty()) {
    std::size_t n = 0;
    for (const iovec& v : std::span(iov).first(queue.gather(iov))) {
      out.append(static_cast<const char*>(v.iov_base), v.iov_len);
      n += v.iov_len;
    }
    queue.consume(n);
  }
  return out;
}

inline std::string written(Http2Session& session) {
  std::string out;
  do {
    WriteQueue queue;
    session.write(queue);
    out += drain(queue);
  } while (session.blocked());
  return out;
}

// --- the client's side

struct Reply {
  Headers headers;
  Headers trailers;
  std::string body;
  bool ended = false;
  bool closed = false;
  std::uint32_t error = 0;
};

class Client {
 public:
  explicit Client(std::uint32_t stream_window = 65535) {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_close);
    nghttp2_session_client_new(&session_, c, this);
    nghttp2_session_callbacks_del(c);
    const nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &window, 1);
  }
  ~Client() { nghttp2_session_del(session_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  StreamId request(const Headers& headers, std::string body) {
    std::vector<nghttp2_nv> list;
    for (const auto& h : headers) list.push_back(nv(h));
    const nghttp2_data_provider provider{{.ptr = this}, read_body};
    const StreamId id =
        nghttp2_submit_request(session_, nullptr, list.data(), list.size(), &provider, nullptr);
    bodies_[id] = std::move(body);
    return id;
  }
  // A request that stays open: no END_STREAM.
  StreamId open(const Headers& headers) {
    std::vector<nghttp2_nv> list;
    for (const auto& h : headers) list.push_back(nv(h));
    return nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, -1, nullptr, list.data(), list.size(),
                                  nullptr);
  }
  // A request whose body comes in pieces: send() and finish().
  StreamId stream(const Headers& headers) {
    const StreamId id = request(headers, "");
    streams_.insert(id);
    return id;
  }
  void send(StreamId id, std::string_view bytes) {
    bodies_[id] += bytes;
    nghttp2_session_resume_data(session_, id);
  }
  void finish(StreamId id) {
    streams_.erase(id);
    nghttp2_session_resume_data(session_, id);
  }
  std::size_t unsent(StreamId id) { return bodies_[id].size(); }  // what flow control holds back
  void reset(StreamId id, std::uint32_t error) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, error);
  }

  std::string take() {
    std::string out;
    const std::uint8_t* data = nullptr;
    for (ssize_t n = 0; (n = nghttp2_session_mem_send(session_, &data)) > 0;) {
      out.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(n));
    }
    return out;
  }
  void feed(std::string_view bytes) {
    const ssize_t n =
        nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    EXPECT_EQ(n, static_cast<ssize_t>(bytes.size())) << nghttp2_strerror(static_cast<int>(n));
  }
  nghttp2_session* raw() { return session_; }

  std::map<StreamId, Reply> replies;
  std::vector<nghttp2_goaway> goaways;
  std::vector<std::string> goaway_reasons;
  int pings = 0;         // received
  int ping_answers = 0;  // to ours

 private:
  static Client& of(void* p) { return *static_cast<Client*>(p); }
  static int on_header(nghttp2_session*, const nghttp2_frame* f, const std::uint8_t* n, std::size_t ns,
                       const std::uint8_t* v, std::size_t vs, std::uint8_t, void* p) {
    Reply& reply = of(p).replies[f->hd.stream_id];
    auto& list = f->headers.cat == NGHTTP2_HCAT_HEADERS ? reply.trailers : reply.headers;
    list.emplace_back(std::string(reinterpret_cast<const char*>(n), ns),
                      std::string(reinterpret_cast<const char*>(v), vs));
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, StreamId id, const std::uint8_t* data, std::size_t size,
                     void* p) {
    of(p).replies[id].body.append(reinterpret_cast<const char*>(data), size);
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* f, void* p) {
    if (f->hd.type == NGHTTP2_GOAWAY) {
      of(p).goaways.push_back(f->goaway);
      of(p).goaway_reasons.emplace_back(reinterpret_cast<const char*>(f->goaway.opaque_data),
                                        f->goaway.opaque_data_len);
    } else if (f->hd.type == NGHTTP2_PING) {
      (f->hd.flags & NGHTTP2_FLAG_ACK) != 0 ? ++of(p).ping_answers : ++of(p).pings;
    } else if ((f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) &&
               (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
      of(p).replies[f->hd.stream_id].ended = true;
    }
    return 0;
  }
  static int on_close(nghttp2_session*, StreamId id, std::uint32_t error, void* p) {
    of(p).replies[id].closed = true;
    of(p).replies[id].error = error;
    return 0;
  }
  static ssize_t read_body(nghttp2_session*, StreamId id, std::uint8_t* buf, std::size_t size,
                           std::uint32_t* flags, nghttp2_data_source*, void* p) {
    std::string& body = of(p).bodies_[id];
    const std::size_t n = std::min(size, body.size());
    std::copy_n(body.data(), n, buf);
    body.erase(0, n);
    const bool more = of(p).streams_.contains(id);
    if (n == 0 && more) return NGHTTP2_ERR_DEFERRED;
    if (body.empty() && !more) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }

  nghttp2_session* session_ = nullptr;
  std::map<StreamId, std::string> bodies_;
  std::set<StreamId> streams_;
};

// Carries bytes both ways, the client's in pieces of at most `cut`, until neither has more to say.
inline void exchange(Client& client, Http2Session& session, std::size_t cut = SIZE_MAX, Nanos now = 0) {
  for (int idle = 0; idle < 2;) {
    const std::string up = client.take();
    for (std::size_t at = 0; at < up.size(); at += std::min(cut, up.size() - at)) {
      ASSERT_TRUE(session.feed(as_bytes(std::string_view(up).substr(at, cut)), now).is_ok());
    }
    const std::string down = written(session);
    client.feed(down);
    idle = up.empty() && down.empty() ? idle + 1 : 0;
  }
}

// --- raw frames, RFC 9113 section 4.1

class RawFrames {
 public:
  RawFrames() { nghttp2_hd_deflate_new(&deflater_, 4096); }
  ~RawFrames() { nghttp2_hd_deflate_del(deflater_); }
  RawFrames(const RawFrames&) = delete;
  RawFrames& operator=(const RawFrames&) = delete;

  static std::string preface() {
    return std::string(NGHTTP2_CLIENT_MAGIC) + frame(NGHTTP2_SETTINGS, 0, 0, "");
  }
  static std::string frame(std::uint8_t type, std::uint8_t flags, StreamId id, std::string_view payload) {
    std::string out = be(payload.size(), 3);
    out += static_cast<char>(type);
    out += static_cast<char>(flags);
    return out + be(static_cast<std::uint32_t>(id), 4) + std::string(payload);
  }
  static std::string be(std::size_t value, int bytes) {
    std::string out;
    for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
    return out;
  }
  std::string block(const Headers& headers) {
    std::vector<nghttp2_nv> list;
    for (const auto& h : headers) list.push_back(nv(h));
    std::string out(nghttp2_hd_deflate_bound(deflater_, list.data(), list.size()), '\0');
    const ssize_t n = nghttp2_hd_deflate_hd(deflater_, reinterpret_cast<std::uint8_t*>(out.data()),
                                            out.size(), list.data(), list.size());
    out.resize(static_cast<std::size_t>(n));
    return out;
  }
  std::string headers(StreamId id, const Headers& list, std::uint8_t flags = NGHTTP2_FLAG_END_HEADERS) {
    return frame(NGHTTP2_HEADERS, flags, id, block(list));
  }

 private:
  nghttp2_hd_deflater* deflater_ = nullptr;
};

}  // namespace fastserve::testing
