#include "frontend/http_connection.h"

#include <algorithm>
#include <cstring>

#include "frontend/http1_rest.h"
#include "frontend/http2_rest.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::span<const std::byte> preface(std::size_t bytes) {
  return std::as_bytes(std::span(kPreface.data(), bytes));
}

// Calls of one thread share it: an answer is encoded and given to its session before the next one begins.
RestAnswer& scratch_answer() {
  static thread_local RestAnswer answer;
  return answer;
}

}  // namespace

HttpConnection::HttpConnection(IoLoop& loop, int fd, void* driver)
    : Connection(loop, fd, driver), session_(std::make_unique<Http1Rest>(loop, *this)) {}

HttpConnection::~HttpConnection() = default;

void HttpConnection::feed(std::span<const std::byte> bytes, Nanos now) {
  if (decided_) return session_->feed(bytes, now);
  if (preface_bytes_ == 0) first_byte_at_ = now;
  const std::size_t n = std::min(bytes.size(), kPreface.size() - preface_bytes_);
  if (std::memcmp(bytes.data(), kPreface.data() + preface_bytes_, n) != 0) {
    settle_for_http1(now);
    return session_->feed(bytes, now);
  }
  preface_bytes_ += n;
  if (preface_bytes_ < kPreface.size()) return;
  decided_ = true;
  session_ = std::make_unique<Http2Rest>(loop_, *this);
  if (loop_.draining()) session_->shutdown();
  session_->feed(preface(kPreface.size()), now);
  if (n < bytes.size()) session_->feed(bytes.subspan(n), now);
}

void HttpConnection::settle_for_http1(Nanos now) {
  if (decided_) return;
  decided_ = true;
  if (preface_bytes_ != 0) session_->feed(preface(preface_bytes_), now);
}

void HttpConnection::end_of_input() {
  settle_for_http1(first_byte_at_);
  session_->end_of_input();
}

// A client that stops within the preface gets no more time than one that stops within a request's head.
bool HttpConnection::tick(Nanos now) {
  if (preface_bytes_ != 0 && now - first_byte_at_ >= Http1Limits{}.head_timeout_ns) {
    settle_for_http1(first_byte_at_);
  }
  return session_->tick(now);
}

void HttpConnection::deliver(Call& call, Nanos now) {
  RestAnswer& answer = scratch_answer();
  answer_inference(loop_, call, answer);
  session_->answer(call, answer, now);
}

void HttpConnection::respond(Call& call, int status, RestFields headers, std::span<const std::byte> body) {
  RestAnswer& answer = scratch_answer();
  answer_cold(call, status, headers, body, answer);
  session_->answer(call, answer, monotonic_now());
}

void HttpConnection::cancel_inferences() {
  for (Call* call : calls_) {
    if (call->in_engine) call->request.cancel();
  }
}

}  // namespace fastserve
