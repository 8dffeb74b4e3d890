// The front end of the local transport: one thread that accepts on Unix sockets (SOCK_SEQPACKET), and whose sessions exchange
// requests and answers with their clients in shared memory. Never takes the interpreter lock; cheap models run on it.
//
// A pass: control messages; the requests of all sessions that are awake into the engine; one flush (which may run cheap models);
// the answers that are there; one wake of each client that sleeps. A session that has nothing more falls asleep: its client
// rings its doorbell.
// Thread: the public functions from any. Borrows the engine, which has to outlive it.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "frontend/local_loop.h"
#include "frontend/local_session.h"
#include "frontend/mailbox.h"

namespace fastserve {

class LocalServer {
 public:
  LocalServer(Engine& engine, LocalLimits limits);  // starts the thread; throws std::system_error
  ~LocalServer();
  LocalServer(const LocalServer&) = delete;
  LocalServer& operator=(const LocalServer&) = delete;

  void listen(UniqueFd socket);  // a listening SOCK_SEQPACKET socket; peers' user ids are checked
  void stop_listening();
  void adopt(UniqueFd socket);  // a connected SOCK_SEQPACKET socket of somebody who is trusted to connect
  void stop();  // closes all sessions, waits for the calls that the engine still has; once is enough

  const LocalCounters& counters() const { return loop_.counters; }

 private:
  enum class Watched : std::uint8_t { kMailbox, kCompletions, kListener, kSocket, kDoorbell };

  void loop();
  void on_event(Watched what, void* object);
  bool settle();  // true: nobody has more for now
  bool take_responses();
  void accept_all(int listener);
  void open(UniqueFd socket);
  void look_after(LocalSession& session);
  void discard_done();
  void stop_now();
  bool watch(int fd, std::uint32_t events, Watched what, void* object);
  void unwatch(int fd);
  void keep_awake(LocalSession& session);
  int timeout_ms() const;
  void tick();

  UniqueFd epoll_;
  Mailbox mailbox_;
  LocalLoop loop_;
  std::vector<UniqueFd> listeners_;
  std::vector<std::unique_ptr<LocalSession>> sessions_;
  std::vector<LocalSession*> awake_;
  std::size_t strangers_ = 0;  // sessions without a handshake
  bool accepting_ = true;      // false until the next tick when the process has no descriptors left
  Nanos ticked_at_ = 0;
  bool settled_ = true;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace fastserve
