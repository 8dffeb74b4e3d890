// The hot route of the Open Inference Protocol: POST /v2/models/{model}[/versions/{version}]/infer.
#pragma once

#include <cstdint>
#include <string_view>

#include "memory/scratch.h"

namespace fastserve {

struct RestRoute {
  std::string_view model;    // percent-decoded once
  std::string_view version;  // "" = by version policy
};

enum class RestMatch : std::uint8_t {
  kInfer,      // the route is the hot one, `out` is filled
  kOther,      // any other path: Starlette's
  kMalformed,  // looks like the hot route, but a name holds a bad percent escape or a NUL: 400
};

// Matches the raw (percent-encoded) path of a request, without query. The path is split at '/' first and each name decoded
// once afterwards, so that "%2f" and "%252f" cannot move a boundary; whether such a name exists is the version table's
// answer (404). Decoded names point into `path` or `scratch`.
RestMatch match_infer_route(std::string_view path, Scratch& scratch, RestRoute& out);

}  // namespace fastserve
