// The local transport end to end in one process: our client over a socket pair, and a hostile one that writes what it likes into
// the rings, the socket and its regions.
#include "frontend/local_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <random>

#include "client/local_connection.h"
#include "frontend/frontend_test.h"
#include "local/unix_message.h"

namespace fastserve::testing {
namespace {

constexpr Nanos kPatience = 10 * kSecond;

LoadSpec strings() {
  LoadSpec spec = identity("strings");
  spec.inputs = {{"IN", DType::kBytes, Shape{-1, 2}, false}};
  spec.outputs = {{"OUT", DType::kBytes, Shape{-1, 2}, false}};
  return spec;
}

bool eventually(const std::function<bool()>& condition) {
  for (const Nanos end = monotonic_now() + kPatience; monotonic_now() < end; ::usleep(500)) {
    if (condition()) return true;
  }
  return false;
}

std::size_t open_descriptors() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                                std::filesystem::directory_iterator()));
}

class LocalServerTest : public ::testing::Test {
 protected:
  explicit LocalServerTest(LocalLimits limits = {}) : limits_(std::move(limits)) {
    EXPECT_TRUE(engine_.load(identity("echo")).is_ok());
    EXPECT_TRUE(engine_.load(identity("slow", {{"execute_delay_us", "50000"}})).is_ok());
    EXPECT_TRUE(engine_.load(strings()).is_ok());
    server_ = std::make_unique<LocalServer>(engine_, limits_);
  }

  // A socket of which the server has the other end.
  UniqueFd socket() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    server_->adopt(UniqueFd(ends[1]));
    return UniqueFd(ends[0]);
  }
  std::unique_ptr<LocalConnection> client(std::uint32_t cells = 16) {
    LocalOptions options;
    options.cells = cells;
    auto made = LocalConnection::over(socket(), options);
    EXPECT_TRUE(made.is_ok()) << made.status().message();
    return std::move(made).value();
  }
  const LocalCounters& counters() const { return server_->counters(); }

  LocalLimits limits_;
  Engine engine_;
  std::unique_ptr<LocalServer> server_;
};

LocalSlot* slot_for(LocalConnection& client, std::string_view name, std::int64_t rows = 1) {
  auto model = client.open(name);
  EXPECT_TRUE(model.is_ok()) << model.status().message();
  std::vector<InputPlan> inputs;
  std::vector<OutputPlan> outputs;
  EXPECT_TRUE(LocalConnection::plan(**model, rows, inputs, outputs).is_ok());
  auto slot = client.make_slot(**model, inputs, outputs);
  EXPECT_TRUE(slot.is_ok()) << slot.status().message();
  return *slot;
}

float* floats(std::span<std::byte> bytes) { return reinterpret_cast<float*>(bytes.data()); }

Status run(LocalConnection& client, LocalSlot& slot) {
  FS_RETURN_IF_ERROR(client.submit(slot));
  FS_RETURN_IF_ERROR(client.wait(monotonic_now() + kPatience));
  auto answered = client.next();
  FS_RETURN_IF_ERROR(answered.status());
  EXPECT_EQ(*answered, &slot);
  return slot.status();
}

TEST_F(LocalServerTest, AnswersInTheClientsMemoryWithoutACopy) {
  const auto c = client();
  LocalSlot* slot = slot_for(*c, "echo", 2);
  for (int i = 0; i < 8; ++i) floats(slot->input_memory(0))[i] = static_cast<float>(i);
  ASSERT_TRUE(run(*c, *slot).is_ok());
  EXPECT_EQ(slot->output(0).shape, Shape({2, 4}));
  EXPECT_EQ(slot->output(0).bytes, 32U);
  EXPECT_EQ(floats(slot->output_memory(0))[7], 7.0F);
  EXPECT_EQ(engine_.statistics("echo", 1)->copied_bytes, 0U);
}

