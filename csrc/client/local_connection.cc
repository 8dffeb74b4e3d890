#include "client/local_connection.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "base/checked.h"
#include "local/shared_futex.h"
#include "local/unix_message.h"

namespace fastserve {
namespace {

// A futex does not tell that the other process died: so often a sleeper looks at the socket.
constexpr Nanos kLookEvery = 20 * kMillisecond;
constexpr std::size_t kAlign = 64;
constexpr std::size_t kLeastRegionBytes = std::size_t{4} << 20;
constexpr std::size_t kLeastClass = 12;  // blocks of 4 KiB and more

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

Status open_dimension(const TensorSpec& spec) {
  return invalid_argument("inputs[\"" + spec.name + "\"]: its size is not fixed by the signature " +
                          spec.shape.str() + ": say the shape and bytes");
}

// Bytes of a tensor with so many rows; nothing when the signature leaves it open.
std::optional<std::uint64_t> fixed_bytes(const TensorSpec& spec, std::int64_t rows, bool batches,
                                         Shape& shape) {
  shape = spec.shape;
  if (batches && !shape.empty()) shape[0] = rows;
  if (!shape.is_static()) return std::nullopt;
  const auto bytes = shape.byte_count(spec.dtype);
  return bytes ? std::optional<std::uint64_t>(*bytes) : std::nullopt;
}

void copy_parameters(const std::vector<LocalParameter>& from, std::vector<GivenParameter>& out) {
  out.clear();
  for (const LocalParameter& each : from) {
    GivenParameter& made = out.emplace_back(GivenParameter{std::string(each.name), false});
    std::visit(
        [&made](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string_view>) {
            made.value = std::string(value);
          } else {
            made.value = value;
          }
        },
        each.value);
  }
}

}  // namespace

Status LocalSlot::reshape(std::size_t input, const Shape& shape, std::uint64_t bytes) {
  if (in_flight_) return {Code::kFailedPrecondition, "the slot is in flight"};
  if (input >= request_.inputs.size()) return invalid_argument("input: got " + std::to_string(input));
  if (bytes > capacities_[input]) {
    return invalid_argument("inputs[\"" + model_->signature.inputs[request_.inputs[input].index].name +
                            "\"]: got " + std::to_string(bytes) + " bytes, the slot has room for " +
                            std::to_string(capacities_[input]));
  }
  request_.inputs[input].shape = shape;
  request_.inputs[input].bytes = bytes;
  return Status::ok();
}

Status LocalSlot::set_parameters(std::vector<GivenParameter> parameters) {
  if (parameters.empty() && parameters_.empty()) return Status::ok();
  if (in_flight_) return {Code::kFailedPrecondition, "the slot is in flight"};
  if (parameters.size() > kMostLocalParameters) {
    return invalid_argument("parameters: got " + std::to_string(parameters.size()) + ", want " +
                            std::to_string(kMostLocalParameters) + " or fewer");
  }
  for (const GivenParameter& each : parameters) {
    if (each.name.empty() || each.name.size() > kMostCellBytes)
      return invalid_argument("parameters: got a name of " + std::to_string(each.name.size()) + " bytes");
  }
  parameters_ = std::move(parameters);
  request_.parameters.clear();
  for (const GivenParameter& each : parameters_) {
    LocalParameter& made = request_.parameters.emplace_back();
    made.name = each.name;
    std::visit(
        [&made](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>) {
            made.value = std::string_view(value);
          } else {
            made.value = value;
          }
        },
        each.value);
  }
  return Status::ok();
}

LocalConnection::LocalConnection(UniqueFd socket, const LocalOptions& options)
    : socket_(std::move(socket)), options_(options), buffer_(kMostControlBytes) {}

LocalConnection::~LocalConnection() = default;

