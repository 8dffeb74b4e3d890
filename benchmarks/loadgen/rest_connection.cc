// REST over HTTP/1.1 keep-alive, tensors as binary data or as JSON.
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <deque>

#include "loadgen/connection.h"

namespace fastserve::bench {
namespace {

constexpr std::size_t kMaxHeadBytes = 64 << 10;

struct Template {
  std::string message;
  std::size_t id_at;
  std::size_t payload_at;
};

// The tensor as text, and nothing else in its place: the server has to read and to write the numbers.
std::string json_data(std::size_t count) {
  std::string out = "\"data\":[";
  std::array<char, 16> number{};
  for (std::size_t i = 0; i < count; ++i) {
    const auto digits = static_cast<unsigned>((i * 2654435761U + 12345U) % 10'000'000U);
    const int length = std::snprintf(number.data(), number.size(), "%s0.%07u", i == 0 ? "" : ",", digits);
    out.append(number.data(), static_cast<std::size_t>(length));
  }
  return out + "]";
}

// The JSON part of a request; `id` comes first, behind kIdKey.
constexpr std::string_view kIdKey = "{\"id\":\"";
std::string make_json(const LoadOptions& options, const Payload& payload, RestForm form) {
  const bool binary = form == RestForm::kBinary;
  std::string shape;
  for (const std::int64_t dim : options.input.shape)
    shape += (shape.empty() ? "" : ",") + std::to_string(dim);
  const std::string outputs =
      options.output.empty() ? (binary ? ",\"parameters\":{\"binary_data_output\":true}" : "")
                             : ",\"outputs\":[{\"name\":" + json_quote(options.output) +
                                   ",\"parameters\":{\"binary_data\":" + (binary ? "true" : "false") + "}}]";
  const std::string data =
      binary ? "\"parameters\":{\"binary_data_size\":" + std::to_string(payload.size()) + "}"
             : json_data(payload.size() / sizeof(float));
  return std::string(kIdKey) + std::string(kIdBytes, '0') +
         "\",\"inputs\":[{\"name\":" + json_quote(options.input.name) + ",\"shape\":[" + shape +
         "],\"datatype\":\"" + options.input.dtype + "\"," + data + "}]" + outputs + "}";
}

Template make_template(const std::string& address, const LoadOptions& options, const Payload& payload,
                       RestForm form) {
  const bool binary = form == RestForm::kBinary;
  const std::string json = make_json(options, payload, form);
  const std::size_t tensor_bytes = binary ? payload.size() : 0;
  const std::string version = options.version.empty() ? "" : "/versions/" + options.version;
  const std::string type =
      binary ? "application/octet-stream\r\nInference-Header-Content-Length: " + std::to_string(json.size())
             : "application/json";
  const std::string head = "POST /v2/models/" + options.model + version +
                           "/infer HTTP/1.1\r\nHost: " + address + "\r\nContent-Type: " + type +
                           "\r\nContent-Length: " + std::to_string(json.size() + tensor_bytes) + "\r\n\r\n";
  Template result{head + json + std::string(tensor_bytes, '\0'), head.size() + kIdKey.size(),
                  head.size() + json.size()};
  if (binary) payload.fill(0, result.message.data() + result.payload_at);
  return result;
}

struct Sent {
  std::uint64_t tag;
  std::int64_t started_ns;
};

// Head of a reply: what the client needs of it.
struct Head {
  int status = 0;
  std::size_t head_bytes = 0;
  std::size_t body_bytes = 0;
  std::size_t json_bytes = 0;  // the whole body if the server sent no Inference-Header-Content-Length
};

class RestConnection final : public Connection {
 public:
  RestConnection(const std::string& address, const LoadOptions& options, const Payload& payload,
                 RestForm form, bool pipeline, OnReply on_reply)
      : Connection(address, std::move(on_reply)),
        options_(options),
        payload_(payload),
        template_(make_template(address, options, payload, form)),
        capacity_(pipeline ? options.in_flight : 1) {}

  void submit(std::uint64_t tag) override;
  int capacity() const override { return capacity_; }

 protected:
  bool encode() override { return true; }
  bool decode(std::string_view bytes) override;

 private:
  bool parse_head(std::string_view text, Head& head);
  void finish(const Head& head, std::string_view body);
  std::string parse(const Head& head, std::string_view body, Reply& out);