TEST_F(LocalServerTest, ManyInFlightUpToTheCells) {
  const auto c = client(16);
  std::vector<LocalSlot*> slots;
  for (int i = 0; i < 17; ++i) {
    slots.push_back(slot_for(*c, "echo"));
    floats(slots.back()->input_memory(0))[0] = static_cast<float>(i);
  }
  for (int round = 0; round < 200; ++round) {
    for (std::size_t i = 0; i < 16; ++i) ASSERT_TRUE(c->submit(*slots[i]).is_ok());
    EXPECT_EQ(c->submit(*slots[16]).code(), Code::kResourceExhausted);
    for (int answered = 0; answered < 16;) {
      ASSERT_TRUE(c->wait(monotonic_now() + kPatience).is_ok());
      for (LocalSlot* slot = *c->next(); slot != nullptr; slot = *c->next()) {
        ++answered;
        ASSERT_TRUE(slot->status().is_ok());
        ASSERT_EQ(floats(slot->output_memory(0))[0], floats(slot->input_memory(0))[0]);
      }
    }
  }
}

TEST_F(LocalServerTest, ASleeperOnItsSocketIsWoken) {
  const auto c = client();
  LocalSlot* slot = slot_for(*c, "slow");
  ASSERT_TRUE(c->submit(*slot).is_ok());
  ASSERT_TRUE(c->arm());
  pollfd ready{c->descriptor(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
  c->woken();
  EXPECT_EQ(*c->next(), slot);
}

TEST_F(LocalServerTest, WrongRequestsFailAlone) {
  const auto c = client();
  LocalSlot* slot = slot_for(*c, "echo");
  ASSERT_TRUE(slot->reshape(0, {1, 3}, 12).is_ok());
  const Status status = run(*c, *slot);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("inputs[\"IN\"].shape[1]: got 3, want 4"), std::string::npos)
      << status.message();
  ASSERT_TRUE(slot->reshape(0, {1, 4}, 16).is_ok());
  EXPECT_TRUE(run(*c, *slot).is_ok());
  EXPECT_EQ(c->open("nobody").status().code(), Code::kNotFound);
  EXPECT_EQ(counters().connections_broken.get(), 0U);
}

TEST_F(LocalServerTest, TooLittleRoomForAnOutput) {
  const auto c = client();
  const LocalModel* model = *c->open("echo");
  LocalSlot* slot =
      *c->make_slot(*model, std::vector<InputPlan>{{0, {1, 4}, 16}}, std::vector<OutputPlan>{{0, 15}});
  EXPECT_EQ(run(*c, *slot).code(), Code::kInvalidArgument);
}

TEST_F(LocalServerTest, StringsAreCopiedBeforeTheyAreLookedAt) {
  const auto c = client();
  const LocalModel* model = *c->open("strings");
  LocalSlot* slot =
      *c->make_slot(*model, std::vector<InputPlan>{{0, {1, 2}, 64}}, std::vector<OutputPlan>{{0, 64}});
  const std::string wire{"\3\0\0\0abc\0\0\0\0", 11};
  std::memcpy(slot->input_memory(0).data(), wire.data(), wire.size());
  ASSERT_TRUE(slot->reshape(0, {1, 2}, wire.size()).is_ok());
  ASSERT_TRUE(run(*c, *slot).is_ok());
  EXPECT_EQ(std::memcmp(slot->output_memory(0).data(), wire.data(), wire.size()), 0);
}

TEST_F(LocalServerTest, CancelledBeforeItStarts) {
  const auto c = client();
  LocalSlot* first = slot_for(*c, "slow", 8);
  LocalSlot* second = slot_for(*c, "slow", 8);
  LocalSlot* third = slot_for(*c, "slow", 8);
  for (LocalSlot* slot : {first, second, third}) ASSERT_TRUE(c->submit(*slot).is_ok());
  c->cancel(*third);
  int answered = 0;
  while (answered < 3) {
    ASSERT_TRUE(c->wait(monotonic_now() + kPatience).is_ok());
    while (*c->next() != nullptr) ++answered;
  }
  EXPECT_TRUE(first->status().is_ok());
  EXPECT_EQ(third->status().code(), Code::kCancelled);
}

TEST_F(LocalServerTest, DeadlineInTheQueue) {
  const auto c = client();
  LocalSlot* first = slot_for(*c, "slow", 8);
  LocalSlot* second = slot_for(*c, "slow", 8);
  second->set_timeout_us(1);
  ASSERT_TRUE(c->submit(*first).is_ok());
  ASSERT_TRUE(c->submit(*second).is_ok());
  for (int answered = 0; answered < 2;) {
    ASSERT_TRUE(c->wait(monotonic_now() + kPatience).is_ok());
    while (*c->next() != nullptr) ++answered;
  }
  EXPECT_EQ(second->status().code(), Code::kDeadlineExceeded);
}

TEST_F(LocalServerTest, ServersEndIsUnavailableAtOnce) {
  const auto c = client();
  LocalSlot* slot = slot_for(*c, "echo");
  server_->stop();
  static_cast<void>(c->submit(*slot));
  EXPECT_EQ(c->wait(monotonic_now() + kPatience).code(), Code::kUnavailable);
  EXPECT_TRUE(c->gone());
  EXPECT_EQ(c->submit(*slot).code(), Code::kUnavailable);
}

TEST_F(LocalServerTest, EverythingIsGivenBack) {
  { const auto warm = client(); }
  ASSERT_TRUE(eventually([&] { return counters().connections.get() == 0; }));
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 20; ++i) {
    const auto c = client();
    LocalSlot* slot = slot_for(*c, i % 2 == 0 ? "echo" : "slow", 8);
    ASSERT_TRUE(c->submit(*slot).is_ok());
    c->flush();  // and away in the middle of it
  }
  EXPECT_TRUE(eventually([&] {
    return counters().connections.get() == 0 && counters().regions.get() == 0 &&
           counters().open_calls.get() == 0;
  }));
  EXPECT_EQ(counters().region_bytes.get(), 0U);
  EXPECT_EQ(open_descriptors(), before);
}

