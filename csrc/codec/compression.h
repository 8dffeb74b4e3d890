// Message and body compression: gzip (RFC 1952) and deflate, which in gRPC and HTTP means the zlib format (RFC 1950, RFC 9110
// section 8.4.1.2), not raw deflate. On zlib. Any thread; each keeps its own zlib states once it has used them (inflate 40 KiB,
// deflate 260 KiB per format), so that no message allocates one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "memory/byte_buffer.h"

namespace fastserve {

enum class Compression : std::uint8_t { kIdentity, kGzip, kDeflate };

// The names of grpc-encoding and Content-Encoding: "identity", "gzip", "deflate" (exactly). nullopt for any other.
std::optional<Compression> parse_compression(std::string_view name);
std::string_view compression_name(Compression compression);

// Appends what `in`, one whole compressed message, unpacks to. `out` never grows by more than `max_bytes` (its capacity neither,
// unless it had it before); work stops there too, so a bomb costs what a message at the limit costs.
// gzip: several members one after the other are one message (RFC 1952 section 2.2).
// Errors, with `out` as it was: RESOURCE_EXHAUSTED over max_bytes; INVALID_ARGUMENT for corrupt or truncated data, a wrong
// checksum, a preset dictionary, or bytes behind the end.
Status decompress(Compression compression, std::span<const std::byte> in, std::size_t max_bytes,
                  ByteBuffer& out);

// Appends the compressed form of `pieces` taken as one message, at zlib's level 1. Error: RESOURCE_EXHAUSTED without memory.
// Why level 1: on a server the processor is dearer than the wire. Measured on one core: FP32 pixels 125 MB/s to 27 % of
// the size, level 6 24 MB/s to 20 %; JSON digits 110 MB/s to 41 %, level 6 18 MB/s to 37 %; FP32 noise 36 MB/s to 90 %.
Status compress(Compression compression, std::span<const std::span<const std::byte>> pieces, ByteBuffer& out);

}  // namespace fastserve
