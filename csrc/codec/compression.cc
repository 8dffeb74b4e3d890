#include "codec/compression.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>

namespace fastserve {
namespace {

constexpr int kWindowBits = 15;  // 32 KiB, the largest: a peer may use it
constexpr int kGzipWrapper = 16;
constexpr int kMemoryLevel = 8;  // zlib's default
constexpr int kLevel = 1;
constexpr std::size_t kFirstBytes = 4 * 1024;  // of room for the output
constexpr std::size_t kMaxStep = std::numeric_limits<uInt>::max();

int window_bits(Compression compression) {
  return compression == Compression::kGzip ? kWindowBits + kGzipWrapper : kWindowBits;
}

Bytef* zlib_in(const std::byte* bytes) {  // zlib's next_in is not const, and not written to
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes));
}

Status out_of_memory() { return {Code::kResourceExhausted, "compression: out of memory"}; }

class Inflater {
 public:
  Inflater() = default;
  ~Inflater() {
    if (ready_) inflateEnd(&stream_);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  z_stream* start(Compression compression) {
    const int bits = window_bits(compression);
    stream_.next_in = nullptr;
    stream_.avail_in = 0;
    const int rc = ready_ ? inflateReset2(&stream_, bits) : inflateInit2(&stream_, bits);
    ready_ = ready_ || rc == Z_OK;
    return rc == Z_OK ? &stream_ : nullptr;
  }

 private:
  z_stream stream_{};
  bool ready_ = false;
};

class Deflater {
 public:
  explicit Deflater(Compression compression) : bits_(window_bits(compression)) {}
  ~Deflater() {
    if (ready_) deflateEnd(&stream_);
  }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  z_stream* start() {
    const int rc = ready_
                       ? deflateReset(&stream_)
                       : deflateInit2(&stream_, kLevel, Z_DEFLATED, bits_, kMemoryLevel, Z_DEFAULT_STRATEGY);
    ready_ = ready_ || rc == Z_OK;
    return rc == Z_OK ? &stream_ : nullptr;
  }

