// Messages with descriptors over a connected Unix socket (unix(7), SCM_RIGHTS).
// Thread: one at a time per socket.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/status.h"

namespace fastserve {

inline constexpr std::size_t kMostFds = 4;  // in one message

struct UnixMessage {
  std::size_t bytes = 0;      // written to the buffer
  std::vector<UniqueFd> fds;  // close-on-exec
  bool ended = false;         // the peer is gone
  bool would_block = false;   // nothing is there
};

// Never blocks. UNAVAILABLE when the peer is gone or its buffer is full.
Status send_message(int socket, std::span<const std::byte> bytes, std::span<const int> fds = {});
// `flags`: MSG_DONTWAIT or 0. INVALID_ARGUMENT when the message is larger than the buffer (SOCK_SEQPACKET) or has more
// than kMostFds descriptors (those that came are closed).
Result<UnixMessage> receive_message(int socket, std::span<std::byte> buffer, int flags);

}  // namespace fastserve
