// Pauses that pay (pass_pacing.h) for a driver that is handed one connection's bytes at a time and cannot look at the sockets
// before it reads: what gathers during the pause is read here, from the connection's own socket, and belongs to the same pass.
// The pause blocks the driver's loop for 200 us at most; the interpreter lock, where there is one, stays with the thread.
// Thread: the IoLoop's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "frontend/connection.h"
#include "frontend/io_loop.h"
#include "frontend/pass_pacing.h"

namespace fastserve {

class PacedReads {
 public:
  explicit PacedReads(IoLoop& io) : io_(io) {}

  // What the driver read into `buffer`, which the next read may overwrite. TLS or not: a socket's bytes are the connection's.
  void received(Connection& connection, std::span<std::byte> buffer, std::size_t count);

 private:
  // What a driver's own way from one pass to the next takes when input waits (uvloop: 5-10 us).
  static constexpr Nanos kDriversOwn = 15 * kMicrosecond;

  void read_more(Connection& connection, std::span<std::byte> buffer);

  IoLoop& io_;
  PassPacing pacing_;
  Nanos ended_ = 0;  // the last pass
};

}  // namespace fastserve