// --- limits --------------------------------------------------------------------------------------------------------------

class TightServerTest : public LocalServerTest {
 protected:
  TightServerTest() : LocalServerTest(tight()) {}
  static LocalLimits tight() {
    LocalLimits limits;
    limits.max_regions = 2;
    limits.max_region_bytes = std::size_t{24} << 20;
    limits.max_total_region_bytes = std::size_t{36} << 20;
    limits.max_models = 2;
    limits.max_cells = 32;
    limits.max_string_bytes = 11;
    limits.handshake_timeout_ns = 50 * kMillisecond;
    return limits;
  }
};

TEST_F(TightServerTest, CellsAtTheLimit) {
  EXPECT_EQ(client(32)->in_flight(), 0U);
  LocalOptions options;
  options.cells = 64;
  EXPECT_EQ(LocalConnection::over(socket(), options).status().message(),
            "cells: got 64, want a power of two of at most 32");
}

TEST_F(TightServerTest, RegionsAtTheLimit) {
  const auto c = client();
  const LocalModel* model = *c->open("echo");
  const auto slot = [&](std::uint64_t bytes) {
    return c->make_slot(*model, std::vector<InputPlan>{{0, {1, 4}, bytes}}, std::vector<OutputPlan>{{0, 16}});
  };
  EXPECT_TRUE(slot(std::uint64_t{3} << 20).is_ok());  // 4 MiB
  EXPECT_EQ(slot(std::uint64_t{30} << 20).status().code(),
            Code::kInvalidArgument);  // 32 MiB are too many bytes
  EXPECT_TRUE(slot(std::uint64_t{15} << 20).is_ok());
  EXPECT_EQ(slot(std::uint64_t{3} << 20).status().code(), Code::kResourceExhausted);  // a third region
  EXPECT_EQ(counters().regions.get(), 2U);
}

TEST_F(TightServerTest, BytesOfAllConnectionsAtTheLimit) {
  const auto region = [](LocalConnection& c, std::uint64_t mebibytes) {
    const LocalModel* model = *c.open("echo");
    const std::vector<InputPlan> inputs{{0, {1, 4}, mebibytes << 20}};
    return c.make_slot(*model, inputs, std::vector<OutputPlan>{{0, 16}}).status().code();
  };
  const auto a = client();
  const auto b = client();
  EXPECT_EQ(region(*a, 3), Code::kOk);   // 4 MiB
  EXPECT_EQ(region(*a, 15), Code::kOk);  // 16 MiB
  EXPECT_EQ(region(*b, 15), Code::kOk);  // 36 MiB together
  EXPECT_EQ(region(*b, 3), Code::kResourceExhausted);
}

