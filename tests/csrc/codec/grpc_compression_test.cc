#include "codec/grpc_compression.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "codec/grpc_framing.h"
#include "codec/write_queue.h"

namespace fastserve {
namespace {

constexpr std::string_view kAll = "identity, deflate, gzip";

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

OutMessage framed(std::string_view payload) {
  OutMessage message;
  write_grpc_prefix(message.own.extend(kGrpcPrefixBytes), payload.size());
  message.own.append(payload);
  return message;
}

std::string unpacked(OutMessage& message, std::string_view encoding) {
  EXPECT_TRUE(message.external.empty());
  EXPECT_EQ(*message.own.data(), std::byte{1});
  GrpcDeframer deframer;
  deframer.set_encoding(encoding);
  ByteBuffer plain, scratch;
  EXPECT_TRUE(deframer.feed_unary(message.own.span(), plain));
  EXPECT_TRUE(deframer.finish_unary());
  EXPECT_TRUE(deframer.unpack(plain, scratch));
  return std::string(plain.view());
}

TEST(ChooseGrpcEncoding, FollowsTheRequestWhenTheClientReadsIt) {
  EXPECT_EQ(choose_grpc_encoding("gzip", kAll, false), Compression::kGzip);
  EXPECT_EQ(choose_grpc_encoding("deflate", "deflate", false), Compression::kDeflate);
  EXPECT_EQ(choose_grpc_encoding("gzip", "identity,deflate", false), Compression::kIdentity);
  EXPECT_EQ(choose_grpc_encoding("gzip", "", false), Compression::kIdentity);
  EXPECT_EQ(choose_grpc_encoding("gzip", "gzipped, xgzip", false), Compression::kIdentity);
  EXPECT_EQ(choose_grpc_encoding("identity", kAll, false), Compression::kIdentity);
  EXPECT_EQ(choose_grpc_encoding("", kAll, false), Compression::kIdentity);
  EXPECT_EQ(choose_grpc_encoding("snappy", "snappy", false), Compression::kIdentity);
}

TEST(ChooseGrpcEncoding, ForEverybodyWhenTheServerSaysSo) {
  EXPECT_EQ(choose_grpc_encoding("", kAll, true), Compression::kGzip);
  EXPECT_EQ(choose_grpc_encoding("identity", "identity,deflate", true), Compression::kDeflate);
  EXPECT_EQ(choose_grpc_encoding("", "identity", true), Compression::kIdentity);
  EXPECT_EQ(choose_grpc_encoding("deflate", kAll, true), Compression::kDeflate);
}

TEST(CompressGrpcMessage, RoundTripAndThreshold) {
  for (const std::size_t size : {kCompressGrpcFromBytes - 1, kCompressGrpcFromBytes, std::size_t{300'000}}) {
    const std::string payload(size, 'x');
    OutMessage message = framed(payload);
    const bool compressed = compress_grpc_message(Compression::kGzip, message);
    EXPECT_EQ(compressed, size >= kCompressGrpcFromBytes);
    if (compressed) {
      EXPECT_LT(message.bytes(), size / 10);
      EXPECT_EQ(unpacked(message, "gzip"), payload);
    } else {
      EXPECT_EQ(message.own.view(), framed(payload).own.view());
    }
  }
}

TEST(CompressGrpcMessage, TakesPiecesInWireOrderAndLetsThemGo) {
  const auto tensor = std::make_shared<std::string>(20'000, 't');
  const std::string other(9'000, 'o');
  OutMessage message;
  write_grpc_prefix(message.own.extend(kGrpcPrefixBytes), 4 + 20'000 + 9'000 + 4);
  message.own.append(std::string_view("head"));
  message.add_external(bytes(*tensor));
  message.add_external(bytes(other));
  message.own.append(std::string_view("tail"));
  message.keep = tensor;
  ASSERT_TRUE(compress_grpc_message(Compression::kDeflate, message));
  EXPECT_FALSE(message.needs_keep());
  EXPECT_EQ(tensor.use_count(), 1);
  EXPECT_EQ(unpacked(message, "deflate"), "head" + *tensor + other + "tail");
}

TEST(CompressGrpcMessage, WhatDoesNotGetSmallerStaysAsItIs) {
  std::string noise(5'000, '\0');
  std::uint32_t state = 1;
  for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  OutMessage message = framed(noise);
  EXPECT_FALSE(compress_grpc_message(Compression::kGzip, message));
  EXPECT_EQ(message.own.view(), framed(noise).own.view());
  EXPECT_FALSE(compress_grpc_message(Compression::kIdentity, message));
}

TEST(GrpcAnswerHead, SaysWhatIsSentAndWhatIsTaken) {
  const auto text = [](std::span<const Http2Header> head) {
    std::string out;
    for (const Http2Header& each : head) {
      EXPECT_TRUE(each.fixed);
      out += std::string(each.name) + "=" + std::string(each.value) + ";";
    }
    return out;
  };
  const std::string plain = ":status=200;content-type=application/grpc;";
  const std::string announced = plain + "grpc-accept-encoding=identity,deflate,gzip;";
  EXPECT_EQ(text(grpc_answer_head(Compression::kIdentity, false)), plain);
  EXPECT_EQ(text(grpc_answer_head(Compression::kIdentity, true)), announced);
  EXPECT_EQ(text(grpc_answer_head(Compression::kGzip, false)), announced + "grpc-encoding=gzip;");
  EXPECT_EQ(text(grpc_answer_head(Compression::kDeflate, false)), announced + "grpc-encoding=deflate;");
}

}  // namespace
}  // namespace fastserve
