#include "engine/waiting_rooms.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "engine/parked_request.h"

namespace fastserve {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

BatchLimits unlimited() {
  BatchLimits out;
  out.max_queue_requests = std::int64_t{1} << 20;  // the room's own limits come first
  return out;
}

// UNAVAILABLE, with the time after which its load, which began when it was asked for, should be through.
Status later(const std::string& text, const Sleep& sleep, Nanos asked_at) {
  const Nanos left = asked_at + Nanos{sleep.load_s} * kSecond - monotonic_now();
  const auto seconds = static_cast<std::uint16_t>(std::max<Nanos>(1, (left + kSecond - 1) / kSecond));
  Status out = unavailable(text + ", try again in " + std::to_string(seconds) + " s");
  out.set_retry_after_s(seconds);
  return out;
}

std::shared_ptr<ParkedRequest> parked(const Request& inner) {
  return static_cast<ParkedRequest*>(inner.tap)->shared_from_this();
}

}  // namespace

WaitingRoom::WaitingRoom(WaitingRooms& rooms, const std::string& model, ExpiryTimer& timer)
    : ServedVersion(model, 0), queue(*this, unlimited(), timer), rooms_(rooms) {}

WaitingRoom::~WaitingRoom() { queue.leave_timer(); }

void WaitingRoom::leave(std::uint64_t left) {
  requests.fetch_sub(1, kRelaxed);
  bytes.fetch_sub(left, kRelaxed);
  rooms_.requests_.fetch_sub(1, kRelaxed);
  rooms_.bytes_.fetch_sub(left, kRelaxed);
}

void WaitingRoom::wait_unused() {
  begin_drain();
  for (;;) {
    const std::uint32_t ticket = idle.ticket();
    if (handles() == 0 && unanswered() == 0) return;
    idle.wait(ticket, kNever);
  }
}

WaitingRooms::WaitingRooms(const ParkingLimits& limits, ExpiryTimer& timer)
    : limits_(limits), timer_(timer), asked_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

WaitingRooms::~WaitingRooms() {
  for (auto& [model, sleeper] : sleepers_) {
    if (sleeper.room != nullptr) sleeper.room->wait_unused();
  }
}

void WaitingRooms::set_asleep(std::string_view model, const Sleep& sleep) {
  const std::lock_guard lock(mutex_);
  auto found = sleepers_.find(model);
  if (found == sleepers_.end()) found = sleepers_.emplace(model, Sleeper{}).first;
  Sleeper& sleeper = found->second;
  if (sleeper.room == nullptr) sleeper.room = std::make_unique<WaitingRoom>(*this, found->first, timer_);
  if (!sleeper.asleep) sleeping_.fetch_add(1, kRelaxed);
  sleeper.asleep = true;
  sleeper.asked = false;
  sleeper.sleep = sleep;
}

void WaitingRooms::set_awake(Engine& engine, std::string_view model, const std::string& reason) {
  WaitingRoom* room = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sleepers_.find(model);
    if (found == sleepers_.end() || !found->second.asleep) return;
    found->second.asleep = false;
    room = found->second.room.get();
    sleeping_.fetch_sub(1, std::memory_order_release);
  }
  Submitter submitter(engine);
  Request* next = room->queue.take_waiting();
  while (next != nullptr) {
    Request& inner = *next;
    next = inner.next_in_intake;
    const std::shared_ptr<ParkedRequest> request = parked(inner);
    Status status = request->submit(submitter);
    if (status.is_ok()) {
      room->abandon_request();
      continue;
    }
    const bool absent = status.code() == Code::kNotFound || status.code() == Code::kUnavailable;
    if (absent && !reason.empty()) {
      status = unavailable("model '" + std::string(model) + "' could not be loaded: " + reason);
    }
    request->refuse(std::move(status));
    room->answered(1);
  }
}

WaitingRooms::Taken WaitingRooms::take(Request& request, Status& status) {
  if (sleeping_.load(std::memory_order_acquire) == 0) return Taken::kAwake;
  const std::lock_guard lock(mutex_);
  const auto found = sleepers_.find(request.model_name);
  if (found == sleepers_.end() || !found->second.asleep || closed_) return Taken::kAwake;
  Sleeper& sleeper = found->second;
  ask(sleeper);
  status = sleeper.sleep.holds
               ? park(*sleeper.room, request)
               : unavailable("model '" + std::string(request.model_name) + "' is asleep and is loaded now");
  if (status.code() == Code::kUnavailable) status = later(status.message(), sleeper.sleep, sleeper.asked_at);
  if (!status.is_ok()) refused_.fetch_add(1, kRelaxed);
  return status.is_ok() ? Taken::kParked : Taken::kRefused;
}

