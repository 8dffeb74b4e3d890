// The way back: what a worker process says, every word of it in doubt. (WorkerSupervisor)
#include <algorithm>
#include <utility>

#include "backend/worker_supervisor.h"

namespace fastserve {
namespace {

constexpr std::uint64_t kOpenTag = 0;
constexpr std::size_t kMostRecordBytes = std::size_t{64} << 20;  // of a reply, without its tensors
constexpr int kMostRooms = 2;                                    // larger ones for one batch

// A private copy of the record that a reply names; empty when it is not in the room.
std::vector<std::byte> copy_record(std::span<const std::byte> room, const worker::ReplyCell& cell) {
  if (cell.bytes > kMostRecordBytes || cell.offset > room.size() || cell.bytes > room.size() - cell.offset)
    return {};
  const auto record = room.subspan(cell.offset, cell.bytes);
  return {record.begin(), record.end()};
}

bool same(const std::vector<TensorSpec>& a, const std::vector<TensorSpec>& b) {
  return std::ranges::equal(a, b, [](const TensorSpec& x, const TensorSpec& y) {
    return x.name == y.name && x.dtype == y.dtype && x.shape == y.shape && x.optional == y.optional;
  });
}

bool same(const Signature& a, const Signature& b) {
  return a.max_batch_rows == b.max_batch_rows && same(a.inputs, b.inputs) && same(a.outputs, b.outputs);
}

}  // namespace

void WorkerSupervisor::take_replies() {
  while (kill_at_ == kNever || stopping_.load(std::memory_order_relaxed)) {
    const auto cell = channel_->receive();
    if (!cell) break;
    on_reply(*cell);
  }
  if (channel_->corrupt()) kill("its ring is corrupt", false);
}

void WorkerSupervisor::on_reply(const worker::ReplyCell& cell) {
  last_reply_ = monotonic_now();
  if (cell.tag == kOpenTag && open_block_ != nullptr) return on_described(cell);
  switch (cell.kind) {
    case worker::ToServer::kDone:
      return on_done(cell);
    case worker::ToServer::kRoom:
      return on_room_wanted(cell);
  }
  kill("it sent a reply of an unknown kind", false);
}

void WorkerSupervisor::on_described(const worker::ReplyCell& cell) {
  const auto room =
      std::span<const std::byte>(open_block_->data(), open_block_->size()).subspan(open_room_at_);
  const std::vector<std::byte> record = copy_record(room, cell);
  open_block_.reset();
  Result<WorkerDescription> got = read_worker_description(record);
  const std::unique_lock lock(mutex_);
  if (!described_) {
    described_ = got;
    changed_.notify_all();
  } else if (got.is_ok() && described_->is_ok() && !same(got->signature, (*described_)->signature)) {
    got = internal_error("its model describes itself otherwise than before");
  }
  if (!got.is_ok()) {
    verdict_ = got.status().message();
    kill_at_ = monotonic_now() + kSecond;  // it ends by itself, with finalizers
    return;
  }
  become_up();
}

// The lock is held.
void WorkerSupervisor::become_up() {
  up_since_ = last_reply_ = monotonic_now();
  answered_ = false;
  log_.forget_tail();
  if (stopping_.load(std::memory_order_relaxed)) return;
  state_ = WorkerState::kUp;
  down_reason_.clear();
  up_.store(true, std::memory_order_relaxed);
  if (restarts_.load(std::memory_order_relaxed) != 0) {
    log_.say(LogLevel::kInfo,
             "is up again after " + std::to_string((up_since_ - started_at_) / kMillisecond) + " ms");
  }
  for (Batch* batch : std::exchange(held_, {})) {
    if (Status status = send_locked(*batch); !status.is_ok()) batch->finish(std::move(status));
  }
}

void WorkerSupervisor::on_done(const worker::ReplyCell& cell) {
  InFlight entry;
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find(in_flight_, cell.tag, &InFlight::tag);
    if (found != in_flight_.end()) {
      entry = std::move(*found);
      in_flight_.erase(found);
    }
  }
  if (entry.batch == nullptr) return kill("it answered a batch that it did not have", false);
  const std::vector<std::byte> record = copy_record(entry.room(), cell);
  BatchReply reply = read_reply(record, entry.room(), *entry.block, *entry.batch);
  entry.batch->device_memory = entry.block;
  if (reply.malformed) {
    {  // answered with the others, when the process is gone
      const std::lock_guard lock(mutex_);
      in_flight_.push_front(std::move(entry));
    }
    return kill("its reply is malformed", false);
  }
  answered_ = true;
  entry.batch->finish(std::move(reply.status));
}

void WorkerSupervisor::on_room_wanted(const worker::ReplyCell& cell) {
  const std::unique_lock lock(mutex_);
  const auto found = std::ranges::find(in_flight_, cell.tag, &InFlight::tag);
  if (found == in_flight_.end() || found->rooms == kMostRooms) {
    return kill("it asked for room for a batch that it did not have, or again and again", false);
  }
  ++found->rooms;
  auto block = WorkerBlock::make(plan_->memory, cell.bytes);
  if (block == nullptr) {
    log_.say(LogLevel::kError, "no memory for " + std::to_string(cell.bytes) + " bytes of answers");
  } else {
    learn_room(*found, cell.bytes);
    found->block = std::move(block);  // the worker read the record before it asked
    found->room_at = 0;
  }
  // Without memory it gets the old room again, and says in it that the answers are too large.
  const Status sent = channel_->send(cell_of(*found, worker::ToWorker::kRoom, 0), *plan_->memory);
  if (!sent.is_ok()) kill("it does not read what it is sent: " + sent.message(), false);
}

void WorkerSupervisor::learn_room(const InFlight& entry, std::size_t bytes) {
  constexpr std::size_t kMostGuess = std::size_t{64} << 20;
  const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(entry.batch->rows(), 1));
  dynamic_row_bytes_ = std::max(dynamic_row_bytes_, std::min(bytes / rows + 64, kMostGuess));
}

}  // namespace fastserve