Result<std::unique_ptr<LocalConnection>> LocalConnection::connect(const std::string& path,
                                                                  const LocalOptions& options) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return invalid_argument("path: longer than a Unix socket's may be");
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return unavailable(std::string("socket: ") + std::strerror(errno));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    return Status{error == EACCES || error == EPERM ? Code::kPermissionDenied : Code::kUnavailable,
                  "cannot connect to " + path + ": " + std::strerror(error)};
  }
  return over(std::move(socket), options);
}

Result<std::unique_ptr<LocalConnection>> LocalConnection::over(UniqueFd socket, const LocalOptions& options) {
  std::unique_ptr<LocalConnection> made(new LocalConnection(std::move(socket), options));
  FS_RETURN_IF_ERROR(made->greet());
  return made;
}

Status LocalConnection::greet() {
  ClientMessage hello;
  hello.kind = ControlKind::kHello;
  hello.cells = options_.cells;
  hello.cell_bytes = options_.cell_bytes;
  FS_ASSIGN_OR_RETURN(const ServerMessage welcome, ask(hello, ControlKind::kWelcome));
  layout_ = {welcome.cells, welcome.cell_bytes};
  FS_RETURN_IF_ERROR(check_ring_layout(layout_.cells, layout_.cell_bytes, kMostCells));
  if (received_.size() != 2) return fail("it sent no rings");
  FS_ASSIGN_OR_RETURN(rings_, SealedMemory::adopt(std::move(received_[0]), ring_memory_bytes(layout_)));
  if (rings_.size() < ring_memory_bytes(layout_)) return fail("its rings are too small");
  doorbell_ = std::move(received_[1]);
  received_.clear();
  rings_.close_fd();
  requests_ = RingProducer(rings_.data(), layout_);
  answers_ = RingConsumer(rings_.data() + layout_.bytes(), layout_);
  cell_.resize(layout_.cell_bytes);
  return Status::ok();
}

Status LocalConnection::fail(const std::string& what) {
  if (!gone_) why_gone_ = "the server of the local transport is gone: " + what;
  gone_ = true;
  return unavailable(why_gone_);
}

void LocalConnection::close() {
  if (!gone_) why_gone_ = "the connection is closed";
  gone_ = true;
  socket_.reset();
}

// --- control -------------------------------------------------------------------------------------------------------------

Result<ServerMessage> LocalConnection::ask(ClientMessage message, ControlKind want,
                                           std::span<const int> fds) {
  if (gone_) return unavailable(why_gone_);
  message.sequence = ++sequence_;
  FS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, encode(message));
  if (Status sent = send_message(socket_.get(), bytes, fds); !sent.is_ok()) {
    // It may have said why it does not talk to us.
    auto refusal = receive(0, want, 0);
    return refusal.status().code() == Code::kUnavailable ? fail(sent.message()) : refusal.status();
  }
  return receive(message.sequence, want, monotonic_now() + options_.timeout_ns);
}

