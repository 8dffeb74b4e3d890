// One client connection: a codec session, the calls on it, and the bytes waiting for its socket. The driver (uvloop
// protocol, epoll thread) gives it bytes and is asked for attention when the socket does not take what there is.
// Thread: the loop's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "codec/tls_session.h"
#include "codec/write_queue.h"
#include "frontend/call.h"

namespace fastserve {

class IoLoop;

class Connection {
 public:
  Connection(IoLoop& loop, int fd, void* driver) : loop_(loop), fd_(fd), driver_(driver) {}
  virtual ~Connection();  // cancels and detaches the calls that are left
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // From now on the socket carries TLS. Before opened().
  void start_tls(std::shared_ptr<const TlsConfiguration> configuration, TlsProtocols protocols, Nanos now,
                 const TlsLimits& limits);
  bool secure() const { return tls_ != nullptr; }

  // Bytes from the socket, its end, and the passing of time: through TLS when there is any.
  void receive(std::span<const std::byte> bytes, Nanos now) {
    if (tls_ == nullptr) [[likely]]
      return feed(bytes, now);
    receive_tls(bytes, now);
  }
  void input_ended();
  bool check_time(Nanos now);

  // Bytes of the protocol. Calls that became complete were submitted or stand in the loop's cold list afterwards.
  virtual void feed(std::span<const std::byte> bytes, Nanos now) = 0;
  virtual void opened(Nanos) {}  // once, before the first feed: idle time counts from here
  virtual void end_of_input() {}
  // The final response of a call of this connection: encodes it.
  virtual void deliver(Call& call, Nanos now) = 0;
  virtual void shutdown() = 0;  // drain: no new calls, what is in is answered
  // About once a second: time-outs. True when something passed, so that there may be output.
  virtual bool tick(Nanos) { return false; }
  virtual bool wants_input() const = 0;

  // Moves frames to the write queue and as much of it to the socket as that takes. True when the driver must look: see below.
  bool flush();

  // --- for the driver, after take_attention()
  bool stalled() const {
    return !out_.empty() && !broken_;
  }                        // the socket is full: write `pending` when it is writable
  bool finished() const {  // close the socket
    return broken_ || (said_all() && (out_.empty() || gives_up() || tls_failed()));
  }
  // The peer may still be sending (a body over the limit): closing now would reset the connection and destroy the answer
  // on its way. Shut down the sending side first, and close when the peer did or after a while.
  bool lingers() const { return tls_ == nullptr ? session_lingers() : tls_lingers(); }
  std::span<const std::byte> front() const;  // the first pending bytes; empty when there are none
  void consumed(std::size_t bytes) { out_.consume(bytes); }
  // While the driver owns pending output (its own buffer is not empty) nothing else may write to the socket.
  void set_driver_writes(bool writes) { driver_writes_ = writes; }

  int fd() const { return fd_; }
  void* driver() const { return driver_; }
  std::size_t open_calls() const { return calls_.size(); }

 protected:
  friend class IoLoop;
  virtual void pump(WriteQueue& out) = 0;  // session -> out
  virtual bool session_done() const = 0;   // nothing more will come from the session
  // What the socket does not take of the last words at once is dropped: a peer that was refused may never read them.
  virtual bool gives_up() const { return false; }
  virtual bool session_lingers() const { return false; }

  IoLoop& loop_;
  WriteQueue out_;
  std::vector<Call*> calls_;   // every call that still points here
  bool in_attention_ = false;  // stands in the loop's attention list
  bool dirty_ = false;         // stands in the loop's dirty list
  std::size_t slot_ = 0;       // in the loop's connections

 private:
  struct Tls {
    template <class... Arguments>
    explicit Tls(Arguments&&... arguments) : session(std::forward<Arguments>(arguments)...) {}
    WriteQueue plaintext;  // session -> TLS session -> out_
    TlsSession session;
    bool handshake_counted = false;
    bool failure_counted = false;
    bool end_told = false;
  };

  void pump_all() {  // -> out_
    if (tls_ == nullptr) [[likely]]
      return pump(out_);
    pump_tls();
  }
  bool said_all() const { return tls_ == nullptr ? session_done() : tls_said_all(); }
  void receive_tls(std::span<const std::byte> bytes, Nanos now);
  void pump_tls();
  void note_tls();
  void end_tls();
  bool tls_failed() const { return tls_ != nullptr && tls_->session.failed(); }
  bool tls_said_all() const;
  bool tls_lingers() const;

  std::unique_ptr<Tls> tls_;
  const int fd_;
  void* const driver_;
  bool driver_writes_ = false;
  bool broken_ = false;  // the socket refused a write for good
  bool paused_ = false;  // the driver was asked to stop reading
};

// `[request id: x] message`, as Triton prefixes what goes wrong with an inference.
std::string with_request_id(std::string_view id, std::string_view message);

}  // namespace fastserve