Status WaitingRooms::asleep_or(std::string_view model, Status otherwise, bool asks) {
  if (sleeping_.load(std::memory_order_acquire) == 0) return otherwise;
  const std::lock_guard lock(mutex_);
  const auto found = sleepers_.find(model);
  if (found == sleepers_.end() || !found->second.asleep || closed_) return otherwise;
  Sleeper& sleeper = found->second;
  if (!asks) {
    return unavailable("model '" + std::string(model) + "' is asleep: it is loaded when it is asked for");
  }
  ask(sleeper);
  refused_.fetch_add(1, kRelaxed);
  return later("model '" + std::string(model) + "' is asleep and is loaded now", sleeper.sleep,
               sleeper.asked_at);
}

Status WaitingRooms::check_room(const WaitingRoom& room, std::uint64_t bytes) {
  const auto full = [&](const char* what) {
    return unavailable("model '" + room.name +
                       "' is asleep, and too many requests wait until it is loaded (" + what + ")");
  };
  if (room.requests.load(kRelaxed) >= limits_.requests_per_model) return full("requests of the model");
  if (requests_.load(kRelaxed) >= limits_.requests) return full("requests of all models");
  if (room.bytes.load(kRelaxed) + bytes > limits_.bytes_per_model) return full("bytes of the model");
  if (bytes_.load(kRelaxed) + bytes > limits_.bytes) return full("bytes of all models");
  return Status::ok();
}

// mutex_ held, so that what was parked before the model is awake is found by set_awake.
Status WaitingRooms::park(WaitingRoom& room, Request& request) {
  const Nanos now = monotonic_now();
  if (request.deadline <= now) return {Code::kDeadlineExceeded, "Deadline Exceeded"};
  const std::uint64_t bytes = kept_bytes(request);
  FS_RETURN_IF_ERROR(check_room(room, bytes));
  std::shared_ptr<ParkedRequest> held;
  std::unique_ptr<ParkedParts> parts;
  try {
    held = std::make_shared<ParkedRequest>(request, room);
    parts = std::make_unique<ParkedParts>(held);
  } catch (const std::bad_alloc&) {
    return {Code::kResourceExhausted, "no memory for a request that waits"};
  }
  Request& inner = held->inner();
  inner.times.enqueued = now;
  inner.expires = room.queue.expiry_of(inner, now);
  FS_RETURN_IF_ERROR(room.queue.admit(inner));
  static_cast<void>(room.try_begin_request());  // it drains when the engine ends, after close()
  room.requests.fetch_add(1, kRelaxed);
  room.bytes.fetch_add(bytes, kRelaxed);
  requests_.fetch_add(1, kRelaxed);
  bytes_.fetch_add(bytes, kRelaxed);
  parked_.fetch_add(1, kRelaxed);
  request.parts = std::move(parts);
  const Nanos expires = inner.expires;
  const bool cancelled = inner.cancelled.load(kRelaxed);
  static_cast<void>(room.queue.push(inner));  // nobody is to be rung
  if (expires != kNever) room.queue.announce_expiry(expires);
  if (cancelled) room.queue.notice_cancel();
  return Status::ok();
}

void WaitingRooms::ask(Sleeper& sleeper) {
  if (std::exchange(sleeper.asked, true)) return;
  sleeper.asked_at = monotonic_now();
  tell();
}

void WaitingRooms::tell() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(asked_fd_.get(), &one, sizeof one);
}

std::vector<std::string> WaitingRooms::take_asked() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t read = ::read(asked_fd_.get(), &count, sizeof count);
  std::vector<std::string> out;
  const std::lock_guard lock(mutex_);
  for (auto& [model, sleeper] : sleepers_) {
    if (sleeper.asleep && sleeper.asked) out.push_back(model);
  }
  return out;
}

ParkingTotals WaitingRooms::totals() const {
  ParkingTotals out;
  out.requests = requests_.load(kRelaxed);
  out.bytes = bytes_.load(kRelaxed);
  out.parked = parked_.load(kRelaxed);
  out.refused = refused_.load(kRelaxed);
  return out;
}

void WaitingRooms::close(const Status& status) {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (auto& [model, sleeper] : sleepers_) {
    if (sleeper.room != nullptr) sleeper.room->queue.refuse_waiting(status);
  }
}

}  // namespace fastserve
