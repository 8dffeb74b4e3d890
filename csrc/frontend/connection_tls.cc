// The part of Connection that connections without TLS never come to.
#include <array>

#include "frontend/connection.h"
#include "frontend/io_loop.h"

namespace fastserve {

void Connection::start_tls(std::shared_ptr<const TlsConfiguration> configuration, TlsProtocols protocols,
                           Nanos now, const TlsLimits& limits) {
  tls_ = std::make_unique<Tls>(std::move(configuration), protocols, out_, now, limits);
}

void Connection::receive_tls(std::span<const std::byte> bytes, Nanos now) {
  std::array<std::byte, TlsSession::kRecordBytes> scratch;
  TlsSession& session = tls_->session;
  session.feed(bytes);
  for (auto piece = session.read(scratch); !piece.empty(); piece = session.read(scratch)) feed(piece, now);
  note_tls();
}

void Connection::input_ended() {
  if (tls_ == nullptr) return end_of_input();
  tls_->session.end_of_input();
  note_tls();
}

bool Connection::check_time(Nanos now) {
  bool passed = false;
  if (tls_ != nullptr) {
    tls_->session.expire(now);
    note_tls();
    passed = tls_->session.failed();
  }
  return tick(now) || passed;
}

// After anything that may have changed the state of the TLS session.
void Connection::note_tls() {
  const TlsSession& session = tls_->session;
  if (session.failed()) {
    if (!std::exchange(tls_->failure_counted, true)) loop_.note_tls_failure(*this, session);
    return;
  }
  if (session.established() && !std::exchange(tls_->handshake_counted, true)) loop_.count_tls_handshake();
  if (session.peer_closed() && !std::exchange(tls_->end_told, true)) {
    if (session.truncated()) loop_.count_tls_truncated();
    end_of_input();
  }
}

// The socket is gone. There is no session any more that could be told.
void Connection::end_tls() {
  tls_->end_told = true;
  tls_->session.end_of_input();
  note_tls();
}

void Connection::pump_tls() {
  TlsSession& session = tls_->session;
  pump(tls_->plaintext);
  session.write(tls_->plaintext);
  if (session_done() && tls_->plaintext.empty()) session.close();
  note_tls();
}

bool Connection::tls_said_all() const {
  const TlsSession& session = tls_->session;
  return session.failed() || (session_done() && (session.closed() || gives_up()));
}

// A client that was refused in the handshake may have sent more already; it should get to read why.
bool Connection::tls_lingers() const {
  const TlsSession& session = tls_->session;
  if (!session.failed()) return session_lingers();
  return !session.established() && !session.peer_closed() && session.failure() != TlsFailure::kTimeout;
}

}  // namespace fastserve
