#include "frontend/rest_exchange.h"

#include <algorithm>
#include <charconv>

#include "codec/classification.h"
#include "codec/json_writer.h"
#include "codec/rest_coding.h"
#include "codec/rest_infer.h"
#include "codec/rest_route.h"
#include "frontend/io_loop.h"

namespace fastserve {
namespace {

constexpr std::string_view kOurCodings = "gzip, deflate, identity";
constexpr int kTooLarge = 413;
constexpr int kUnsupportedMediaType = 415;

RestRefusal refusal(const Status& status, std::string_view request_id) {
  return {http_status(status.code()), status.code(), with_request_id(request_id, status.message()),
          status.retry_after_s()};
}

// The body as the client meant it. The limit holds for the unpacked size too.
RestVerdict unpack(const IoLimits& limits, Call& call) {
  ByteBuffer& message = call.request.message;
  if (call.body_coding == Compression::kIdentity || message.empty()) return std::nullopt;
  ByteBuffer unpacked;
  const Status status = decompress(call.body_coding, message.span(), limits.max_message_bytes, unpacked);
  const std::string_view name = compression_name(call.body_coding);
  if (status.code() == Code::kResourceExhausted) {
    return RestRefusal{kTooLarge, status.code(),
                       "request body of more than " + std::to_string(limits.max_message_bytes) +
                           " bytes when its " + std::string(name) + " is unpacked, want so many or fewer"};
  }
  if (!status.is_ok()) {
    return RestRefusal{http_status(status.code()), status.code(),
                       "request body: got content-encoding " + std::string(name) +
                           " that does not unpack: " + status.message()};
  }
  message = std::move(unpacked);
  return std::nullopt;
}

// Request::complete of a raw body, which stands there as an input without a name.
Status complete_raw(const ServedVersion& version, Request& request) {
  const std::span<const std::byte> body = request.inputs.front().data;
  request.inputs.clear();
  return complete_raw_request(version.signature, request.model_name, body, request);
}

Status decode(Call& call) {
  Request& request = call.request;
  RestForm form = RestForm::kJson;
  const auto length =
      call.has_header_length ? std::optional<std::string_view>(call.header_length) : std::nullopt;
  FS_RETURN_IF_ERROR(decode_rest_infer(request.message.span(), length, request, form));
  if (form == RestForm::kJson) return Status::ok();
  TensorView body;
  body.data = request.message.span();
  request.inputs.push_back(body);
  request.complete = &complete_raw;
  return Status::ok();
}

// The pieces of a message in wire order.
std::vector<std::span<const std::byte>> pieces_of(const OutMessage& message) {
  std::vector<std::span<const std::byte>> out;
  std::size_t at = 0;
  const auto own_until = [&](std::size_t end) {
    if (end > at) out.emplace_back(message.own.data() + at, end - at);
    at = end;
  };
  for (const OutMessage::External& e : message.external) {
    own_until(e.at);
    out.push_back(e.bytes);
  }
  own_until(message.own.size());
  return out;
}

bool has_header(const RestAnswer& answer, std::string_view name) {
  return std::ranges::any_of(answer.headers,
                             [name](const Http1Header& h) { return equals_lower(h.name, name); });
}

// Noise that does not get smaller goes out as it is.
void pack(const Call& call, RestAnswer& out) {
  if (out.body.bytes() < kCompressFromBytes || has_header(out, "content-encoding")) return;
  if (!has_header(out, "vary")) out.headers.push_back({"vary", "accept-encoding"});
  if (call.answer_coding == Compression::kIdentity) return;
  ByteBuffer packed;
  if (!compress(call.answer_coding, pieces_of(out.body), packed).is_ok()) return;
  if (packed.size() >= out.body.bytes()) return;
  out.body.clear();
  out.body.own = std::move(packed);
  out.headers.push_back({"content-encoding", compression_name(call.answer_coding)});
}

}  // namespace

RestVerdict begin_exchange(const RestRequestHead& head, Call& call) {
  call.body_coding = call.answer_coding = Compression::kIdentity;
  RestRoute route;
  const RestMatch match =
      head.method == "POST" ? match_infer_route(head.path, call.request.scratch, route) : RestMatch::kOther;
  call.kind = match == RestMatch::kOther ? CallKind::kHttpCold : CallKind::kRestInfer;
  if (!head.accept_encoding.empty()) call.answer_coding = choose_coding(head.accept_encoding);
  if (match == RestMatch::kMalformed) {
    return RestRefusal{400, Code::kInvalidArgument, "malformed percent-encoding in the path"};
  }
  const auto coding = parse_content_coding(head.content_encoding);
  if (!coding) {
    return RestRefusal{kUnsupportedMediaType, Code::kInvalidArgument,
                       "content-encoding: got \"" + std::string(head.content_encoding.substr(0, 64)) +
                           "\", want one of " + std::string(kOurCodings)};
  }
  call.body_coding = *coding;
  if (match == RestMatch::kOther) return std::nullopt;
  // The route's names may point into the head, which is gone after this event.
  call.target.assign(route.model).append(route.version);
  const std::string_view names = call.target;
  call.request.model_name = names.substr(0, route.model.size());
  call.request.model_version = names.substr(route.model.size());
  call.has_header_length = head.json_length.has_value();
  if (head.json_length) call.header_length = *head.json_length;
  return std::nullopt;
}

RestVerdict complete_exchange(IoLoop& loop, Call& call) {
  if (RestVerdict wrong = unpack(loop.limits(), call)) return wrong;
  if (call.kind == CallKind::kHttpCold) {
    if (call.body_coding != Compression::kIdentity) {  // the application gets what it can read
      std::erase_if(call.fields, [](const auto& field) { return field.first == "content-encoding"; });
      for (auto& [name, value] : call.fields) {
        if (name == "content-length") value = std::to_string(call.request.message.size());
      }
    }
    loop.add_cold(call);
    return std::nullopt;
  }
  Status status = decode(call);
  if (status.is_ok()) status = loop.submit(call);
  if (status.is_ok()) return std::nullopt;
  return refusal(status, call.request.id);
}

void answer_inference(IoLoop& loop, Call& call, RestAnswer& out) {
  out.clear();
  Request& request = call.request;
  RestHead head;
  Status status = request.response.status;
  if (status.is_ok()) status = classify_outputs(*request.version, request);
  if (status.is_ok()) {
    status = encode_rest_infer(request.response, *request.version, request, out.body, head);
  }
  if (!status.is_ok()) return answer_refusal(call, refusal(status, request.id), out);
  out.status = 200;
  out.headers.push_back({"content-type", head.content_type});
  if (head.json_length) {
    const auto end = std::to_chars(std::begin(out.digits), std::end(out.digits), *head.json_length).ptr;
    out.headers.push_back({"inference-header-content-length",
                           {out.digits, static_cast<std::size_t>(end - std::begin(out.digits))}});
  }
  pack(call, out);
  if (out.body.needs_keep()) out.body.keep = loop.keep_for_output(call);
}

void answer_refusal(const Call& call, const RestRefusal& why, RestAnswer& out) {
  out.clear();
  out.status = why.http_status;
  out.headers.push_back({"content-type", "application/json"});
  if (why.http_status == kUnsupportedMediaType) out.headers.push_back({"accept-encoding", kOurCodings});
  if (why.http_status == 503) {  // RFC 9110, 10.2.3
    const auto end =
        std::to_chars(std::begin(out.digits), std::end(out.digits), std::max<int>(why.retry_after_s, 1)).ptr;
    out.headers.push_back(
        {"retry-after", {out.digits, static_cast<std::size_t>(end - std::begin(out.digits))}});
  }
  out.body.own.append(error_body(why.message));
  pack(call, out);
}

void answer_cold(const Call& call, int status, RestFields headers, std::span<const std::byte> body,
                 RestAnswer& out) {
  out.clear();
  out.status = status;
  bool varies = false;
  for (const auto& [name, value] : headers) {
    out.headers.push_back({name, value});
    varies = varies || (equals_lower(name, "vary") && equals_lower(value, "accept-encoding"));
  }
  out.body.own.append(body);
  if (varies) pack(call, out);
}

}  // namespace fastserve
