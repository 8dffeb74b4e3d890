// The server's end of one process's conversation (backend/worker_wire.h): both rings, the socket on which it gets new memory, the
// bell. Made anew for each process.
// Thread: send() under the supervisor's lock; the rest by the supervisor's thread.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "backend/worker_memory.h"
#include "backend/worker_wire.h"
#include "base/fd.h"
#include "base/status.h"
#include "local/sealed_memory.h"
#include "local/shared_ring.h"

namespace fastserve {

class WorkerChannel {
 public:
  static Result<WorkerChannel> create();

  // Descriptors 3 and 4 of the process to come; closed by started().
  std::vector<int> for_worker() const { return {their_socket_.get(), bell_.get()}; }
  void started() { their_socket_.reset(); }
  int bell() const { return bell_.get(); }

  // Sends segments that the worker does not have yet, then the cell, and wakes it. UNAVAILABLE when there is no room: it is gone
  // or does not read.
  Status send(const worker::WorkCell& cell, const WorkerMemory& memory);

  // A private copy of the oldest reply.
  std::optional<worker::ReplyCell> receive();
  // True: nothing is there, the worker rings the bell from now on. False: look again.
  bool fall_asleep() { return replies_.fall_asleep(Asleep::kSocket); }
  void wake_up() { replies_.wake_up(); }
  bool corrupt() const { return work_.corrupt() || replies_.corrupt(); }

 private:
  Status send_segment(std::uint32_t number, int fd);

  SealedMemory memory_;
  RingProducer work_;
  RingConsumer replies_;
  UniqueFd socket_;
  UniqueFd their_socket_;
  UniqueFd bell_;
  std::size_t segments_sent_ = 0;
};

}  // namespace fastserve
