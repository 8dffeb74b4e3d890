// What a server and its worker process say to each other: cells of two rings (local/shared_ring.h), one for each direction, in
// a sealed memory of their own, and records in the segments of WorkerMemory, which both have mapped.
//
//   server -> worker   kOpen  record: the ModelSpec           worker -> server   kDone  the reply record of this tag
//                      kBatch record: a batch                                    kRoom  the room is too small: `bytes` are needed
//                      kRoom  the larger room for a tag
//                      kStop  finalize and exit
//
// Every message names a block of a segment: the record stands at its start, the room behind it is the worker's to write
// in (outputs, and then the reply record, whose place the reply's cell says, counted from the room's start).
//
// Descriptors of a worker: 3 a SOCK_SEQPACKET Unix socket, on which new memory arrives (SegmentMessage and one descriptor; the
// rings come first); 4 an eventfd that it writes when the server sleeps, which the server watches edge-triggered and never
// reads or writes, so that nobody blocks on it.
// Numbers are of the machine's own order: both sides run on it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "local/shared_ring.h"

namespace fastserve::worker {

inline constexpr int kSocketFd = 3;
inline constexpr int kBellFd = 4;
inline constexpr int kCallsFd = 5;  // calls to other models; not there when the server takes none

inline constexpr std::uint32_t kMagic = 0x66735731;    // "fsW1": another layout, another number
inline constexpr std::uint32_t kRingSegment = 0xffff;  // SegmentMessage::segment of the rings

enum class ToWorker : std::uint32_t { kOpen = 1, kBatch = 2, kRoom = 3, kStop = 4 };
enum class ToServer : std::uint32_t { kDone = 1, kRoom = 2 };

struct WorkCell {
  std::uint64_t tag = 0;
  ToWorker kind = ToWorker::kStop;
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;        // of the block
  std::uint64_t record_bytes = 0;  // kOpen, kBatch
  std::uint64_t room_offset = 0;   // from the block's start; a multiple of 64
  std::uint64_t room_bytes = 0;
  std::uint64_t unused[2] = {};
};
struct ReplyCell {
  std::uint64_t tag = 0;
  ToServer kind = ToServer::kDone;
  std::uint32_t unused = 0;
  std::uint64_t offset = 0;  // kDone: of the record, from the room's start
  std::uint64_t bytes = 0;   // kDone: of the record; kRoom: of the room that is needed
};
inline constexpr std::uint32_t kWorkCellBytes = 64;
inline constexpr std::uint32_t kReplyCellBytes = 32;
static_assert(sizeof(WorkCell) == kWorkCellBytes && sizeof(ReplyCell) == kReplyCellBytes);

// More than the batches that may be in flight and their rooms.
inline constexpr std::uint32_t kCells = 128;
inline constexpr RingLayout kWorkRing{kCells, kWorkCellBytes};
inline constexpr RingLayout kReplyRing{kCells, kReplyCellBytes};
inline constexpr std::size_t kWorkRingAt = 0;
inline constexpr std::size_t kReplyRingAt = (kWorkRing.bytes() + 63) / 64 * 64;
inline constexpr std::size_t kRingBytes = kReplyRingAt + kReplyRing.bytes();

struct SegmentMessage {
  std::uint32_t magic = kMagic;
  std::uint32_t segment = 0;  // in the order 0, 1, 2 ...
};

// A parameter's kind in a record, as batch/request.h has the alternatives.
enum class Kind : std::uint8_t { kBool = 0, kInt = 1, kUint = 2, kDouble = 3, kString = 4 };

// Of a slot's answer.
inline constexpr std::size_t kMostParameters = 64;
inline constexpr std::size_t kMostParameterText = std::size_t{64} << 10;  // bytes of a name or a text

// Of a reply to a batch.
enum class Answered : std::uint8_t {
  kBySlot = 0,  // an error or outputs for each slot
  kWhole = 1,   // outputs of the whole batch
  kFailed = 2,  // one error for all
};

inline constexpr std::size_t kAlign = 64;
constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace fastserve::worker
