// One client of the local transport: its socket, its rings, its regions, the models it opened.
//
// The client is not trusted: its cells are copied out before they are read, every number is checked, its regions are memfds that
// cannot shrink, and neither ring nor socket can make this thread wait. A request that is wrong is answered; a cell or a message
// that cannot be read, or a ring whose counters lie, ends the session. A session that ended cancels its requests and goes when
// the last of them is done; until then its regions stay mapped.
// Back-pressure: a request is taken only while an answer cell is free for it, so that an answer always has room.
// Thread: the loop's.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "frontend/local_loop.h"
#include "local/sealed_memory.h"
#include "local/shared_ring.h"
#include "local/unix_message.h"

namespace fastserve {

class LocalSession {
 public:
  LocalSession(LocalLoop& loop, UniqueFd socket, Nanos now);
  ~LocalSession();  // no call is out any more
  LocalSession(const LocalSession&) = delete;
  LocalSession& operator=(const LocalSession&) = delete;

  int socket() const { return socket_.get(); }
  int doorbell() const { return doorbell_.get(); }  // -1 before the handshake
  bool greeted() const { return doorbell_.valid(); }
  Nanos since() const { return since_; }

  // The socket is readable: control messages, or the end of the client.
  void on_readable();
  // Takes requests out of the ring and submits them; false: there was none.
  bool take_requests();
  // The engine's final response is there.
  void deliver(LocalCall& call);
  // The end of a pass: tells a sleeping client about its answers.
  void wake_peer();
  // True: the client knows that it has to ring. False: there is something to take.
  bool fall_asleep();

  // `reason`: logged and counted; "" when the client just left.
  void end(std::string_view reason);
  bool ended() const { return ended_; }
  bool done() const { return ended_ && calls_.empty(); }
  void close_descriptors() {
    socket_.reset();
    doorbell_.reset();
  }

  bool awake = false;  // the server's: it looks at the ring without being rung for

 private:
  struct Model {
    std::string name, version;
    std::int64_t number = 0;  // of the version that has this signature
    Signature signature;
  };
  struct Leaving {  // unregistered, and still in use
    std::unique_ptr<LocalRegion> region;
    std::uint32_t sequence;
  };

  void on_message(UnixMessage message);
  Status hello(const ClientMessage& message);
  Status register_region(const ClientMessage& message, std::vector<UniqueFd> fds);
  Status unregister_region(const ClientMessage& message);
  Status open_model(const ClientMessage& message);
  void send(const ServerMessage& message, std::span<const int> fds = {});
  void send_gone_regions();

  bool take_one(std::span<const std::byte> cell, Nanos now);
  void take_request(LocalCall& call, Nanos now);
  Status fill(const LocalRequest& from, LocalCall& call, Nanos now);
  Status fill_input(const LocalInput& from, std::size_t at, const Model* model, LocalCall& call);
  Status fill_output(const LocalOutput& from, std::size_t at, const Model* model, LocalCall& call);
  Result<std::span<std::byte>> place(const char* list, std::size_t at, std::uint32_t region,
                                     std::uint64_t offset, std::uint64_t bytes, LocalCall& call);
  void cancel(std::uint64_t tag);
  void refuse(LocalCall& call, const Status& status);
  void answer(LocalCall& call, const Status& status);
  void forget(LocalCall& call);

  LocalLoop& loop_;
  UniqueFd socket_;
  UniqueFd doorbell_;  // the client writes, nobody reads: edge-triggered
  const Nanos since_;
  SealedMemory memory_;  // both rings
  RingLayout layout_;
  RingConsumer requests_;
  RingProducer answers_;
  std::vector<std::unique_ptr<LocalRegion>> regions_;  // number - 1; nullptr: free
  std::size_t region_bytes_ = 0;
  std::vector<Leaving> leaving_;
  std::deque<Model> models_;  // number - 1; requests point into them
  std::vector<LocalCall*> calls_;
  bool owes_wake_ = false;
  bool ended_ = false;
};

}  // namespace fastserve
