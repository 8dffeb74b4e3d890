// The control half of LocalSession: what comes over its socket. Requests: local_requests.cc.
#include "frontend/local_session.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/log.h"

namespace fastserve {
namespace {

constexpr int kMessagesInARow = 16;  // of one socket, before the others get their turn

bool same(const std::vector<TensorSpec>& a, const std::vector<TensorSpec>& b) {
  return std::ranges::equal(a, b, [](const TensorSpec& x, const TensorSpec& y) {
    return x.name == y.name && x.dtype == y.dtype && x.shape == y.shape && x.optional == y.optional;
  });
}

}  // namespace

LocalRegion::LocalRegion(SealedMemory memory_in, LocalCounters& counters_in)
    : memory(std::move(memory_in)),
      // Whole pages, as a mapping is; the kernel refuses a lock beyond the end of the object by itself.
      pinned(pinned_ranges(), memory.data(), memory.size()),
      counters(counters_in) {
  memory.close_fd();
  counters.regions.add(1);
  counters.region_bytes.add(memory.size());
}

LocalRegion::~LocalRegion() {
  counters.regions.subtract(1);
  counters.region_bytes.subtract(memory.size());
}

LocalSession::LocalSession(LocalLoop& loop, UniqueFd socket, Nanos now)
    : loop_(loop), socket_(std::move(socket)), since_(now) {}

LocalSession::~LocalSession() = default;

void LocalSession::end(std::string_view reason) {
  if (ended_) return;
  ended_ = true;
  if (!reason.empty()) {
    loop_.counters.connections_broken.add(1);
    log(LogLevel::kWarning, "local transport: connection closed: " + std::string(reason));
  }
  for (LocalCall* call : calls_) call->request.cancel();
}

// --- control -----------------------------------------------------------------------------------------------------------

void LocalSession::on_readable() {
  for (int i = 0; i < kMessagesInARow && !ended_; ++i) {
    auto received = receive_message(socket_.get(), loop_.control, MSG_DONTWAIT);
    if (!received.is_ok()) return end(received.status().message());
    if (received->would_block) return;
    if (received->ended) return end("");
    on_message(std::move(*received));
  }
}

void LocalSession::on_message(UnixMessage message) {
  auto decoded = decode_client_message(std::span(loop_.control).first(message.bytes));
  if (!decoded.is_ok()) return end(decoded.status().message());
  if ((decoded->kind == ControlKind::kHello) == greeted()) return end("a control message out of turn");
  if ((decoded->kind == ControlKind::kRegister) != (message.fds.size() == 1) || message.fds.size() > 1)
    return end("a control message with the wrong number of descriptors");
  Status status;
  switch (decoded->kind) {
    case ControlKind::kHello:
      status = hello(*decoded);
      break;
    case ControlKind::kRegister:
      status = register_region(*decoded, std::move(message.fds));
      break;
    case ControlKind::kUnregister:
      status = unregister_region(*decoded);
      break;
    default:
      status = open_model(*decoded);
  }
  if (status.is_ok()) return;
  loop_.counters.control_refused_by_code[static_cast<std::size_t>(status.code())].add(1);
  ServerMessage failed;
  failed.kind = ControlKind::kFailed;
  failed.sequence = decoded->sequence;
  failed.code = status.code();
  failed.message = status.message();
  send(failed);
}

void LocalSession::send(const ServerMessage& message, std::span<const int> fds) {
  if (ended_) return;
  auto bytes = encode(message);
  if (!bytes.is_ok()) {  // a signature of more than 64 KiB
    ServerMessage failed;
    failed.kind = ControlKind::kFailed;
    failed.sequence = message.sequence;
    failed.code = bytes.status().code();
    failed.message = bytes.status().message();
    bytes = encode(failed);
  }
  if (!send_message(socket_.get(), *bytes, fds).is_ok()) end("the client does not read its answers");
}

Status LocalSession::hello(const ClientMessage& message) {
  FS_RETURN_IF_ERROR(check_ring_layout(message.cells, message.cell_bytes, loop_.limits.max_cells));
  layout_ = {message.cells, message.cell_bytes};
  FS_ASSIGN_OR_RETURN(memory_, SealedMemory::create("fastserve-rings", ring_memory_bytes(layout_)));
  UniqueFd doorbell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!doorbell.valid()) return {Code::kResourceExhausted, "no descriptor for the doorbell"};
  requests_ = RingConsumer(memory_.data(), layout_);
  answers_ = RingProducer(memory_.data() + layout_.bytes(), layout_);
  doorbell_ = std::move(doorbell);
  ServerMessage welcome;
  welcome.kind = ControlKind::kWelcome;
  welcome.sequence = message.sequence;
  welcome.cells = layout_.cells;
  welcome.cell_bytes = layout_.cell_bytes;
  welcome.region_bytes = loop_.limits.max_region_bytes;
  const std::array<int, 2> fds{memory_.fd(), doorbell_.get()};
  send(welcome, fds);
  memory_.close_fd();
  return Status::ok();
}

