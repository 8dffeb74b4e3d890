#include "frontend/connection.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "frontend/io_loop.h"

namespace fastserve {
namespace {

constexpr std::size_t kIovecs = 32;

// sendmsg instead of writev: MSG_NOSIGNAL spares the process a SIGPIPE. Bytes written, -1 = full, -2 = broken.
ssize_t send_some(int fd, std::span<iovec> pieces) {
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  while (true) {
    const ssize_t sent = pieces.size() == 1 ? ::send(fd, pieces[0].iov_base, pieces[0].iov_len, kFlags)
                                            : ::sendmsg(fd, &message, kFlags);
    if (sent >= 0) return sent;
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK ? -1 : -2;
  }
}

}  // namespace

// Runs after the session is gone, so no event can come any more.
Connection::~Connection() {
  if (tls_ != nullptr) end_tls();
  loop_.forget_calls(calls_.size());
  for (Call* call : std::exchange(calls_, {})) {
    call->connection = nullptr;
    call->stream_open = false;
    loop_.abandon(*call);
    loop_.let_go(*call);
  }
}

bool Connection::flush() {
  if (broken_) return true;
  pump_all();
  while (!driver_writes_ && !out_.empty()) {
    std::array<iovec, kIovecs> pieces;
    const std::size_t count = out_.gather(pieces);
    const ssize_t sent = send_some(fd_, std::span(pieces).first(count));
    if (sent == -2) {
      broken_ = true;
      return true;
    }
    if (sent == -1) break;
    loop_.count_sent(static_cast<std::size_t>(sent));
    out_.consume(static_cast<std::size_t>(sent));
    if (out_.empty()) pump_all();  // the session held back what did not fit under its high-water mark
  }
  const bool pause = !wants_input();
  const bool changed = pause != paused_;
  paused_ = pause;
  return changed || (!driver_writes_ && !out_.empty()) || finished();
}

std::span<const std::byte> Connection::front() const {
  std::array<iovec, 1> piece;
  if (out_.gather(piece) == 0) return {};
  return {static_cast<const std::byte*>(piece[0].iov_base), piece[0].iov_len};
}

std::string with_request_id(std::string_view id, std::string_view message) {
  constexpr std::size_t kEchoBytes = 128;
  std::string out = "[request id: ";
  out += id.empty() ? std::string_view("<id_unknown>") : id.substr(0, kEchoBytes);
  out += "] ";
  return out += message;
}

}  // namespace fastserve
