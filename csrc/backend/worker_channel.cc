#include "backend/worker_channel.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "local/shared_futex.h"
#include "local/unix_message.h"

namespace fastserve {

Result<WorkerChannel> WorkerChannel::create() {
  WorkerChannel channel;
  FS_ASSIGN_OR_RETURN(channel.memory_, SealedMemory::create("fastserve-rings", worker::kRingBytes));
  channel.work_ = RingProducer(channel.memory_.data() + worker::kWorkRingAt, worker::kWorkRing);
  channel.replies_ = RingConsumer(channel.memory_.data() + worker::kReplyRingAt, worker::kReplyRing);
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return unavailable(std::string("no socket for a worker: ") + std::strerror(errno));
  channel.socket_ = UniqueFd(ends[0]);
  channel.their_socket_ = UniqueFd(ends[1]);
  channel.bell_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!channel.bell_.valid())
    return unavailable(std::string("no bell for a worker: ") + std::strerror(errno));
  FS_RETURN_IF_ERROR(channel.send_segment(worker::kRingSegment, channel.memory_.fd()));
  return channel;
}

Status WorkerChannel::send_segment(std::uint32_t number, int fd) {
  const worker::SegmentMessage message{worker::kMagic, number};
  return send_message(socket_.get(), std::as_bytes(std::span(&message, 1)), std::span(&fd, 1));
}

Status WorkerChannel::send(const worker::WorkCell& cell, const WorkerMemory& memory) {
  const std::size_t segments = memory.segments();
  for (; segments_sent_ < segments; ++segments_sent_) {
    FS_RETURN_IF_ERROR(send_segment(static_cast<std::uint32_t>(segments_sent_), memory.fd(segments_sent_)));
  }
  const std::span<std::byte> free = work_.claim();
  if (free.empty()) return unavailable("a worker's ring is full");
  std::memcpy(free.data(), &cell, sizeof cell);
  work_.publish();
  if (work_.take_sleeper() == Asleep::kFutex) {
    shared_futex_wake(reinterpret_cast<RingHead*>(memory_.data() + worker::kWorkRingAt)->asleep);
  }
  return Status::ok();
}

std::optional<worker::ReplyCell> WorkerChannel::receive() {
  const std::span<std::byte> front = replies_.front();
  if (front.empty()) return std::nullopt;
  worker::ReplyCell cell;
  std::memcpy(&cell, front.data(), sizeof cell);
  replies_.pop();
  return cell;
}

}  // namespace fastserve
