#include "frontend/local_server.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "base/log.h"

namespace fastserve {
namespace {

constexpr std::size_t kEvents = 256;
constexpr int kAcceptsInARow = 64;
constexpr int kMostRounds = 16;  // of requests and answers before sockets are looked at again
constexpr int kTickMs = 1000;

// epoll's 64 bits: the pointer, and what it points to in its lowest three.
constexpr std::uint64_t kKindBits = 7;

std::system_error from_errno(const char* what) { return {errno, std::generic_category(), what}; }

bool out_of_descriptors(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

// The reason for a client that may not connect, as the answer to its HELLO.
void send_refusal(int socket, Code code, std::string text) {
  ServerMessage failed;
  failed.kind = ControlKind::kFailed;
  failed.code = code;
  failed.message = std::move(text);
  static_cast<void>(send_message(socket, *encode(failed)));
}

bool may_connect(int socket, const LocalLimits& limits) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == 0 || peer.uid == ::geteuid() ||
         std::ranges::find(limits.uids, peer.uid) != limits.uids.end();
}

}  // namespace

LocalServer::LocalServer(Engine& engine, LocalLimits limits)
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), loop_(engine, std::move(limits)) {
  if (!epoll_.valid()) throw from_errno("epoll_create1");
  if (!watch(mailbox_.event_fd(), EPOLLIN, Watched::kMailbox, nullptr) ||
      !watch(loop_.completions.event_fd(), EPOLLIN, Watched::kCompletions, nullptr)) {
    throw from_errno("epoll_ctl");
  }
  thread_ = std::thread([this] { loop(); });
  ::pthread_setname_np(thread_.native_handle(), "fs-local");
}

LocalServer::~LocalServer() { stop(); }

// --- any thread ----------------------------------------------------------------------------------------------------------

void LocalServer::listen(UniqueFd socket) {
  mailbox_.post([this, fd = socket.release()] {
    listeners_.emplace_back(fd);
    // The descriptor itself stands where others have a pointer: shifted, its low bits stay free.
    if (!watch(fd, EPOLLIN, Watched::kListener,
               reinterpret_cast<void*>(static_cast<std::uintptr_t>(fd) << 3U))) {
      log(LogLevel::kError, std::string("cannot watch a listening socket: ") + std::strerror(errno));
    }
  });
}

void LocalServer::stop_listening() {
  mailbox_.post([this] { listeners_.clear(); });
}

void LocalServer::adopt(UniqueFd socket) {
  mailbox_.post([this, fd = socket.release()] { open(UniqueFd(fd)); });
}

void LocalServer::stop() {
  if (!thread_.joinable()) return;
  mailbox_.post([this] { stopping_ = true; });
  thread_.join();
}

// --- this thread ---------------------------------------------------------------------------------------------------------

void LocalServer::loop() {
  std::array<epoll_event, kEvents> events;
  while (!stopping_) {
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms());
    loop_.completions.keep_awake();
    for (int i = 0; i < count; ++i) {
      const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
      on_event(static_cast<Watched>(data & kKindBits), reinterpret_cast<void*>(data & ~kKindBits));
    }
    settled_ = settle();
    if (strangers_ > 0 || !accepting_) tick();
    discard_done();
  }
  stop_now();
}

int LocalServer::timeout_ms() const {
  if (!settled_) return 0;
  return strangers_ > 0 || !accepting_ ? kTickMs : -1;
}

void LocalServer::on_event(Watched what, void* object) {
  switch (what) {
    case Watched::kMailbox:
      return mailbox_.run_all();
    case Watched::kCompletions:
      return;  // settle() takes them
    case Watched::kListener:
      return accept_all(static_cast<int>(reinterpret_cast<std::uintptr_t>(object) >> 3U));
    case Watched::kSocket:
      return look_after(*static_cast<LocalSession*>(object));
    case Watched::kDoorbell:
      loop_.counters.doorbells.add(1);
      return keep_awake(*static_cast<LocalSession*>(object));
  }
}

bool LocalServer::settle() {
  for (int round = 0; round < kMostRounds; ++round) {
    bool took = false;
    for (LocalSession* session : awake_) took = session->take_requests() || took;
    loop_.submitter.flush();  // may run cheap models
    took = take_responses() || took;
    for (const auto& session : sessions_) session->wake_peer();
    loop_.answers.sent();
    if (took) continue;
    std::erase_if(awake_, [](LocalSession* session) {
      session->awake = !session->fall_asleep();
      return !session->awake;
    });
    if (awake_.empty() && loop_.completions.may_sleep()) return true;
    loop_.completions.keep_awake();
  }
  return false;
}