 private:
  const int bits_;
  z_stream stream_{};
  bool ready_ = false;
};

thread_local Inflater inflater;
thread_local Deflater gzip_deflater(Compression::kGzip);
thread_local Deflater zlib_deflater(Compression::kDeflate);

Status too_large(Compression compression, std::size_t max_bytes) {
  return {Code::kResourceExhausted, "message too large: " + std::string(compression_name(compression)) +
                                        " data unpacks to more than the limit of " +
                                        std::to_string(max_bytes) + " bytes"};
}

Status corrupt(Compression compression, std::string_view problem) {
  return invalid_argument(std::string(compression_name(compression)) + " data: " + std::string(problem));
}

// Room that grows by doubling, but to no more than `limit` bytes altogether.
std::span<std::byte> more_room(ByteBuffer& out, std::size_t limit) {
  const std::size_t size = out.size();
  if (size == out.capacity()) {
    out.reserve(std::min(limit, std::max(out.capacity() * 2, size + kFirstBytes)));
  }
  const std::size_t room = std::min({out.capacity() - size, limit - size, kMaxStep});
  return {out.extend(room), room};
}

// One message, appended; leaves what it wrote in `out` when it fails.
Status inflate_all(Compression compression, std::span<const std::byte> in, std::size_t max_bytes,
                   ByteBuffer& out) {
  z_stream* stream = inflater.start(compression);
  if (stream == nullptr) return out_of_memory();
  const std::size_t limit = out.size() + max_bytes;
  out.reserve(std::min(limit, out.size() + 2 * in.size()));
  while (true) {
    // At the limit one byte of room elsewhere tells an end from a message that goes on.
    std::array<std::byte, 1> spill{};
    const bool full = out.size() == limit;
    const std::span<std::byte> room = full ? std::span<std::byte>(spill) : more_room(out, limit);
    const std::size_t step = std::min(in.size(), kMaxStep);
    stream->next_in = zlib_in(in.data());
    stream->avail_in = static_cast<uInt>(step);
    stream->next_out = reinterpret_cast<Bytef*>(room.data());
    stream->avail_out = static_cast<uInt>(room.size());
    const int rc = inflate(stream, Z_NO_FLUSH);
    in = in.subspan(step - stream->avail_in);
    const bool filled = stream->avail_out == 0;
    if (full && filled) return too_large(compression, max_bytes);
    if (!full) out.truncate(out.size() - stream->avail_out);
    if (rc == Z_STREAM_END) {
      if (in.empty()) return Status::ok();
      constexpr auto kMagic = std::byte{0x1f};
      if (compression != Compression::kGzip || in.front() != kMagic) {
        return corrupt(compression, "got " + std::to_string(in.size()) + " bytes behind its end");
      }
      if (inflater.start(compression) == nullptr) return out_of_memory();
      continue;
    }
    if (rc == Z_MEM_ERROR) return out_of_memory();
    if (rc == Z_NEED_DICT) return corrupt(compression, "it needs a preset dictionary");
    if (rc != Z_OK && rc != Z_BUF_ERROR) {
      return corrupt(compression, stream->msg == nullptr ? "corrupt" : stream->msg);
    }
    if (in.empty() && !filled) return corrupt(compression, "it ends before its end mark");
  }
}

// Compresses one piece (flush: Z_NO_FLUSH), or ends the message (Z_FINISH).
Status deflate_piece(z_stream* stream, std::span<const std::byte> piece, int flush, ByteBuffer& out) {
  constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
  while (true) {
    const std::size_t step = std::min(piece.size(), kMaxStep);
    const std::span<std::byte> room = more_room(out, kNoLimit);
    stream->next_in = zlib_in(piece.data());
    stream->avail_in = static_cast<uInt>(step);
    stream->next_out = reinterpret_cast<Bytef*>(room.data());
    stream->avail_out = static_cast<uInt>(room.size());
    const int rc = deflate(stream, flush);
    piece = piece.subspan(step - stream->avail_in);
    const bool filled = stream->avail_out == 0;
    out.truncate(out.size() - stream->avail_out);
    if (rc == Z_STREAM_END) return Status::ok();
    if (rc != Z_OK && rc != Z_BUF_ERROR) return out_of_memory();
    if (flush == Z_NO_FLUSH && piece.empty() && !filled) return Status::ok();
  }
}

}  // namespace

std::optional<Compression> parse_compression(std::string_view name) {
  for (const Compression each : {Compression::kIdentity, Compression::kGzip, Compression::kDeflate}) {
    if (name == compression_name(each)) return each;
  }
  return std::nullopt;
}

std::string_view compression_name(Compression compression) {
  switch (compression) {
    case Compression::kIdentity:
      return "identity";
    case Compression::kGzip:
      return "gzip";
    case Compression::kDeflate:
      return "deflate";
  }
  return "identity";
}

Status decompress(Compression compression, std::span<const std::byte> in, std::size_t max_bytes,
                  ByteBuffer& out) {
  if (compression == Compression::kIdentity) {
    if (in.size() > max_bytes) return too_large(compression, max_bytes);
    out.append(in);
    return Status::ok();
  }
  const std::size_t before = out.size();
  Status status = inflate_all(compression, in, max_bytes, out);
  if (!status) out.truncate(before);
  return status;
}

Status compress(Compression compression, std::span<const std::span<const std::byte>> pieces,
                ByteBuffer& out) {
  if (compression == Compression::kIdentity) {
    for (const auto piece : pieces) out.append(piece);
    return Status::ok();
  }
  const std::size_t before = out.size();
  z_stream* stream = (compression == Compression::kGzip ? gzip_deflater : zlib_deflater).start();
  Status status = stream == nullptr ? out_of_memory() : Status::ok();
  for (std::size_t i = 0; status.is_ok() && i < pieces.size(); ++i) {
    if (!pieces[i].empty()) status = deflate_piece(stream, pieces[i], Z_NO_FLUSH, out);
  }
  if (status.is_ok()) status = deflate_piece(stream, {}, Z_FINISH, out);
  if (!status) out.truncate(before);
  return status;
}

}  // namespace fastserve
