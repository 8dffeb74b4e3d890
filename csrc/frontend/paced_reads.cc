#include "frontend/paced_reads.h"

#include <sys/socket.h>
#include <time.h>

#include <algorithm>

namespace fastserve {

void PacedReads::received(Connection& connection, std::span<std::byte> buffer, std::size_t count) {
  const Nanos waited = std::max<Nanos>(monotonic_now() - ended_ - kDriversOwn, 0);
  const Nanos pause = pacing_.pause_first(waited);
  const std::uint64_t submitted = io_.submitted();
  io_.begin_pass();
  io_.received(connection, buffer.first(count));
  if (pause != 0 && count < buffer.size()) {
    const timespec length{0, pause};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &length, nullptr);
    read_more(connection, buffer);
  }
  io_.end_pass();
  pacing_.passed(io_.submitted() - submitted);
  ended_ = monotonic_now();
}

// The end of the input and errors are left for the driver, which meets them again.
void PacedReads::read_more(Connection& connection, std::span<std::byte> buffer) {
  if (!connection.wants_input()) return;
  const ssize_t n = ::recv(connection.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n > 0) io_.received(connection, buffer.first(static_cast<std::size_t>(n)));
}

}  // namespace fastserve