Status LocalSession::register_region(const ClientMessage& message, std::vector<UniqueFd> fds) {
  const LocalLimits& limits = loop_.limits;
  auto free = std::ranges::find_if(regions_, [](const auto& each) { return each == nullptr; });
  if (free == regions_.end() && regions_.size() + leaving_.size() >= limits.max_regions) {
    return {Code::kResourceExhausted, "regions: a connection may have " + std::to_string(limits.max_regions)};
  }
  const std::size_t total_left =
      limits.max_total_region_bytes -
      std::min(limits.max_total_region_bytes, static_cast<std::size_t>(loop_.counters.region_bytes.get()));
  const std::size_t most =
      std::min(limits.max_region_bytes - std::min(limits.max_region_bytes, region_bytes_), total_left);
  if (most == 0) return {Code::kResourceExhausted, "regions: their bytes are used up"};
  FS_ASSIGN_OR_RETURN(SealedMemory memory, SealedMemory::adopt(std::move(fds.front()), most));
  region_bytes_ += memory.size();
  ServerMessage answer;
  answer.kind = ControlKind::kRegistered;
  answer.sequence = message.sequence;
  answer.number = static_cast<std::uint32_t>(free - regions_.begin()) + 1;
  answer.region_bytes = memory.size();
  auto region = std::make_unique<LocalRegion>(std::move(memory), loop_.counters);
  if (free == regions_.end()) {
    regions_.push_back(std::move(region));
  } else {
    *free = std::move(region);
  }
  send(answer);
  return Status::ok();
}

// New requests do not find it from here on; those that use it go on.
Status LocalSession::unregister_region(const ClientMessage& message) {
  const std::size_t at = std::size_t{message.region} - 1;
  if (message.region == 0 || at >= regions_.size() || regions_[at] == nullptr)
    return not_found("region: got " + std::to_string(message.region) + ", which is not registered");
  leaving_.push_back({std::move(regions_[at]), message.sequence});
  send_gone_regions();
  return Status::ok();
}

void LocalSession::send_gone_regions() {
  for (std::size_t i = 0; i < leaving_.size();) {
    if (leaving_[i].region->uses != 0) {
      ++i;
      continue;
    }
    ServerMessage gone;
    gone.kind = ControlKind::kUnregistered;
    gone.sequence = leaving_[i].sequence;
    region_bytes_ -= leaving_[i].region->memory.size();
    leaving_.erase(leaving_.begin() + static_cast<std::ptrdiff_t>(i));
    send(gone);
  }
}

// A number is for ever: a reloaded model with another signature gets a new one, requests may point into the old one.
Status LocalSession::open_model(const ClientMessage& message) {
  FS_ASSIGN_OR_RETURN(ServedVersion * version, loop_.engine.ask(message.name, message.version));
  Signature signature = version->signature;
  const std::int64_t number = version->number;
  version->release();
  auto known = std::ranges::find_if(models_, [&](const Model& each) {
    return each.name == message.name && each.version == message.version && each.number == number &&
           same(each.signature.inputs, signature.inputs) && same(each.signature.outputs, signature.outputs);
  });
  if (known == models_.end()) {
    if (models_.size() >= loop_.limits.max_models) {
      return {Code::kResourceExhausted,
              "models: a connection may open " + std::to_string(loop_.limits.max_models)};
    }
    models_.push_back(
        {std::string(message.name), std::string(message.version), number, std::move(signature)});
    known = models_.end() - 1;
  }
  ServerMessage answer;
  answer.kind = ControlKind::kOpened;
  answer.sequence = message.sequence;
  answer.number = static_cast<std::uint32_t>(known - models_.begin()) + 1;
  answer.model_version = number;
  answer.signature = known->signature;
  send(answer);
  return Status::ok();
}

}  // namespace fastserve
