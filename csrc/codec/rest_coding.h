// Content codings of REST: which one a request's body has, which one the response gets (RFC 9110 sections 8.4 and 12.5.3).
// Pure; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "codec/compression.h"

namespace fastserve {

// Response bodies from this size on are compressed for clients that accept it: below, the head weighs more than what is
// saved, and a packet is a packet.
inline constexpr std::size_t kCompressFromBytes = 1024;

// A Content-Encoding header: one of identity, gzip (x-gzip) and deflate, in any case; "" is identity. nullopt: another
// coding, or several on top of each other.
std::optional<Compression> parse_content_coding(std::string_view header);

// An Accept-Encoding header: the coding of the highest weight that we have; of equal ones gzip before deflate before
// identity. "*" stands for what is not named. What cannot be parsed weighs nothing. Without anything acceptable: identity.
Compression choose_coding(std::string_view accept_encoding);

}  // namespace fastserve