Result<ServerMessage> LocalConnection::receive(std::uint32_t sequence, ControlKind want, Nanos until) {
  for (;;) {
    FS_ASSIGN_OR_RETURN(UnixMessage message, receive_message(socket_.get(), buffer_, MSG_DONTWAIT));
    if (message.ended) return fail("it closed the connection");
    if (message.would_block) {
      const Nanos left = until - monotonic_now();
      if (left <= 0) return Status{Code::kUnavailable, "the server did not answer in time"};
      pollfd ready{socket_.get(), POLLIN, 0};
      ::poll(&ready, 1, static_cast<int>(std::min<Nanos>(left / kMillisecond + 1, 60'000)));
      continue;
    }
    auto decoded = decode_server_message(std::span(buffer_).first(message.bytes));
    if (!decoded.is_ok()) return fail(decoded.status().message());
    if (decoded->kind == ControlKind::kWake) continue;
    if (decoded->kind == ControlKind::kFailed && (decoded->sequence == sequence || decoded->sequence == 0))
      return Status{decoded->code, decoded->message};
    if (decoded->sequence != sequence) continue;  // of a question that was given up
    if (decoded->kind != want) return fail("it answered with something else");
    received_ = std::move(message.fds);
    return std::move(decoded).value();
  }
}

Result<const LocalModel*> LocalConnection::open(std::string_view name, std::string_view version) {
  ClientMessage question;
  question.kind = ControlKind::kOpen;
  question.name = name;
  question.version = version;
  FS_ASSIGN_OR_RETURN(ServerMessage answer, ask(question, ControlKind::kOpened));
  for (const LocalModel& known : models_) {
    if (known.number == answer.number) return &known;
  }
  models_.push_back({answer.number, std::string(name), answer.model_version, std::move(answer.signature)});
  return &models_.back();
}

// --- memory --------------------------------------------------------------------------------------------------------------

Status LocalConnection::add_region(std::size_t least_bytes) {
  FS_ASSIGN_OR_RETURN(SealedMemory memory, SealedMemory::create("fastserve-region", least_bytes));
  ClientMessage question;
  question.kind = ControlKind::kRegister;
  const std::array<int, 1> fds{memory.fd()};
  FS_ASSIGN_OR_RETURN(const ServerMessage answer, ask(question, ControlKind::kRegistered, fds));
  memory.close_fd();
  regions_.push_back({std::move(memory), answer.number, 0});
  return Status::ok();
}

// Blocks of powers of two: what was released fits the next slot of that size.
Status LocalConnection::take_block(std::size_t bytes, LocalSlot& slot) {
  const std::size_t size_class =
      std::max<std::size_t>(kLeastClass, static_cast<std::size_t>(std::bit_width(bytes - 1)));
  if (size_class >= kClasses)
    return {Code::kResourceExhausted, "a slot of " + std::to_string(bytes) + " bytes"};
  const std::size_t block_bytes = std::size_t{1} << size_class;
  Block block;
  if (!free_[size_class].empty()) {
    block = free_[size_class].back();
    free_[size_class].pop_back();
  } else {
    if (regions_.empty() || regions_.back().memory.size() - regions_.back().used < block_bytes) {
      // Twice as large each time, since their number is limited; pages that nobody touches cost nothing.
      FS_RETURN_IF_ERROR(
          add_region(std::max(block_bytes, kLeastRegionBytes << std::min<std::size_t>(regions_.size(), 5))));
    }
    block = {regions_.size() - 1, regions_.back().used};
    regions_.back().used += block_bytes;
  }
  slot.size_class_ = size_class;
  slot.region_ = static_cast<std::uint32_t>(block.region);
  slot.start_ = block.offset;
  slot.memory_ = regions_[block.region].memory.bytes().subspan(block.offset, block_bytes);
  return Status::ok();
}

Status LocalConnection::plan(const LocalModel& model, std::int64_t rows, std::vector<InputPlan>& inputs,
                             std::vector<OutputPlan>& outputs) {
  const bool batches = model.signature.batches();
  if (rows < 1 || (!batches && rows != 1)) {
    return invalid_argument("rows: got " + std::to_string(rows) +
                            (batches ? ", want 1 or more" : ", want 1"));
  }
  inputs.clear();
  outputs.clear();
  for (std::size_t i = 0; i < model.signature.inputs.size(); ++i) {
    const TensorSpec& spec = model.signature.inputs[i];
    InputPlan input;
    const auto bytes = fixed_bytes(spec, rows, batches, input.shape);
    if (!bytes) return open_dimension(spec);
    input.index = i;
    input.bytes = *bytes;
    inputs.push_back(input);
  }
  for (std::size_t i = 0; i < model.signature.outputs.size(); ++i) {
    Shape shape;
    const TensorSpec& spec = model.signature.outputs[i];
    const auto bytes = fixed_bytes(spec, rows, batches, shape);
    if (!bytes) {
      return invalid_argument("outputs[\"" + spec.name + "\"]: its size is not fixed by the signature " +
                              spec.shape.str() + ": say how much room it is to have");
    }
    outputs.push_back({i, *bytes});
  }
  return Status::ok();
}

Result<LocalSlot*> LocalConnection::make_slot(const LocalModel& model, std::span<const InputPlan> inputs,
                                              std::span<const OutputPlan> outputs) {
  if (unused_.empty()) unused_.push_back(&slots_.emplace_back());
  LocalSlot& slot = *unused_.back();
  const auto tag = slot.request_.tag;
  slot.request_ = {};
  slot.parameters_.clear();
  slot.request_.tag = tag;
  if (tag == 0) slot.request_.tag = slots_.size();  // place + 1, for ever
  slot.request_.model = model.number;
  slot.capacities_.clear();
  std::uint64_t bytes = 0;
  bool fits = true;
  for (const InputPlan& plan : inputs) {
    if (plan.index >= model.signature.inputs.size())
      return invalid_argument("inputs: got index " + std::to_string(plan.index));
    const TensorSpec& spec = model.signature.inputs[plan.index];
    const std::uint64_t wanted =
        plan.bytes != 0 ? plan.bytes
                        : static_cast<std::uint64_t>(plan.shape.byte_count(spec.dtype).value_or(0));
    slot.request_.inputs.push_back(
        {{}, static_cast<std::uint16_t>(plan.index), spec.dtype, plan.shape, 0, bytes, wanted});
    slot.capacities_.push_back(wanted);
    fits = fits && wanted < (std::uint64_t{1} << 47U) && checked_add(bytes, aligned(wanted), bytes);
  }
  for (const OutputPlan& plan : outputs) {
    if (plan.index >= model.signature.outputs.size())
      return invalid_argument("outputs: got index " + std::to_string(plan.index));
    slot.request_.outputs.push_back({{}, static_cast<std::uint16_t>(plan.index), 0, bytes, plan.room});
    fits = fits && plan.room < (std::uint64_t{1} << 47U) && checked_add(bytes, aligned(plan.room), bytes);
  }
  if (!fits) return Status{Code::kResourceExhausted, "a slot of more bytes than there can be"};
  FS_RETURN_IF_ERROR(take_block(std::max<std::uint64_t>(bytes, 1), slot));
  const std::uint32_t number = regions_[slot.region_].number;
  for (LocalInput& input : slot.request_.inputs) {
    input.region = number;
    input.offset += slot.start_;
  }
  for (LocalOutput& output : slot.request_.outputs) {
    output.region = number;
    output.offset += slot.start_;
  }
  slot.model_ = &model;
  slot.released_ = false;
  slot.status_ = Status::ok();
  slot.answered_.clear();
  slot.user = nullptr;
  unused_.pop_back();
  return &slot;
}

void LocalConnection::release(LocalSlot* slot) {
  slot->released_ = true;
  if (slot->in_flight_) return;
  free_[slot->size_class_].push_back({slot->region_, slot->start_});
  unused_.push_back(slot);
}

// --- requests ------------------------------------------------------------------------------------------------------------

Status LocalConnection::submit(LocalSlot& slot) {
  if (gone_) return unavailable(why_gone_);
  if (slot.in_flight_) return {Code::kFailedPrecondition, "the slot is in flight already"};
  if (in_flight_ >= layout_.cells) {
    return {Code::kResourceExhausted, "all " + std::to_string(layout_.cells) + " requests are in flight"};
  }
  const std::span<std::byte> cell = requests_.claim();
  if (requests_.corrupt()) return fail("its ring is broken");
  if (cell.empty()) return {Code::kResourceExhausted, "the ring is full of cancellations: try again"};
  FS_RETURN_IF_ERROR(encode_request(cell, slot.request_));
  requests_.publish();
  slot.in_flight_ = true;
  ++in_flight_;
  owes_ring_ = true;
  return Status::ok();
}

void LocalConnection::flush() {
  if (!owes_ring_) return;
  owes_ring_ = false;
  if (requests_.take_sleeper() == Asleep::kNo) return;
  static_cast<void>(::eventfd_write(doorbell_.get(), 1));
}

void LocalConnection::cancel(LocalSlot& slot) {
  if (!slot.in_flight_ || gone_) return;
  const std::span<std::byte> cell = requests_.claim();
  if (cell.empty()) return;  // full: it is a wish
  LocalRequest cancellation;
  cancellation.kind = CellKind::kCancel;
  cancellation.tag = slot.request_.tag;
  if (!encode_request(cell, cancellation).is_ok()) return;
  requests_.publish();
  owes_ring_ = true;
  flush();
}

Result<LocalSlot*> LocalConnection::next() {
  for (;;) {
    const std::span<const std::byte> cell = answers_.front();
    if (answers_.corrupt()) return fail("its ring is broken");
    if (cell.empty()) return gone_ ? Result<LocalSlot*>(unavailable(why_gone_)) : Result<LocalSlot*>(nullptr);
    const std::size_t bytes = used_bytes(cell);
    std::memcpy(cell_.data(), cell.data(), bytes);
    answers_.pop();
    if (Status status = decode_answer(std::span(cell_).first(bytes), answer_); !status.is_ok())
      return fail(status.message());
    if (answer_.tag == 0 || answer_.tag > slots_.size() || !slots_[answer_.tag - 1].in_flight_)
      return fail("it answered a request that was not made");
    LocalSlot& slot = slots_[answer_.tag - 1];
    slot.in_flight_ = false;
    --in_flight_;
    if (slot.released_) {
      release(&slot);
      continue;
    }
    slot.status_ = Status(answer_.code, std::string(answer_.message));
    slot.answered_ = answer_.outputs;
    copy_parameters(answer_.parameters, slot.answered_parameters_);
    if (answer_.code == Code::kOk && slot.answered_.size() != slot.request_.outputs.size())
      return fail("it answered with other outputs");
    for (std::size_t i = 0; i < slot.answered_.size(); ++i) {
      if (slot.answered_[i].bytes > slot.request_.outputs[i].room) return fail("it wrote too much");
    }
    return &slot;
  }
}

bool LocalConnection::alive() {
  std::byte ignored{};
  const ssize_t got = ::recv(socket_.get(), &ignored, sizeof(ignored), MSG_PEEK | MSG_DONTWAIT);
  if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return true;
  static_cast<void>(fail("it closed the connection"));
  return false;
}

Status LocalConnection::wait(Nanos until) {
  flush();
  for (;;) {
    if (!answers_.front().empty()) return Status::ok();
    if (answers_.corrupt()) return fail("its ring is broken");
    if (gone_) return unavailable(why_gone_);
    if (!answers_.fall_asleep(Asleep::kFutex)) continue;
    const Nanos now = monotonic_now();
    const bool signalled = !shared_futex_wait(answers_.asleep(), static_cast<std::uint32_t>(Asleep::kFutex),
                                              std::min(until, now + kLookEvery));
    answers_.wake_up();
    if (!answers_.front().empty()) return Status::ok();
    if (signalled) return {Code::kAborted, "interrupted"};
    const Nanos later = monotonic_now();
    if (later - now >= kLookEvery && !alive()) continue;
    if (later >= until) return {Code::kDeadlineExceeded, "no answer in time"};
  }
}

bool LocalConnection::arm() {
  flush();
  return !gone_ && answers_.fall_asleep(Asleep::kSocket);
}

void LocalConnection::woken() {
  answers_.wake_up();
  for (;;) {
    auto message = receive_message(socket_.get(), buffer_, MSG_DONTWAIT);
    if (!message.is_ok()) {
      static_cast<void>(fail(message.status().message()));
      return;
    }
    if (message->would_block) return;
    if (message->ended) {
      static_cast<void>(fail("it closed the connection"));
      return;
    }
  }
}

}  // namespace fastserve
