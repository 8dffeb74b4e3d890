// Control messages of the local transport.
#include "local/local_handshake.h"

#include <gtest/gtest.h>

#include <random>

#include "local/local_frame.h"

namespace fastserve {
namespace {

using Bytes = std::vector<std::byte>;

ClientMessage hello() {
  ClientMessage message;
  message.kind = ControlKind::kHello;
  message.sequence = 5;
  message.cells = 128;
  message.cell_bytes = 1024;
  return message;
}

ServerMessage opened() {
  ServerMessage message;
  message.kind = ControlKind::kOpened;
  message.sequence = 6;
  message.number = 2;
  message.model_version = 7;
  message.signature.max_batch_rows = 8;
  message.signature.inputs.push_back({"image", DType::kFp32, {-1, 3, 224, 224}, false});
  message.signature.inputs.push_back({"mask", DType::kBytes, {-1}, true});
  message.signature.outputs.push_back({"scores", DType::kFp16, {-1, 10}, false});
  return message;
}

TEST(LocalHandshake, HelloComesBack) {
  const Bytes bytes = *encode(hello());
  auto read = decode_client_message(bytes);
  ASSERT_TRUE(read.is_ok());
  EXPECT_EQ(read->kind, ControlKind::kHello);
  EXPECT_EQ(read->sequence, 5U);
  EXPECT_EQ(read->cells, 128U);
  EXPECT_EQ(read->cell_bytes, 1024U);
}

TEST(LocalHandshake, SignatureComesBack) {
  const Bytes bytes = *encode(opened());
  auto read = decode_server_message(bytes);
  ASSERT_TRUE(read.is_ok());
  EXPECT_EQ(read->number, 2U);
  EXPECT_EQ(read->model_version, 7);
  EXPECT_EQ(read->signature.max_batch_rows, 8);
  ASSERT_EQ(read->signature.inputs.size(), 2U);
  EXPECT_EQ(read->signature.inputs[0].name, "image");
  EXPECT_EQ(read->signature.inputs[0].shape, Shape({-1, 3, 224, 224}));
  EXPECT_TRUE(read->signature.inputs[1].optional);
  ASSERT_EQ(read->signature.outputs.size(), 1U);
  EXPECT_EQ(read->signature.outputs[0].dtype, DType::kFp16);
}

TEST(LocalHandshake, OtherMagicVersionAndKind) {
  Bytes bytes = *encode(hello());
  bytes[8] ^= std::byte{1};
  EXPECT_EQ(decode_client_message(bytes).status().code(), Code::kDataLoss);
  bytes = *encode(hello());
  bytes[12] ^= std::byte{2};
  EXPECT_EQ(decode_client_message(bytes).status().message(),
            "a control message that cannot be read: version 3, want 1");
  bytes = *encode(hello());
  bytes[0] = std::byte{17};  // a server's
  EXPECT_EQ(decode_client_message(bytes).status().code(), Code::kDataLoss);
}

TEST(LocalHandshake, EveryCutIsRefused) {
  const Bytes from_client = *encode(hello());
  for (std::size_t size = 0; size < from_client.size(); ++size)
    EXPECT_FALSE(decode_client_message(std::span(from_client).first(size)).is_ok()) << size;
  const Bytes from_server = *encode(opened());
  for (std::size_t size = 0; size < from_server.size(); ++size)
    EXPECT_FALSE(decode_server_message(std::span(from_server).first(size)).is_ok()) << size;
}

TEST(LocalHandshake, RingLayoutAtItsLimits) {
  EXPECT_TRUE(check_ring_layout(1, kLeastCellBytes, 1024).is_ok());
  EXPECT_TRUE(check_ring_layout(1024, kMostCellBytes, 1024).is_ok());
  EXPECT_EQ(check_ring_layout(2048, 1024, 1024).message(),
            "cells: got 2048, want a power of two of at most 1024");
  EXPECT_EQ(check_ring_layout(0, 1024, 1024).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_ring_layout(96, 1024, 1024).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_ring_layout(64, kLeastCellBytes / 2, 1024).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_ring_layout(64, kMostCellBytes * 2, 1024).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_ring_layout(64, 1000, 1024).code(), Code::kInvalidArgument);
}

TEST(LocalHandshake, NameTooLongForAMessage) {
  const std::string name(70'000, 'm');
  ClientMessage message;
  message.kind = ControlKind::kOpen;
  message.name = name;
  EXPECT_EQ(encode(message).status().code(), Code::kResourceExhausted);
}

TEST(LocalHandshake, RandomBytes) {
  std::mt19937 random(7);
  const Bytes seed = *encode(opened());
  const Bytes other = *encode(hello());
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes = i % 2 == 0 ? seed : other;
    for (int c = 0; c < 3; ++c) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    static_cast<void>(decode_server_message(bytes));
    static_cast<void>(decode_client_message(bytes));
  }
}

}  // namespace
}  // namespace fastserve