TEST_F(TightServerTest, ModelsAtTheLimit) {
  const auto c = client();
  EXPECT_TRUE(c->open("echo").is_ok());
  EXPECT_TRUE(c->open("slow").is_ok());
  EXPECT_TRUE(c->open("echo").is_ok());  // known
  EXPECT_EQ(c->open("strings").status().code(), Code::kResourceExhausted);
}

TEST_F(TightServerTest, StringBytesAtTheLimit) {
  const auto c = client();
  const LocalModel* model = *c->open("strings");
  LocalSlot* slot =
      *c->make_slot(*model, std::vector<InputPlan>{{0, {1, 2}, 64}}, std::vector<OutputPlan>{{0, 64}});
  std::memcpy(slot->input_memory(0).data(), "\4\0\0\0abcd\0\0\0\0", 12);
  ASSERT_TRUE(slot->reshape(0, {1, 2}, 12).is_ok());
  EXPECT_EQ(run(*c, *slot).code(), Code::kResourceExhausted);
  std::memcpy(slot->input_memory(0).data(), "\3\0\0\0abc\0\0\0\0", 11);
  ASSERT_TRUE(slot->reshape(0, {1, 2}, 11).is_ok());
  EXPECT_TRUE(run(*c, *slot).is_ok());
}

TEST_F(TightServerTest, SilentStrangersAreSentAway) {
  const UniqueFd silent = socket();
  EXPECT_TRUE(eventually([&] { return counters().connections_broken.get() == 1; }));
  EXPECT_TRUE(eventually([&] { return counters().connections.get() == 0; }));
}

// --- a hostile client ----------------------------------------------------------------------------------------------------

class Hostile {
 public:
  explicit Hostile(UniqueFd socket) : socket_(std::move(socket)) {
    ClientMessage hello;
    hello.kind = ControlKind::kHello;
    hello.cells = 8;
    hello.cell_bytes = 1024;
    say(hello);
    UnixMessage welcome = hear();
    EXPECT_EQ(welcome.fds.size(), 2U);
    rings_ = SealedMemory::adopt(std::move(welcome.fds[0]), std::size_t{1} << 30).value();
    doorbell_ = std::move(welcome.fds[1]);
    requests = RingProducer(rings_.data(), kLayout);
    answers = RingConsumer(rings_.data() + kLayout.bytes(), kLayout);
  }
  void say(const ClientMessage& message, std::vector<int> fds = {}) {
    EXPECT_TRUE(send_message(socket_.get(), *encode(message), fds).is_ok());
  }
  UnixMessage hear() {
    auto message = receive_message(socket_.get(), buffer_, 0);
    EXPECT_TRUE(message.is_ok());
    return std::move(message).value();
  }
  ServerMessage answer() { return *decode_server_message(std::span(buffer_).first(hear().bytes)); }
  // Empty: closed.
  bool closed() {
    for (;;) {
      auto message = receive_message(socket_.get(), buffer_, 0);
      if (!message.is_ok() || message->ended) return true;
    }
  }
  Code add_region(int fd) {
    ClientMessage message;
    message.kind = ControlKind::kRegister;
    say(message, {fd});
    const ServerMessage said = answer();
    region = said.number;
    return said.code;
  }
  std::uint32_t open(std::string_view name) {
    ClientMessage message;
    message.kind = ControlKind::kOpen;
    message.name = name;
    say(message);
    return answer().number;
  }
  std::span<std::byte> cell() { return requests.claim(); }
  void ring() {
    requests.publish();
    knock();
  }
  void knock() { ::eventfd_write(doorbell_.get(), 1); }
  void ask(const LocalRequest& request) {
    EXPECT_TRUE(encode_request(cell(), request).is_ok());
    ring();
  }
  LocalAnswer heard() {
    while (answers.front().empty()) ::usleep(100);
    LocalAnswer answer;
    const std::span<const std::byte> there = answers.front();
    text_.assign(there.begin(), there.end());
    EXPECT_TRUE(decode_answer(std::span(text_).first(used_bytes(text_)), answer).is_ok());
    answers.pop();
    return answer;
  }
  RingHead& request_head() { return *reinterpret_cast<RingHead*>(rings_.data()); }
  RingHead& answer_head() { return *reinterpret_cast<RingHead*>(rings_.data() + kLayout.bytes()); }
  int socket() const { return socket_.get(); }

