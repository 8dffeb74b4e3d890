// Bytes waiting to be written to one socket. Small pieces are copied into chunks, large ones are referenced together with
// whatever keeps them alive, so that a tensor goes from the batch to the kernel without a copy. No I/O in here:
//   n = queue.gather(iov);  k = ::writev(fd, iov, n);  queue.consume(k);
// One owner, one thread at a time. Allocates a chunk when the last is full; one emptied chunk is kept for reuse, and
// an idle queue keeps no more than that.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "codec/out_message.h"

namespace fastserve {

class WriteQueue {
 public:
  static constexpr std::size_t kChunkBytes = 4 * 1024;  // small: an idle connection keeps one

  WriteQueue() = default;
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  void append(std::span<const std::byte> bytes) {  // copies
    if (!bytes.empty() && tail_used_ + bytes.size() <= kChunkBytes && tail_grows()) [[likely]] {
      std::memcpy(chunks_.back().get() + tail_used_, bytes.data(), bytes.size());
      pieces_.back().size += bytes.size();
      tail_used_ += bytes.size();
      bytes_ += bytes.size();
      return;
    }
    append_slowly(bytes);
  }
  void append(std::string_view text) { append(std::as_bytes(std::span(text.data(), text.size()))); }
  // `bytes` stay valid while `keep` lives; below kReferenceBytes they are copied all the same.
  void reference(std::span<const std::byte> bytes, const std::shared_ptr<const void>& keep);
  // The whole message. Leaves `message` cleared, with its capacities, so that the caller can encode the next one into it.
  void append(OutMessage&& message);

  // Fills as much of `out` as there are pieces; returns how many entries. They stay valid until the next non-const call.
  std::size_t gather(std::span<iovec> out) const;
  // `bytes` of what gather() showed were written; releases what they referenced. At most bytes().
  void consume(std::size_t bytes);

  std::size_t bytes() const { return bytes_; }
  bool empty() const { return bytes_ == 0; }
  void clear();

 private:
  struct Piece {
    const std::byte* data = nullptr;
    std::size_t size = 0;
    std::shared_ptr<const void> keep;  // nullptr: the bytes lie in a chunk
    std::size_t chunk = 0;             // number of that chunk; chunks_[chunk - first_chunk_]
  };
  // The last piece is the end of the last chunk.
  bool tail_grows() const {
    return head_ < pieces_.size() && pieces_.back().keep == nullptr &&
           pieces_.back().chunk == first_chunk_ + chunks_.size() - 1;
  }
  void append_slowly(std::span<const std::byte> bytes);
  std::span<std::byte> room(
      std::size_t wanted);  // at least one byte, at most `wanted`, behind the last piece
  void pop_front();
  void drop_chunks_before(std::size_t chunk);

  std::vector<Piece> pieces_;  // live: [head_, size)
  std::size_t head_ = 0;
  std::size_t bytes_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;  // filled in turn: the last has tail_used_ bytes
  std::size_t first_chunk_ = 0;
  std::size_t tail_used_ = kChunkBytes;
  std::unique_ptr<std::byte[]> spare_;
};

}  // namespace fastserve
