// gRPC over HTTP/2 (github.com/grpc/grpc doc/PROTOCOL-HTTP2.md) on libnghttp2, messages by protozero.
#include <nghttp2/nghttp2.h>

#include <cstring>
#include <memory>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <unordered_map>
#include <vector>

#include "loadgen/connection.h"

namespace fastserve::bench {
namespace {

constexpr std::uint32_t kStreamWindowBytes = 64U << 20;  // flow control must not throttle the load
constexpr std::size_t kPrefixBytes = 5;                  // compressed flag + big-endian length

// The framed message of one request; only the id and the tensor bytes differ between requests, and their
// places are fixed.
struct Template {
  std::string message;
  std::size_t id_at;
  std::size_t payload_at;
};

Template make_template(const LoadOptions& options, const Payload& payload) {
  std::string body;
  std::size_t id_at = 0;
  {
    protozero::pbf_writer request(body);
    request.add_string(1, options.model);
    if (!options.version.empty()) request.add_string(2, options.version);
    request.add_string(3, std::string(kIdBytes, '0'));
    id_at = body.size() - kIdBytes;
    if (options.priority != 0) {
      protozero::pbf_writer entry(request, 4);  // of the map `parameters`
      entry.add_string(1, "priority");
      protozero::pbf_writer value(entry, 2);
      value.add_int64(2, options.priority);
    }
    protozero::pbf_writer input(request, 5);
    input.add_string(1, options.input.name);
    input.add_string(2, options.input.dtype);
    input.add_packed_int64(3, options.input.shape.begin(), options.input.shape.end());
  }
  if (!options.output.empty()) {
    protozero::pbf_writer request(body);
    protozero::pbf_writer output(request, 6);
    output.add_string(1, options.output);
  }
  protozero::pbf_writer(body).add_bytes(7, std::string(payload.size(), '\0'));
  std::string prefix(kPrefixBytes, '\0');
  for (std::size_t i = 0; i < 4; ++i) prefix[1 + i] = static_cast<char>(body.size() >> (24 - 8 * i));
  const std::size_t payload_at = kPrefixBytes + body.size() - payload.size();
  Template result{prefix + body, kPrefixBytes + id_at, payload_at};
  payload.fill(0, result.message.data() + result.payload_at);
  return result;
}

// A request on its stream, and its reply as it comes in.
struct Call {
  std::uint64_t tag = 0;
  std::int64_t started_ns = 0;
  std::string own_message;  // verify_echo: each request has its own bytes
  const std::string* message = nullptr;
  std::size_t sent = 0;
  std::string body;
  std::string http_status, grpc_status, grpc_message;
};

class GrpcConnection final : public Connection {
 public:
  GrpcConnection(const std::string& address, const LoadOptions& options, const Payload& payload,
                 OnReply on_reply);
  ~GrpcConnection() override { nghttp2_session_del(session_); }

  void submit(std::uint64_t tag) override;
  int capacity() const override { return options_.in_flight; }

 protected:
  bool encode() override;
  bool decode(std::string_view bytes) override;

 private:
  void finish(Call& call, std::uint32_t http2_error);
  // Fills `out`; the message is wrong if it throws (protozero) or returns text.
  std::string parse(const Call& call, Reply& out);
  static nghttp2_session_callbacks* callbacks();

  const LoadOptions& options_;
  const Payload& payload_;
  const Template template_;
  const std::string authority_;
  const std::string timeout_;  // grpc-timeout; empty: none
  nghttp2_session* session_ = nullptr;
  std::vector<std::unique_ptr<Call>> idle_;
  std::unordered_map<std::int32_t, std::unique_ptr<Call>> live_;  // by stream
};

GrpcConnection* self(void* user) { return static_cast<GrpcConnection*>(user); }
Call* call_of(nghttp2_session* session, std::int32_t stream) {
  return static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream));
}