  static constexpr RingLayout kLayout{8, 1024};
  std::uint32_t region = 0;
  RingProducer requests;
  RingConsumer answers;

 private:
  UniqueFd socket_;
  UniqueFd doorbell_;
  std::vector<std::byte> buffer_{kMostControlBytes};
  std::vector<std::byte> text_;
  SealedMemory rings_;
};

SealedMemory region(std::size_t bytes = 4096) { return SealedMemory::create("test", bytes).value(); }

LocalRequest request(std::uint32_t model, std::uint32_t region_number) {
  LocalRequest made;
  made.tag = 1;
  made.model = model;
  made.inputs.push_back({{}, 0, DType::kFp32, {1, 4}, region_number, 0, 16});
  made.outputs.push_back({{}, 0, region_number, 64, 16});
  return made;
}

TEST_F(LocalServerTest, PlacesAreChecked) {
  Hostile peer(socket());
  const SealedMemory memory = region();
  ASSERT_EQ(peer.add_region(memory.fd()), Code::kOk);
  const std::uint32_t model = peer.open("echo");
  struct Case {
    std::function<void(LocalRequest&)> change;
    Code code;
    std::string_view field;
  };
  const std::uint64_t most = UINT64_MAX;
  for (const Case& each : std::vector<Case>{
           {[](LocalRequest&) {}, Code::kOk, ""},
           {[](LocalRequest& r) { r.inputs[0].offset = 4096 - 16; }, Code::kOk, ""},
           {[](LocalRequest& r) { r.inputs[0].offset = 4096 - 15; }, Code::kInvalidArgument,
            "inputs[0].offset"},
           {[](LocalRequest& r) { r.inputs[0].offset = 4096; }, Code::kInvalidArgument, "inputs[0].offset"},
           {[=](LocalRequest& r) { r.inputs[0].offset = most; }, Code::kInvalidArgument, "inputs[0].offset"},
           {[=](LocalRequest& r) { r.inputs[0].bytes = most; }, Code::kInvalidArgument, "inputs[0].offset"},
           {[=](LocalRequest& r) { r.inputs[0].offset = most - 15; }, Code::kInvalidArgument,
            "inputs[0].offset"},
           {[](LocalRequest& r) { r.inputs[0].bytes = 15; }, Code::kInvalidArgument, "IN"},
           {[](LocalRequest& r) { r.inputs[0].bytes = 0; }, Code::kInvalidArgument, "IN"},
           {[](LocalRequest& r) { r.inputs[0].region = 0; }, Code::kInvalidArgument, "inputs[0].region"},
           {[](LocalRequest& r) { r.inputs[0].region = 2; }, Code::kInvalidArgument, "inputs[0].region"},
           {[](LocalRequest& r) { r.inputs[0].index = 1; }, Code::kInvalidArgument, "inputs[0].index"},
           {[](LocalRequest& r) { r.inputs[0].name = "NO"; }, Code::kInvalidArgument, "NO"},
           {[](LocalRequest& r) {
              r.inputs[0].shape = {-1, 4};
            },
            Code::kInvalidArgument, "IN"},
           {[](LocalRequest& r) {
              r.inputs[0].shape = {INT64_MAX, 4};
            },
            Code::kInvalidArgument, "IN"},
           {[](LocalRequest& r) { r.outputs[0].index = 9; }, Code::kInvalidArgument, "outputs[0].index"},
           {[](LocalRequest& r) { r.outputs[0].region = 9; }, Code::kInvalidArgument, "outputs[0].region"},
           {[=](LocalRequest& r) { r.outputs[0].room = most; }, Code::kInvalidArgument, "outputs[0].offset"},
           {[](LocalRequest& r) { r.outputs[0].room = 15; }, Code::kInvalidArgument, "OUT"},
           {[](LocalRequest& r) { r.outputs.push_back(r.outputs[0]); }, Code::kInvalidArgument,
            "given twice"},
           {[](LocalRequest& r) { r.model = 99; }, Code::kInvalidArgument, "model: got number 99"},
           {[](LocalRequest& r) {
              r.model = 0;
              r.model_name = "nobody";
            },
            Code::kInvalidArgument, "index"},
           {[](LocalRequest& r) {
              r.model = 0;
              r.model_name = "nobody";
              r.inputs[0].name = "IN";
              r.outputs[0].name = "OUT";
            },
            Code::kNotFound, "nobody"},
           {[](LocalRequest& r) {
              r.model = 0;
              r.model_name = "echo";
              r.inputs[0].name = "IN";
              r.outputs[0].name = "OUT";
            },
            Code::kOk, ""},
       }) {
    LocalRequest made = request(model, peer.region);
    each.change(made);
    peer.ask(made);
    const LocalAnswer said = peer.heard();
    EXPECT_EQ(said.code, each.code) << said.message;
    EXPECT_NE(said.message.find(each.field), std::string_view::npos) << said.message;
  }
  EXPECT_EQ(counters().connections_broken.get(), 0U);
}

