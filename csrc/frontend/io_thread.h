// The native driver: one thread with an epoll instance that owns its sockets, an IoLoop and nothing else, so that no
// interpreter lock and no other loop can hold a request up. Cold calls leave through a ColdQueue and are answered through
// port(), from whatever thread answers them.
//
// The first thread of a front end also accepts, and hands each connection to the thread that has the fewest: SO_REUSEPORT
// would spread connections by a hash of their addresses, which leaves threads idle when there are few of them (the usual case
// with gRPC), and does not exist for Unix sockets.
// Thread: the public functions from any thread, unless they say otherwise.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "frontend/cold_queue.h"
#include "frontend/io_loop.h"
#include "frontend/mailbox.h"
#include "frontend/pass_pacing.h"

namespace fastserve {

enum class Protocol : std::uint8_t { kGrpc, kHttp };

class IoThread {
 public:
  // Hands an accepted socket over; runs on this thread.
  using OnAccept = std::function<void(Protocol, UniqueFd)>;

  // Starts the thread. Borrows engine and cold queue. Throws std::system_error.
  IoThread(Engine& engine, const IoLimits& limits, ColdQueue& cold, OnAccept on_accept,
           const std::string& name);
  ~IoThread();  // ends the thread: closes what is open, waits for the calls that the engine still has
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  void listen(Protocol protocol, UniqueFd socket);  // a listening socket, non-blocking
  void stop_listening();
  void adopt(Protocol protocol, UniqueFd socket);  // a connected socket, non-blocking
  void shutdown();                                 // drain, see IoLoop
  void stop();                                     // ends the thread; not from it; once is enough
  ColdPort& port() { return port_; }
  const IoCounters& counters() const { return io_.counters(); }
  std::size_t connections() const {
    return connections_.load(std::memory_order_relaxed);
  }  // handed over, not gone

 private:
  // What epoll events point to.
  struct Socket {
    enum class Kind : std::uint8_t { kListener, kConnection, kMailbox, kCompletions, kTimer };
    Kind kind = Kind::kConnection;
    Protocol protocol = Protocol::kGrpc;
    bool discarded = false;
    int fd = -1;
    UniqueFd owned;  // fd, unless somebody else closes it
    Connection* connection = nullptr;
    std::uint32_t events = 0;  // that epoll watches now
    bool input_ended = false;
    Nanos linger_until = kNever;  // set: everything was said, the peer has until then to read it
  };

  // Passes the answers of cold calls to the loop's thread.
  class Port final : public ColdPort {
   public:
    explicit Port(IoThread& thread) : thread_(thread) {}
    void grpc_send(Call& call, std::span<const std::byte> message) override;
    void grpc_finish(Call& call, Code code, std::string_view message, Fields trailers) override;
    void grpc_took(Call& call) override;
    void http_respond(Call& call, int status, Fields headers, std::span<const std::byte> body) override;
    void http_begin(Call& call, int status, Fields headers) override;
    void http_chunk(Call& call, std::span<const std::byte> piece) override;
    void http_end(Call& call) override;
    void done(Call& call) override;

   private:
    IoThread& thread_;
  };

  // All below: this thread.
  void loop();
  void pass(std::span<const epoll_event> events);
  void on_event(Socket& socket, std::uint32_t events);
  void on_readable(Socket& socket);
  void accept_all(Socket& listener);
  void open(Protocol protocol, UniqueFd fd);
  void hand_over_cold();
  void attend();
  void attend(Socket& socket);
  void discard(Socket& socket);
  void watch(Socket& socket, std::uint32_t events);
  Socket* add(Socket::Kind kind, int fd);  // nullptr, errno: epoll does not take it
  void tick();

  ColdQueue& cold_;
  const OnAccept on_accept_;
  UniqueFd epoll_;
  UniqueFd timer_;  // ticks: with a time-out of its own each epoll_wait would start and stop a timer
  Mailbox mailbox_;
  IoLoop io_;
  Port port_{*this};
  PassPacing pacing_;
  std::atomic<std::size_t> connections_{0};
  std::unordered_map<Socket*, std::unique_ptr<Socket>> sockets_;
  std::vector<Socket*> listeners_;
  std::vector<std::unique_ptr<Socket>>
      closed_;                     // until the pass is through: events of it may still point there
  std::vector<ColdEvent> events_;  // of hand_over_cold: keeps its capacity
  std::vector<std::byte>
      receive_;            // one buffer for all connections: a read is handed over before the next one starts
  bool accepting_ = true;  // false until the next tick when the process has no file descriptors left
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace fastserve
