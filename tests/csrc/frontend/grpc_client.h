// A gRPC client for tests of the front end: messages framed and read with protozero, on the nghttp2 client of the codec tests.
#pragma once

#include <protozero/pbf_reader.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "codec/compression.h"
#include "codec/grpc_framing.h"
#include "codec/http2_client.h"
#include "codec/oip_messages.h"
#include "frontend/frontend_test.h"

namespace fastserve::testing {

inline std::string framed(std::string_view payload, char flag = 0) {
  std::string out(kGrpcPrefixBytes, '\0');
  write_grpc_prefix(reinterpret_cast<std::byte*>(out.data()), payload.size());
  out[0] = flag;
  return out += payload;
}

inline std::string packed(Compression how, std::string_view text) {
  ByteBuffer out;
  const std::array pieces{bytes(text)};
  EXPECT_TRUE(compress(how, pieces, out).is_ok());
  return std::string(out.view());
}

// A ModelInferRequest with one FP32 input IN of [1, raw.size() / 4].
inline std::string infer_request(
    std::string_view model, std::string_view id, const std::string& raw,
    const Fields& more = [](pbf_writer&) {}) {
  return message([&](pbf_writer& w) {
    w.add_string(1, model.data(), model.size());
    if (!id.empty()) w.add_string(3, id.data(), id.size());
    more(w);
    input(w, "IN", "FP32", {1, static_cast<std::int64_t>(raw.size() / 4)});
    w.add_bytes(7, raw);
  });
}

inline std::string trailer(const Reply& reply, std::string_view name) {
  for (const Headers* list : {&reply.trailers, &reply.headers}) {
    for (const auto& [key, value] : *list) {
      if (key == name) return value;
    }
  }
  return {};
}

// One answer of a stream.
struct StreamAnswer {
  std::string error, model, id, raw;
  bool final = false;
};

inline void read_infer_response(protozero::pbf_reader reader, StreamAnswer& out) {
  while (reader.next()) {
    switch (reader.tag()) {
      case 1:
        out.model = reader.get_string();
        break;
      case 3:
        out.id = reader.get_string();
        break;
      case 4:
        out.final = reader.get_string().ends_with("\x08\x01");
        break;
      case 6:
        out.raw = reader.get_string();
        break;
      default:
        reader.skip();
    }
  }
}

// The whole messages of `body` so far, unpacked where they are compressed.
inline std::vector<std::string> messages_of(const std::string& body, std::string_view encoding = "") {
  std::vector<std::string> out;
  GrpcDeframer deframer;
  deframer.set_encoding(encoding);
  auto rest = bytes(body);
  ByteBuffer whole, scratch;
  while (!rest.empty()) {
    EXPECT_TRUE(deframer.feed(rest, whole));
    if (!deframer.complete()) break;
    if (deframer.compressed()) {
      EXPECT_TRUE(deframer.unpack(whole, scratch));
    }
    out.emplace_back(whole.view());
    whole.clear();
    deframer.next();
  }
  return out;
}

inline std::vector<StreamAnswer> stream_answers(const Reply& reply) {
  std::vector<StreamAnswer> out;
  for (const std::string& message : messages_of(reply.body, trailer(reply, "grpc-encoding"))) {
    StreamAnswer& answer = out.emplace_back();
    protozero::pbf_reader reader(message);
    while (reader.next()) {
      if (reader.tag() == 1) {
        answer.error = reader.get_string();
      } else {
        read_infer_response(reader.get_message(), answer);
      }
    }
  }
  return out;
}

}  // namespace fastserve::testing
