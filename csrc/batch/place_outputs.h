// Answers that are to be in memory that the request named (RequestedOutput::destination): whatever the device did not write
// there by itself is copied. And the last look at the shared memory that a request used.
#pragma once

#include <cstdint>

#include "batch/request.h"

namespace fastserve {

// Any thread, once the response is filled in; again does nothing. An output that does not fit makes the response an
// INVALID_ARGUMENT, in Triton's words; so does a region that was broken meanwhile (memory/region.h), whatever the model made of
// the zeros there (Response::misplaced: both are the client's fault). Returns the bytes that were copied.
std::uint64_t place_outputs(Request& request);

// The same INVALID_ARGUMENT and nothing else, for an answer that others (Request::tap) are to see before it is placed.
void check_places(Request& request);

}  // namespace fastserve
