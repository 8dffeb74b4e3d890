#include "codec/write_queue.h"

#include <algorithm>
#include <cstring>

namespace fastserve {

void WriteQueue::append_slowly(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<std::byte> at = room(bytes.size());
    std::memcpy(at.data(), bytes.data(), at.size());
    bytes = bytes.subspan(at.size());
  }
}

void WriteQueue::reference(std::span<const std::byte> bytes, const std::shared_ptr<const void>& keep) {
  if (bytes.size() < kReferenceBytes) return append(bytes);
  pieces_.push_back({bytes.data(), bytes.size(), keep, 0});
  bytes_ += bytes.size();
}

void WriteQueue::append(OutMessage&& message) {
  std::size_t at = 0;
  for (const OutMessage::External& e : message.external) {
    append(std::span<const std::byte>(message.own.data() + at, e.at - at));
    reference(e.bytes, message.keep);
    at = e.at;
  }
  append(std::span<const std::byte>(message.own.data() + at, message.own.size() - at));
  message.clear();
}

std::size_t WriteQueue::gather(std::span<iovec> out) const {
  const std::size_t count = std::min(out.size(), pieces_.size() - head_);
  for (std::size_t i = 0; i < count; ++i) {
    const Piece& p = pieces_[head_ + i];
    out[i] = {const_cast<std::byte*>(p.data), p.size};  // NOLINT: writev does not write there
  }
  return count;
}

void WriteQueue::consume(std::size_t bytes) {
  bytes_ -= bytes;
  while (bytes != 0) {
    Piece& p = pieces_[head_];
    if (bytes < p.size) {
      p.data += bytes;
      p.size -= bytes;
      return;
    }
    bytes -= p.size;
    pop_front();
  }
}

void WriteQueue::clear() {
  pieces_.clear();
  head_ = bytes_ = 0;
  if (chunks_.size() == 1 && spare_ == nullptr) {  // filled anew
    tail_used_ = 0;
    return;
  }
  drop_chunks_before(first_chunk_ + chunks_.size());
}

std::span<std::byte> WriteQueue::room(std::size_t wanted) {
  if (tail_used_ == kChunkBytes) {
    chunks_.push_back(spare_ ? std::move(spare_) : std::unique_ptr<std::byte[]>(new std::byte[kChunkBytes]));
    tail_used_ = 0;
  }
  std::byte* at = chunks_.back().get() + tail_used_;
  const std::size_t given = std::min(wanted, kChunkBytes - tail_used_);
  const std::size_t chunk = first_chunk_ + chunks_.size() - 1;
  if (tail_grows()) {
    pieces_.back().size += given;
  } else {
    pieces_.push_back({at, given, nullptr, chunk});
  }
  tail_used_ += given;
  bytes_ += given;
  return {at, given};
}

// Chunks are filled and emptied in turn, so a piece in a later chunk says that all earlier ones are done.
void WriteQueue::pop_front() {
  constexpr std::size_t kCompactAt = 64;
  Piece& p = pieces_[head_];
  if (p.keep == nullptr) drop_chunks_before(p.chunk);
  p.keep.reset();
  if (++head_ == pieces_.size()) {
    clear();
  } else if (head_ >= kCompactAt && head_ * 2 >= pieces_.size()) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
}

void WriteQueue::drop_chunks_before(std::size_t chunk) {
  const std::size_t count = chunk - first_chunk_;
  if (count == 0) return;
  if (!spare_) spare_ = std::move(chunks_.front());
  chunks_.erase(chunks_.begin(), chunks_.begin() + static_cast<std::ptrdiff_t>(count));
  first_chunk_ = chunk;
  if (chunks_.empty()) tail_used_ = kChunkBytes;
}

}  // namespace fastserve
