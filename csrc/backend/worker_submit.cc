// The way of a batch to its worker process. (WorkerSupervisor)
#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/worker_supervisor.h"

namespace fastserve {

// In the order: its own process, a sibling's when its own is down, waiting for the first restart, refusal.
void WorkerSupervisor::submit(Batch& batch) {
  Status why;
  Sent sent = try_send(batch, why);
  for (std::size_t i = 0; i < siblings_.size() && sent == Sent::kNotUp; ++i) {
    if (siblings_[i].get() != this && siblings_[i]->up()) sent = siblings_[i]->try_send(batch, why);
  }
  if (sent == Sent::kYes) return;
  if (sent == Sent::kNotUp) {
    const std::lock_guard lock(mutex_);
    if (state_ == WorkerState::kUp) {
      why = send_locked(batch);
      if (why.is_ok()) return;
    } else if (state_ == WorkerState::kStarting && down_reason_.empty()) {
      return held_.push_back(&batch);
    } else {
      why =
          unavailable(title_ + " is down: " + (down_reason_.empty() ? "it is being stopped" : down_reason_));
    }
  }
  batch.finish(std::move(why));
}

WorkerSupervisor::Sent WorkerSupervisor::try_send(Batch& batch, Status& why) {
  const std::lock_guard lock(mutex_);
  if (state_ != WorkerState::kUp) return Sent::kNotUp;
  why = send_locked(batch);
  return why.is_ok() ? Sent::kYes : Sent::kFailed;
}

Status WorkerSupervisor::send_locked(Batch& batch) {
  record_.clear();
  FS_RETURN_IF_ERROR(write_batch(batch, *plan_->memory, record_));
  InFlight entry;
  entry.tag = next_tag_++;
  entry.batch = &batch;
  entry.room_at = worker::aligned(record_.size());
  entry.block = WorkerBlock::make(plan_->memory, entry.room_at + expected_room(batch, dynamic_row_bytes_));
  if (entry.block == nullptr) return {Code::kResourceExhausted, "no memory for the answers of " + title_};
  std::memcpy(entry.block->data(), record_.bytes().data(), record_.size());
  entry.since = monotonic_now();
  FS_RETURN_IF_ERROR(
      channel_->send(cell_of(entry, worker::ToWorker::kBatch, record_.size()), *plan_->memory));
  in_flight_.push_back(std::move(entry));
  // Its thread sleeps until something happens; from now on time may run out, too.
  if (std::exchange(sleeps_without_limit_, false)) ::eventfd_write(command_.get(), 1);
  return Status::ok();
}

worker::WorkCell WorkerSupervisor::cell_of(const InFlight& entry, worker::ToWorker kind,
                                           std::size_t record_bytes) const {
  worker::WorkCell cell;
  cell.tag = entry.tag;
  cell.kind = kind;
  cell.segment = entry.block->place().segment;
  cell.offset = entry.block->place().offset;
  cell.record_bytes = record_bytes;
  cell.room_offset = entry.room_at;
  cell.room_bytes = entry.room().size();
  return cell;
}

}  // namespace fastserve