bool LocalServer::take_responses() {
  Response* response = loop_.completions.take_all();
  const bool took = response != nullptr;
  while (response != nullptr) {
    Response* next = response->next_in_intake;
    if (response->final) {
      LocalCall& call = *static_cast<LocalCall*>(response->request->owner);
      --loop_.in_engine;
      call.session->deliver(call);
    }
    response = next;
  }
  return took;
}

void LocalServer::keep_awake(LocalSession& session) {
  if (session.awake || session.ended()) return;
  session.awake = true;
  awake_.push_back(&session);
}

void LocalServer::accept_all(int listener) {
  for (int accepted = 0; accepted < kAcceptsInARow; ++accepted) {
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (out_of_descriptors(errno)) {
        log(LogLevel::kError, std::string("cannot accept local connections, trying again in a second: ") +
                                  std::strerror(errno));
        accepting_ = false;
        for (const UniqueFd& each : listeners_) unwatch(each.get());
      }
      return;
    }
    if (!may_connect(fd.get(), loop_.limits)) {
      loop_.counters.connections_refused.add(1);
      send_refusal(fd.get(), Code::kPermissionDenied, "this user may not connect");
    } else if (sessions_.size() >= loop_.limits.max_connections) {
      loop_.counters.connections_refused.add(1);
      send_refusal(fd.get(), Code::kResourceExhausted,
                   "connections: there are " + std::to_string(sessions_.size()) + " already");
    } else {
      open(std::move(fd));
    }
  }
}

void LocalServer::open(UniqueFd socket) {
  auto session = std::make_unique<LocalSession>(loop_, std::move(socket), monotonic_now());
  if (!watch(session->socket(), EPOLLIN | EPOLLRDHUP, Watched::kSocket, session.get())) {
    return log(LogLevel::kError,
               std::string("cannot watch a new connection, closing it: ") + std::strerror(errno));
  }
  loop_.counters.accepted.add(1);
  loop_.counters.connections.add(1);
  ++strangers_;
  sessions_.push_back(std::move(session));
}

void LocalServer::look_after(LocalSession& session) {
  if (session.ended()) return;
  const bool known = session.greeted();
  session.on_readable();
  if (known || !session.greeted() || session.ended()) return;
  --strangers_;
  // Edge-triggered and never read: its flags are the client's as well, who could make a read block.
  if (!watch(session.doorbell(), EPOLLIN | EPOLLET, Watched::kDoorbell, &session))
    return session.end("its doorbell cannot be watched");
  keep_awake(session);
}

// Out of epoll by hand: the client has the doorbell too, so that closing ours does not end the watch.
void LocalServer::discard_done() {
  for (std::size_t i = 0; i < sessions_.size();) {
    LocalSession& session = *sessions_[i];
    if (session.ended() && session.socket() >= 0) {
      unwatch(session.socket());
      if (session.greeted()) {
        unwatch(session.doorbell());
      } else {
        --strangers_;
      }
      std::erase(awake_, &session);
      loop_.counters.connections.subtract(1);
      session.close_descriptors();
    }
    if (!session.done()) {
      ++i;
      continue;
    }
    std::swap(sessions_[i], sessions_.back());
    sessions_.pop_back();
  }
}

// About once a second, while there is a reason.
void LocalServer::tick() {
  const Nanos now = monotonic_now();
  if (now - ticked_at_ < kTickMs * kMillisecond) return;
  ticked_at_ = now;
  for (const auto& session : sessions_) {
    if (!session->greeted() && !session->ended() &&
        now - session->since() > loop_.limits.handshake_timeout_ns) {
      session->end("no HELLO in time");
    }
  }
  if (accepting_) return;
  accepting_ = true;
  for (const UniqueFd& each : listeners_) {
    watch(each.get(), EPOLLIN, Watched::kListener,
          reinterpret_cast<void*>(static_cast<std::uintptr_t>(each.get()) << 3U));
  }
}

void LocalServer::stop_now() {
  listeners_.clear();
  for (const auto& session : sessions_) session->end("");
  loop_.submitter.flush();
  while (loop_.in_engine > 0) {
    pollfd ready{loop_.completions.event_fd(), POLLIN, 0};
    loop_.completions.may_sleep();
    ::poll(&ready, 1, 10);
    take_responses();
    loop_.submitter.flush();
  }
  discard_done();
}

bool LocalServer::watch(int fd, std::uint32_t events, Watched what, void* object) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = reinterpret_cast<std::uintptr_t>(object) | static_cast<std::uint64_t>(what);
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void LocalServer::unwatch(int fd) { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

}  // namespace fastserve
