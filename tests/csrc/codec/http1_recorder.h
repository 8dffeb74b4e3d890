// A front end for tests of Http1Session: writes down what happens, answers when told, and shows what went to the wire.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codec/http1_session.h"

namespace fastserve {

inline std::span<const std::byte> wire(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class Http1Recorder : public Http1Events {
 public:
  struct Seen {
    std::string line;  // "POST /path"
    std::string query;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    bool complete = false;
    bool chunked = false;
    bool keep_alive = false;
    std::optional<std::uint64_t> content_length;
  };

  explicit Http1Recorder(const Http1Limits& limits = {}) : session(*this, limits) {}

  ByteBuffer* on_request(const Http1Head& head) override {
    Seen& seen = requests.emplace_back();
    seen.line = std::string(head.method) + " " + std::string(head.path);
    seen.query = head.query;
    seen.chunked = head.chunked;
    seen.keep_alive = head.keep_alive;
    seen.content_length = head.content_length;
    for (const Http1Header& h : head.headers) seen.headers.emplace_back(h.name, h.value);
    if (answer_at_head) answer();
    buffer.clear();
    return use_buffer ? &buffer : nullptr;
  }
  void on_body(std::span<const std::byte> piece) override {
    requests.back().body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
  void on_end() override {
    requests.back().complete = true;
    if (use_buffer) requests.back().body = buffer.view();
    if (answer_at_end) answer();
  }
  void on_error(int status, std::string_view reason) override {
    error_status = status;
    error_reason = reason;
    ++errors;
  }

  // Answers the open request with its own number and body.
  void answer(int status = 200) {
    const std::string text = std::to_string(requests.size()) + ":" +
                             (use_buffer ? std::string(buffer.view()) : requests.back().body);
    session.respond(status, {}, text);
  }

  Status feed(std::string_view text, Nanos now = 0) { return session.feed(wire(text), now); }

  // Everything that the session wants to send since the last call.
  std::string sent() {
    session.write(queue);
    std::string out;
    while (!queue.empty()) {
      iovec parts[8];
      const std::size_t n = queue.gather(parts);
      std::size_t bytes = 0;
      for (std::size_t i = 0; i < n; ++i) {
        out.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
        bytes += parts[i].iov_len;
      }
      queue.consume(bytes);
    }
    return out;
  }

  Http1Session session;
  WriteQueue queue;
  std::deque<Seen> requests;
  ByteBuffer buffer;
  bool use_buffer = true;
  bool answer_at_end = false;
  bool answer_at_head = false;
  int errors = 0;
  int error_status = -1;
  std::string error_reason;
};

}  // namespace fastserve
