#include "local/sealed_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "local/unix_message.h"

namespace fastserve {
namespace {

UniqueFd memfd(unsigned flags, off_t bytes, int seals) {
  UniqueFd fd(::memfd_create("peer", flags));
  if (::ftruncate(fd.get(), bytes) != 0) return {};
  if (seals != 0 && ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) return {};
  return fd;
}

std::string refusal(UniqueFd fd, std::size_t most = 1 << 20) {
  const auto adopted = SealedMemory::adopt(std::move(fd), most);
  if (adopted.is_ok()) return "";
  EXPECT_EQ(adopted.status().code(), Code::kInvalidArgument);
  return adopted.status().message();
}

TEST(SealedMemory, TwoMappingsAreOneMemoryAndNobodyCanShrinkIt) {
  auto mine = SealedMemory::create("mine", 4096);
  ASSERT_TRUE(mine.is_ok());
  auto theirs = SealedMemory::adopt(UniqueFd(::dup(mine.value().fd())), 4096);
  ASSERT_TRUE(theirs.is_ok());
  mine.value().data()[7] = std::byte{42};
  EXPECT_EQ(theirs.value().data()[7], std::byte{42});
  EXPECT_EQ(::ftruncate(theirs.value().fd(), 0), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(SealedMemory, WhatIsNotSafeIsNotAdopted) {
  constexpr int kSeals = F_SEAL_SHRINK;
  EXPECT_EQ(refusal(memfd(MFD_ALLOW_SEALING, 4096, kSeals)), "");
  EXPECT_EQ(refusal(memfd(MFD_ALLOW_SEALING, 4096, kSeals), 4096), "");
  EXPECT_EQ(refusal(memfd(MFD_ALLOW_SEALING, 4096, kSeals), 4095),
            "shared memory: got 4096 bytes, want at most 4095");
  EXPECT_EQ(refusal(memfd(MFD_ALLOW_SEALING, 4096, 0)), "shared memory: got a memfd without F_SEAL_SHRINK");
  EXPECT_EQ(refusal(memfd(0, 4096, 0)), "shared memory: got a memfd without F_SEAL_SHRINK");
  EXPECT_EQ(refusal(memfd(MFD_ALLOW_SEALING, 0, kSeals)), "shared memory: got an empty memfd");
  EXPECT_EQ(refusal(memfd(MFD_ALLOW_SEALING, 4096, kSeals | F_SEAL_WRITE)),
            "shared memory: got a memfd that may not be written");
  EXPECT_EQ(refusal(UniqueFd(::open("/dev/null", O_RDWR))),
            "shared memory: got a descriptor that is no memfd");
  EXPECT_EQ(refusal(UniqueFd(::open("/etc/passwd", O_RDONLY))),
            "shared memory: got a descriptor that is no memfd");
}

class Messages : public testing::Test {
 protected:
  Messages() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
    a_ = UniqueFd(pair[0]);
    b_ = UniqueFd(pair[1]);
  }
  UniqueFd a_, b_;
  std::array<std::byte, 16> buffer_{};
};

TEST_F(Messages, CarryBytesAndDescriptors) {
  auto memory = SealedMemory::create("sent", 4096);
  const std::array<int, 1> fds{memory.value().fd()};
  ASSERT_TRUE(send_message(a_.get(), std::as_bytes(std::span("hello", 5)), fds).is_ok());
  auto got = receive_message(b_.get(), buffer_, MSG_DONTWAIT);
  ASSERT_TRUE(got.is_ok());
  EXPECT_EQ(got.value().bytes, 5U);
  ASSERT_EQ(got.value().fds.size(), 1U);
  EXPECT_TRUE(SealedMemory::adopt(std::move(got.value().fds[0]), 4096).is_ok());
  EXPECT_TRUE(receive_message(b_.get(), buffer_, MSG_DONTWAIT).value().would_block);
  a_.reset();
  EXPECT_TRUE(receive_message(b_.get(), buffer_, MSG_DONTWAIT).value().ended);
}

TEST_F(Messages, TooLargeOnesAndTooManyDescriptorsAreErrorsThatLeakNothing) {
  ASSERT_TRUE(send_message(a_.get(), std::as_bytes(std::span("seventeen letters", 17))).is_ok());
  EXPECT_EQ(receive_message(b_.get(), buffer_, 0).status().code(), Code::kInvalidArgument);

  std::array<int, 8> many{};
  many.fill(a_.get());
  iovec piece{buffer_.data(), 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof many)> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof many);
  std::memcpy(CMSG_DATA(rights), many.data(), sizeof many);
  ASSERT_EQ(::sendmsg(a_.get(), &message, 0), 1);
  const int before = ::dup(0);
  ::close(before);
  EXPECT_EQ(receive_message(b_.get(), buffer_, 0).status().code(), Code::kInvalidArgument);
  const int after = ::dup(0);
  ::close(after);
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace fastserve