  const LoadOptions& options_;
  const Payload& payload_;
  const Template template_;
  const int capacity_;
  std::deque<Sent> sent_;  // replies come in this order
  std::string in_;
  simdjson::dom::parser json_;
};

void RestConnection::submit(std::uint64_t tag) {
  std::string& out = socket().out();
  const std::size_t start = out.size();
  out += template_.message;
  if (options_.verify_echo) {
    write_request_id(tag, out.data() + start + template_.id_at);
    payload_.fill(tag, out.data() + start + template_.payload_at);
  }
  sent_.push_back({tag, now_ns()});
  ++in_flight_;
}

bool RestConnection::decode(std::string_view bytes) {
  in_ += bytes;
  std::size_t at = 0;
  while (at < in_.size()) {
    const std::string_view text = std::string_view(in_).substr(at);
    const std::size_t end = text.find("\r\n\r\n");
    if (end == std::string_view::npos) {
      if (text.size() > kMaxHeadBytes) return fail("reply head too long");
      break;
    }
    Head head;
    head.head_bytes = end + 4;
    if (!parse_head(text.substr(0, end + 2), head)) return false;
    if (text.size() < head.head_bytes + head.body_bytes) break;
    if (sent_.empty()) return fail("a reply that nobody asked for");
    finish(head, text.substr(head.head_bytes, head.body_bytes));
    at += head.head_bytes + head.body_bytes;
  }
  in_.erase(0, at);
  return true;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

bool RestConnection::parse_head(std::string_view text, Head& head) {
  if (text.size() < 12 || text.substr(0, 7) != "HTTP/1.") return fail("not an HTTP/1 reply");
  std::from_chars(text.data() + 9, text.data() + 12, head.status);
  bool have_json = false, have_length = false;
  for (std::size_t at = text.find("\r\n") + 2; at < text.size();) {
    const std::size_t end = text.find("\r\n", at);
    const std::string_view line = text.substr(at, end - at);
    at = end + 2;
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view name = line.substr(0, colon);
    const char* value = line.data() + colon + 1;
    const char* const stop = line.data() + line.size();
    while (value < stop && *value == ' ') ++value;
    if (equals_ignoring_case(name, "content-length")) {
      have_length = std::from_chars(value, stop, head.body_bytes).ec == std::errc();
    } else if (equals_ignoring_case(name, "inference-header-content-length")) {
      have_json = std::from_chars(value, stop, head.json_bytes).ec == std::errc();
    } else if (equals_ignoring_case(name, "transfer-encoding")) {
      return fail("chunked replies are not measured");
    }
  }
  if (!have_length) return fail("reply without Content-Length");
  if (!have_json) head.json_bytes = head.body_bytes;
  return head.json_bytes <= head.body_bytes || fail("Inference-Header-Content-Length beyond the body");
}

void RestConnection::finish(const Head& head, std::string_view body) {
  Reply out;
  out.tag = sent_.front().tag;
  out.started_ns = sent_.front().started_ns;
  sent_.pop_front();
  std::string error;
  if (head.status != 200) {
    error = "HTTP status " + std::to_string(head.status) + ": " + std::string(body.substr(0, 200));
  } else if (options_.verify_echo || options_.read_replies) {
    error = parse(head, body, out);
  }
  out.error = error;
  reply(out);
}

// The views in `out` point into `body` and into the parser: valid until the next reply.
std::string RestConnection::parse(const Head& head, std::string_view body, Reply& out) {
  simdjson::dom::element root, output;
  std::string_view text;
  if (json_.parse(body.data(), head.json_bytes).get(root) != simdjson::SUCCESS) return "reply: not JSON";
  if (root["id"].get(text) == simdjson::SUCCESS) out.id = text;
  if (root["model_version"].get(text) == simdjson::SUCCESS) out.version = text;
  if (root["outputs"].at(0).get(output) != simdjson::SUCCESS) return "reply: no outputs[0]";
  if (output["datatype"].get(text) == simdjson::SUCCESS) out.dtype = text;
  simdjson::dom::array shape;
  if (output["shape"].get(shape) != simdjson::SUCCESS) return "reply: no outputs[0].shape";
  for (const simdjson::dom::element dim : shape) {
    std::int64_t value = -1;
    if (dim.get(value) == simdjson::SUCCESS) out.shape.push_back(value);
  }
  std::uint64_t size = 0;
  if (output["parameters"]["binary_data_size"].get(size) != simdjson::SUCCESS) {
    return "reply: outputs[0] is not binary";
  }
  if (head.json_bytes + size > body.size()) return "reply: binary_data_size beyond the body";
  out.bytes = body.substr(head.json_bytes, size);
  return "";
}

}  // namespace

std::unique_ptr<Connection> make_rest_connection(const std::string& address, const LoadOptions& options,
                                                 const Payload& payload, RestForm form, bool pipeline,
                                                 OnReply on_reply) {
  return std::make_unique<RestConnection>(address, options, payload, form, pipeline, std::move(on_reply));
}

}  // namespace fastserve::bench