nghttp2_session_callbacks* GrpcConnection::callbacks() {
  nghttp2_session_callbacks* table = nullptr;
  nghttp2_session_callbacks_new(&table);
  nghttp2_session_callbacks_set_on_header_callback(
      table, [](nghttp2_session* session, const nghttp2_frame* frame, const std::uint8_t* name,
                std::size_t name_len, const std::uint8_t* value, std::size_t value_len, std::uint8_t, void*) {
        Call* call = call_of(session, frame->hd.stream_id);
        if (call == nullptr) return 0;
        const std::string_view key(reinterpret_cast<const char*>(name), name_len);
        std::string* field = key == ":status"        ? &call->http_status
                             : key == "grpc-status"  ? &call->grpc_status
                             : key == "grpc-message" ? &call->grpc_message
                                                     : nullptr;
        if (field != nullptr) field->assign(reinterpret_cast<const char*>(value), value_len);
        return 0;
      });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      table, [](nghttp2_session* session, std::uint8_t, std::int32_t stream, const std::uint8_t* data,
                std::size_t size, void*) {
        Call* call = call_of(session, stream);
        if (call != nullptr) call->body.append(reinterpret_cast<const char*>(data), size);
        return 0;
      });
  nghttp2_session_callbacks_set_on_stream_close_callback(
      table, [](nghttp2_session* session, std::int32_t stream, std::uint32_t error, void* user) {
        Call* call = call_of(session, stream);
        if (call == nullptr) return 0;
        GrpcConnection* connection = self(user);
        connection->finish(*call, error);
        auto node = connection->live_.extract(stream);
        connection->idle_.push_back(std::move(node.mapped()));
        return 0;
      });
  // NO_COPY: the message goes from the call's buffer into the socket's, once.
  nghttp2_session_callbacks_set_send_data_callback(
      table, [](nghttp2_session*, nghttp2_frame*, const std::uint8_t* head, std::size_t length,
                nghttp2_data_source* source, void* user) {
        Call* call = static_cast<Call*>(source->ptr);
        std::string& out = self(user)->socket().out();
        out.append(reinterpret_cast<const char*>(head), 9);
        out.append(*call->message, call->sent, length);
        call->sent += length;
        return 0;
      });
  return table;
}

GrpcConnection::GrpcConnection(const std::string& address, const LoadOptions& options, const Payload& payload,
                               OnReply on_reply)
    : Connection(address, std::move(on_reply)),
      options_(options),
      payload_(payload),
      template_(make_template(options, payload)),
      authority_(address),
      timeout_(options.deadline_ms > 0
                   ? std::to_string(static_cast<std::int64_t>(options.deadline_ms * 1e3)) + "u"
                   : "") {
  nghttp2_session_callbacks* table = callbacks();
  nghttp2_session_client_new(&session_, table, this);
  nghttp2_session_callbacks_del(table);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindowBytes}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 2);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kStreamWindowBytes);
}

