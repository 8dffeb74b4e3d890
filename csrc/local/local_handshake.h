// What client and server of the local transport say over their Unix socket (SOCK_SEQPACKET: one send, one message); inference
// itself goes through the rings. The client asks, the server answers each in turn with the same sequence number.
//
//   HELLO       wanted cells        -> WELCOME      + 2 descriptors: the rings' memory, the doorbell (an eventfd)
//   REGISTER    + 1 descriptor      -> REGISTERED   region number; the descriptor is a memfd, see SealedMemory::adopt
//   UNREGISTER  region              -> UNREGISTERED once no request uses it any more
//   OPEN        model, version      -> OPENED       number for cells, and the signature
//   any of these                    -> FAILED       code and message
//                                      WAKE         by itself: there are answers for a client that sleeps on its socket
// The rings' memory: the request ring, then the answer ring (local/shared_ring.h), both with the cells of WELCOME.
// Pure. Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "local/shared_ring.h"
#include "tensor/signature.h"

namespace fastserve {

inline constexpr std::uint32_t kLocalMagic = 0x544C5346;  // "FSLT"
inline constexpr std::uint16_t kLocalVersion = 1;
inline constexpr std::size_t kMostControlBytes = 65536;  // of one message

enum class ControlKind : std::uint16_t {
  kHello = 1,
  kRegister = 2,
  kUnregister = 3,
  kOpen = 4,
  kWelcome = 17,
  kRegistered = 18,
  kUnregistered = 19,
  kOpened = 20,
  kFailed = 21,
  kWake = 22,
};

struct ClientMessage {
  ControlKind kind = ControlKind::kHello;
  std::uint32_t sequence = 0;
  std::uint32_t cells = 0;  // HELLO: wanted; powers of two
  std::uint32_t cell_bytes = 0;
  std::uint32_t region = 0;  // UNREGISTER
  std::string_view name;     // OPEN; views into the message
  std::string_view version;  // "": by version policy
};

struct ServerMessage {
  ControlKind kind = ControlKind::kWake;
  std::uint32_t sequence = 0;
  std::uint32_t cells = 0;  // WELCOME: as they are
  std::uint32_t cell_bytes = 0;
  std::uint64_t region_bytes = 0;  // WELCOME: the most of all regions together; REGISTERED: of this one
  std::uint32_t number = 0;        // REGISTERED: the region's; OPENED: the model's
  std::int64_t model_version = 0;  // OPENED: that answered just now
  Signature signature;             // OPENED
  Code code = Code::kOk;           // FAILED
  std::string message;
};

// DATA_LOSS: no such message; the peer speaks something else.
Result<ClientMessage> decode_client_message(std::span<const std::byte> bytes);
Result<ServerMessage> decode_server_message(std::span<const std::byte> bytes);
// RESOURCE_EXHAUSTED: a signature (or a name) too large for a message.
Result<std::vector<std::byte>> encode(const ClientMessage& message);
Result<std::vector<std::byte>> encode(const ServerMessage& message);

// What HELLO asked for, within the limits: INVALID_ARGUMENT names the field.
Status check_ring_layout(std::uint32_t cells, std::uint32_t cell_bytes, std::uint32_t most_cells);

// Bytes of the memory with both rings.
inline std::size_t ring_memory_bytes(RingLayout layout) { return 2 * layout.bytes(); }

}  // namespace fastserve
