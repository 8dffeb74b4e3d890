// One REST exchange, whichever HTTP version carries it: what a request is (inference or a cold call), from its complete body
// into the engine or to the cold side, and from the engine's response to status, headers and body.
// Thread: the loop's.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codec/http1_head.h"
#include "codec/out_message.h"
#include "frontend/call.h"

namespace fastserve {

class IoLoop;

using RestFields = std::span<const std::pair<std::string, std::string>>;

// What matters of a request's head here. Views; "" = the header is absent.
struct RestRequestHead {
  std::string_view method;
  std::string_view path;  // raw, without query
  std::string_view content_encoding;
  std::string_view accept_encoding;
  std::optional<std::string_view> json_length;  // Inference-Header-Content-Length
};

// A request that is answered without having reached a model or the cold side.
struct RestRefusal {
  int http_status = 0;
  Code code = Code::kOk;
  std::string message;
  std::uint16_t retry_after_s = 0;  // of 503, told as at least 1
};
using RestVerdict = std::optional<RestRefusal>;  // nullopt: go on

// A whole response. Reused: views in `headers` point into itself or to literals, and die with the next answer.
struct RestAnswer {
  int status = 200;
  std::vector<Http1Header> headers;  // lower case; without content-length
  OutMessage body;
  char digits[24];

  void clear() {
    headers.clear();
    body.clear();
  }
};

// At the head: sets call.kind and, of an infer request, model and version. A cold call's method, target and fields are the
// caller's to copy (call.kind says so).
RestVerdict begin_exchange(const RestRequestHead& head, Call& call);

// The body stands complete in call.request.message: unpacks it, then submits the inference or adds the cold call.
RestVerdict complete_exchange(IoLoop& loop, Call& call);

// The answers. Each clears `out` first. From kCompressFromBytes on they go out compressed when the client accepts it; those of
// cold routes only when the application says that they may be, with a header "vary: accept-encoding": tritonclient.http.aio
// accepts compression everywhere (aiohttp's default) and undoes it for inference alone, which is all that Triton compresses.
void answer_inference(IoLoop& loop, Call& call, RestAnswer& out);  // from call.request.response
void answer_refusal(const Call& call, const RestRefusal& why, RestAnswer& out);
void answer_cold(const Call& call, int status, RestFields headers, std::span<const std::byte> body,
                 RestAnswer& out);

}  // namespace fastserve