nghttp2_nv header(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

void GrpcConnection::submit(std::uint64_t tag) {
  if (idle_.empty()) idle_.push_back(std::make_unique<Call>());
  std::unique_ptr<Call> call = std::move(idle_.back());
  idle_.pop_back();
  call->tag = tag;
  call->sent = 0;
  call->body.clear();
  call->http_status.clear();
  call->grpc_status.clear();
  call->grpc_message.clear();
  call->message = &template_.message;
  if (options_.verify_echo) {
    call->own_message = template_.message;
    write_request_id(tag, call->own_message.data() + template_.id_at);
    payload_.fill(tag, call->own_message.data() + template_.payload_at);
    call->message = &call->own_message;
  }
  const nghttp2_nv headers[] = {header(":method", "POST"),
                                header(":scheme", "http"),
                                header(":path", "/inference.GRPCInferenceService/ModelInfer"),
                                header(":authority", authority_),
                                header("te", "trailers"),
                                header("content-type", "application/grpc"),
                                header("user-agent", "fastserve-loadgen"),
                                header("grpc-timeout", timeout_)};
  nghttp2_data_provider body{};
  body.source.ptr = call.get();
  body.read_callback = [](nghttp2_session*, std::int32_t, std::uint8_t*, std::size_t room,
                          std::uint32_t* flags, nghttp2_data_source* source, void*) -> ssize_t {
    const Call* sender = static_cast<const Call*>(source->ptr);
    const std::size_t left = sender->message->size() - sender->sent;
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (left <= room) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(std::min(left, room));
  };
  call->started_ns = now_ns();
  const std::int32_t stream = nghttp2_submit_request(
      session_, nullptr, headers, std::size(headers) - (timeout_.empty() ? 1 : 0), &body, call.get());
  ++in_flight_;
  if (stream < 0) {
    fail(nghttp2_strerror(stream));
    return;
  }
  live_.emplace(stream, std::move(call));
}

bool GrpcConnection::encode() {
  if (!failure().empty()) return false;
  const std::uint8_t* bytes = nullptr;
  while (true) {
    const ssize_t n = nghttp2_session_mem_send(session_, &bytes);
    if (n < 0) return fail(nghttp2_strerror(static_cast<int>(n)));
    if (n == 0) break;
    socket().out().append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
  }
  return nghttp2_session_want_read(session_) != 0 || fail("the server ended the HTTP/2 session");
}

bool GrpcConnection::decode(std::string_view bytes) {
  const ssize_t n =
      nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  return n >= 0 || fail(nghttp2_strerror(static_cast<int>(n)));
}

void GrpcConnection::finish(Call& call, std::uint32_t http2_error) {
  Reply out;
  out.tag = call.tag;
  out.started_ns = call.started_ns;
  std::string error;
  if (http2_error != NGHTTP2_NO_ERROR) {
    error = std::string("stream reset: ") + nghttp2_http2_strerror(http2_error);
  } else if (call.http_status != "200") {
    error = "HTTP status " + call.http_status;
  } else if (call.grpc_status != "0") {
    error = "grpc-status " + call.grpc_status + ": " + call.grpc_message;
  } else {
    error = parse(call, out);
  }
  out.error = error;
  reply(out);
}

std::string GrpcConnection::parse(const Call& call, Reply& out) {
  if (call.body.size() < kPrefixBytes || call.body[0] != 0) return "no or a compressed message";
  std::size_t length = 0;
  for (std::size_t i = 1; i < kPrefixBytes; ++i)
    length = length << 8 | static_cast<unsigned char>(call.body[i]);
  if (call.body.size() != kPrefixBytes + length) return "message length differs from what came";
  if (!options_.verify_echo && !options_.read_replies) return "";
  try {
    protozero::pbf_reader response(call.body.data() + kPrefixBytes, length);
    std::size_t outputs = 0;
    while (response.next()) {
      if (response.tag() == 2) {
        const auto version = response.get_view();
        out.version = {version.data(), version.size()};
      } else if (response.tag() == 3) {
        const auto id = response.get_view();
        out.id = {id.data(), id.size()};
      } else if (response.tag() == 5 && outputs++ == 0) {
        protozero::pbf_reader tensor = response.get_message();
        while (tensor.next()) {
          if (tensor.tag() == 2) {
            const auto dtype = tensor.get_view();
            out.dtype = {dtype.data(), dtype.size()};
          } else if (tensor.tag() == 3) {
            for (const std::int64_t dim : tensor.get_packed_int64()) out.shape.push_back(dim);
          } else {
            tensor.skip();
          }
        }
      } else if (response.tag() == 6 && out.bytes.data() == nullptr) {
        const auto raw = response.get_view();
        out.bytes = {raw.data(), raw.size()};
      } else {
        response.skip();
      }
    }
  } catch (const protozero::exception& broken) {
    return std::string("ModelInferResponse: ") + broken.what();
  }
  return "";
}

}  // namespace

std::unique_ptr<Connection> make_grpc_connection(const std::string& address, const LoadOptions& options,
                                                 const Payload& payload, OnReply on_reply) {
  return std::make_unique<GrpcConnection>(address, options, payload, std::move(on_reply));
}

}  // namespace fastserve::bench