TEST_F(LocalServerTest, WhatCannotBeReadEndsTheConnection) {
  const auto canary = client();
  LocalSlot* slot = slot_for(*canary, "echo");
  const SealedMemory memory = region();
  const std::vector<std::function<void(Hostile&)>> attacks{
      [](Hostile& p) {
        p.request_head().published.store(1000);
        p.knock();
      },
      [](Hostile& p) {
        p.ask({});
        p.answer_head().consumed.store(12345);
        p.ask({});
      },
      [](Hostile& p) {
        std::ranges::fill(p.cell(), std::byte{0});
        p.ring();
      },
      [](Hostile& p) {
        std::ranges::fill(p.cell(), std::byte{255});
        p.ring();
      },
      [](Hostile& p) { ASSERT_GT(::send(p.socket(), "nonsense", 8, MSG_NOSIGNAL), 0); },
      [](Hostile& p) {
        ClientMessage again;
        again.cells = 8;
        again.cell_bytes = 1024;
        p.say(again);
      },
      [](Hostile& p) {
        ClientMessage bare;
        bare.kind = ControlKind::kRegister;
        p.say(bare);
      },
      [&](Hostile& p) {
        ClientMessage two;
        two.kind = ControlKind::kRegister;
        p.say(two, {memory.fd(), memory.fd()});
      },
      [&](Hostile& p) {
        ClientMessage strange;
        strange.kind = ControlKind::kOpen;
        p.say(strange, {memory.fd()});
      },
      [](Hostile& p) {
        const std::vector<char> large(70'000);
        static_cast<void>(::send(p.socket(), large.data(), large.size(), MSG_NOSIGNAL));
      },
  };
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    Hostile peer(socket());
    attacks[i](peer);
    EXPECT_TRUE(peer.closed()) << i;
    EXPECT_TRUE(eventually([&] { return counters().connections_broken.get() == i + 1; })) << i;
    EXPECT_TRUE(run(*canary, *slot).is_ok()) << i;
  }
  EXPECT_TRUE(eventually([&] { return counters().connections.get() == 1; }));
}

TEST_F(LocalServerTest, WrongDescriptorsAreRefusedAndTheConnectionGoesOn) {
  Hostile peer(socket());
  EXPECT_EQ(peer.add_region(peer.socket()), Code::kInvalidArgument);
  const std::size_t before = open_descriptors();  // the server has closed the rings' by now
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(peer.add_region(file.get()), Code::kInvalidArgument);
  const UniqueFd unsealed(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), 4096), 0);
  EXPECT_EQ(peer.add_region(unsealed.get()), Code::kInvalidArgument);
  const SealedMemory memory = region();
  EXPECT_EQ(peer.add_region(memory.fd()), Code::kOk);
  peer.ask(request(peer.open("echo"), peer.region));
  EXPECT_EQ(peer.heard().code, Code::kOk);
  EXPECT_EQ(open_descriptors(), before + 3);  // file, unsealed, memory: the server kept none
}

