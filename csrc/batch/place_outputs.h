// Answers that are to be in memory that the request named (RequestedOutput::destination): whatever the device did not write
// there by itself is copied. And the last look at the shared memory that a request used.
#pragma once

#include <cstdint>

#include "batch/request.h"

namespace fastserve {

// Any thread, once the response is filled in; again does nothing. An output that does not fit makes the response an
// INVALID_ARGUMENT, in Triton's words; so does a region that was broken meanwhile (memory/region.h), whatever the model made of
// the zeros there. Returns the bytes that were copied.
std::uint64_t place_outputs(Request& request);

}  // namespace fastserve