TEST_F(LocalServerTest, FloodsOfDescriptorsEndTheConnection) {
  Hostile peer(socket());
  const SealedMemory memory = region();
  const std::size_t before = open_descriptors();
  const std::vector<int> many(200, memory.fd());
  std::vector<std::byte> control(CMSG_SPACE(many.size() * sizeof(int)));
  iovec piece{control.data(), 1};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(many.size() * sizeof(int));
  std::memcpy(CMSG_DATA(rights), many.data(), many.size() * sizeof(int));
  ASSERT_EQ(::sendmsg(peer.socket(), &message, 0), 1);
  EXPECT_TRUE(peer.closed());
  EXPECT_TRUE(eventually([&] { return open_descriptors() <= before; }));
}

TEST_F(LocalServerTest, UnregisteringWaitsForTheRequestsThatUseIt) {
  Hostile peer(socket());
  const SealedMemory memory = region();
  ASSERT_EQ(peer.add_region(memory.fd()), Code::kOk);
  const std::uint32_t model = peer.open("slow");
  peer.ask(request(model, peer.region));
  ASSERT_TRUE(eventually([&] { return counters().requests.get() == 1; }));
  ClientMessage away;
  away.kind = ControlKind::kUnregister;
  away.region = peer.region;
  peer.say(away);
  EXPECT_EQ(peer.answer().kind, ControlKind::kUnregistered);
  EXPECT_FALSE(peer.answers.front().empty());  // the answer came first
  EXPECT_EQ(counters().regions.get(), 0U);
  peer.ask(request(model, peer.region));
  EXPECT_EQ(peer.heard().code, Code::kOk);
  EXPECT_EQ(peer.heard().code, Code::kInvalidArgument);
  peer.say(away);
  EXPECT_EQ(peer.answer().code, Code::kNotFound);
}

// More requests than answer cells: the server takes the rest when the answers were read, and does not spin meanwhile.
TEST_F(LocalServerTest, AnswersThatNobodyReadsHoldRequestsBack) {
  Hostile peer(socket());
  const SealedMemory memory = region();
  ASSERT_EQ(peer.add_region(memory.fd()), Code::kOk);
  const LocalRequest made = request(peer.open("echo"), peer.region);
  for (int i = 0; i < 8; ++i) peer.ask(made);
  ASSERT_TRUE(eventually([&] { return counters().requests.get() == 8 && counters().open_calls.get() == 0; }));
  for (int i = 0; i < 7; ++i) peer.ask(made);
  timespec before{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  ::usleep(50'000);
  timespec after{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  EXPECT_EQ(counters().requests.get(), 8U);
  EXPECT_LT((after.tv_sec - before.tv_sec) * kSecond + after.tv_nsec - before.tv_nsec, 20 * kMillisecond);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(peer.heard().code, Code::kOk);
  peer.ask(made);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(peer.heard().code, Code::kOk);
}

// Seeded: random damage to cells, ring counters and control messages. Nobody else notices.
TEST_F(LocalServerTest, RandomDamage) {
  const auto canary = client();
  LocalSlot* slot = slot_for(*canary, "echo");
  const SealedMemory memory = region();
  std::mt19937 random(42);
  for (int round = 0; round < 100; ++round) {
    Hostile peer(socket());
    ASSERT_EQ(peer.add_region(memory.fd()), Code::kOk);
    const LocalRequest made = request(peer.open("echo"), peer.region);
    for (int i = 0; i < 6; ++i) {
      const std::span<std::byte> cell = peer.cell();
      ASSERT_TRUE(encode_request(cell, made).is_ok());
      for (std::size_t c = random() % 5; c > 0; --c) cell[random() % 140] = static_cast<std::byte>(random());
      peer.ring();
    }
    if (random() % 4 == 0) peer.request_head().published.store(static_cast<std::uint32_t>(random()));
    if (random() % 4 == 0) peer.answer_head().consumed.store(static_cast<std::uint32_t>(random()));
    if (random() % 4 == 0) peer.answer_head().asleep.store(static_cast<std::uint32_t>(random() % 4));
    std::array<std::byte, 24> message;
    for (std::byte& byte : message) byte = static_cast<std::byte>(random() % 5);
    static_cast<void>(
        ::send(peer.socket(), message.data(), random() % message.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
    ASSERT_TRUE(run(*canary, *slot).is_ok()) << round;
  }
  EXPECT_TRUE(eventually([&] { return counters().connections.get() == 1 && counters().regions.get() == 1; }));
}

}  // namespace
}  // namespace fastserve::testing
