#include "frontend/io_thread.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/log.h"

namespace fastserve {
namespace {

constexpr std::size_t kReceiveBytes = std::size_t{256} << 10;
constexpr int kReadsInARow = 4;  // of one socket, before the others get their turn
constexpr int kAcceptsInARow = 64;
constexpr std::size_t kEvents = 256;
constexpr itimerspec kTick{{1, 0}, {1, 0}};  // every second
constexpr Nanos kLinger = 2 * kSecond;       // for a client that still sends to read its refusal

bool out_of_descriptors(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

void set_no_delay(int fd) {
  const int on = 1;
  static_cast<void>(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));  // refused by Unix sockets
}

std::system_error from_errno(const char* what) { return {errno, std::generic_category(), what}; }

}  // namespace

IoThread::IoThread(Engine& engine, const IoLimits& limits, ColdQueue& cold, OnAccept on_accept,
                   const std::string& name)
    : cold_(cold),
      on_accept_(std::move(on_accept)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      io_(engine, limits),
      receive_(kReceiveBytes) {
  if (!epoll_.valid()) throw from_errno("epoll_create1");
  if (!timer_.valid() || ::timerfd_settime(timer_.get(), 0, &kTick, nullptr) != 0)
    throw from_errno("timerfd");
  for (const auto& [kind, fd] :
       {std::pair(Socket::Kind::kTimer, timer_.get()), std::pair(Socket::Kind::kMailbox, mailbox_.event_fd()),
        std::pair(Socket::Kind::kCompletions, io_.event_fd())}) {
    Socket* socket = add(kind, fd);
    if (socket == nullptr) throw from_errno("epoll_ctl");
    watch(*socket, EPOLLIN);
  }
  thread_ = std::thread([this] { loop(); });
  ::pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

IoThread::~IoThread() { stop(); }

// --- any thread ----------------------------------------------------------------------------------------------------------

void IoThread::listen(Protocol protocol, UniqueFd socket) {
  mailbox_.post([this, protocol, fd = socket.release()] {
    UniqueFd owned(fd);
    Socket* listener = add(Socket::Kind::kListener, fd);
    if (listener == nullptr) {
      return log(LogLevel::kError, std::string("cannot watch a listening socket: ") + std::strerror(errno));
    }
    listener->owned = std::move(owned);
    listener->protocol = protocol;
    listeners_.push_back(listener);
    watch(*listener, EPOLLIN);
  });
}

void IoThread::stop_listening() {
  mailbox_.post([this] {
    for (Socket* listener : std::exchange(listeners_, {})) discard(*listener);
  });
}

void IoThread::adopt(Protocol protocol, UniqueFd socket) {
  connections_.fetch_add(1, std::memory_order_relaxed);
  if (std::this_thread::get_id() == thread_.get_id()) {
    open(protocol, std::move(socket));
  } else {
    mailbox_.post([this, protocol, fd = socket.release()] { open(protocol, UniqueFd(fd)); });
  }
}

void IoThread::shutdown() {
  mailbox_.post([this] { io_.shutdown(); });
}

void IoThread::stop() {
  if (!thread_.joinable()) return;
  mailbox_.post(
      [this] { stopping_ = true; });  // after what was posted before: no socket is forgotten in a letter
  thread_.join();
}

// --- this thread ---------------------------------------------------------------------------------------------------------

void IoThread::loop() {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // pauses would last twice as long with the default of 50 us
  std::array<epoll_event, kEvents> events;
  const auto poll = [&](int timeout) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    return static_cast<std::size_t>(std::max(count, 0));
  };
  Nanos ended = monotonic_now();
  while (!stopping_) {
    std::size_t count = poll(-1);
    Nanos began = monotonic_now();
    if (const Nanos pause = pacing_.pause_first(began - ended); pause != 0) {
      const timespec length{0, pause};
      ::clock_nanosleep(CLOCK_MONOTONIC, 0, &length, nullptr);
      count = poll(0);  // what else became readable meanwhile
      began = monotonic_now();
    }
    const std::uint64_t submitted = io_.submitted();
    pass(std::span(events).first(count));
    pacing_.passed(io_.submitted() - submitted);
    ended = monotonic_now();
    io_.note_pass(ended - began);
  }
  for (const auto& [socket, owner] : sockets_) {
    if (socket->connection != nullptr) io_.close(std::exchange(socket->connection, nullptr));
  }
}

// All input first, then all output, then one wake of each model's instances.
void IoThread::pass(std::span<const epoll_event> events) {
  io_.begin_pass();
  for (const epoll_event& event : events) {
    Socket& socket = *static_cast<Socket*>(event.data.ptr);
    if (!socket.discarded) on_event(socket, event.events);
  }
  io_.end_pass();
  hand_over_cold();
  attend();
  closed_.clear();
}

void IoThread::on_event(Socket& socket, std::uint32_t events) {
  switch (socket.kind) {
    case Socket::Kind::kMailbox:
      return mailbox_.run_all();
    case Socket::Kind::kCompletions:
      return io_.on_wake();
    case Socket::Kind::kListener:
      return accept_all(socket);
    case Socket::Kind::kTimer:
      return tick();
    case Socket::Kind::kConnection:
      break;
  }
  if ((events & EPOLLERR) != 0 || ((events & EPOLLHUP) != 0 && (events & EPOLLIN) == 0)) {
    return discard(socket);
  }
  if ((events & EPOLLOUT) != 0) {
    watch(socket, socket.events & ~static_cast<std::uint32_t>(EPOLLOUT));  // again when it is full again
    io_.writable(*socket.connection);
  }
  if ((events & EPOLLIN) != 0) on_readable(socket);
}

void IoThread::on_readable(Socket& socket) {
  for (int reads = 0; reads < kReadsInARow && socket.connection->wants_input(); ++reads) {
    const ssize_t n = ::recv(socket.fd, receive_.data(), receive_.size(), 0);
    if (n > 0) {
      io_.received(*socket.connection, std::span(receive_).first(static_cast<std::size_t>(n)));
      if (static_cast<std::size_t>(n) < receive_.size()) return;
    } else if (n == 0) {
      socket.input_ended = true;
      watch(socket, socket.events & ~static_cast<std::uint32_t>(EPOLLIN));
      return io_.end_of_input(*socket.connection);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return;
    } else if (errno != EINTR) {
      return discard(socket);
    }
  }
}

void IoThread::accept_all(Socket& listener) {
  for (int accepted = 0; accepted < kAcceptsInARow; ++accepted) {
    UniqueFd fd(::accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (out_of_descriptors(errno)) {
        log(LogLevel::kError, std::string("cannot accept connections, trying again in a second: ") +
                                  std::strerror(errno) + " (raise the limit of open files, ulimit -n)");
        accepting_ = false;
        for (Socket* each : listeners_) watch(*each, 0);
      }
      return;
    }
    set_no_delay(fd.get());
    on_accept_(listener.protocol, std::move(fd));
  }
}

void IoThread::open(Protocol protocol, UniqueFd fd) {
  Socket* socket = add(Socket::Kind::kConnection, fd.get());
  if (socket == nullptr) {
    connections_.fetch_sub(1, std::memory_order_relaxed);
    return log(LogLevel::kError,
               std::string("cannot watch a new connection, closing it: ") + std::strerror(errno));
  }
  socket->owned = std::move(fd);
  socket->protocol = protocol;
  socket->connection =
      protocol == Protocol::kGrpc ? io_.open_grpc(socket->fd, socket) : io_.open_http(socket->fd, socket);
  watch(*socket, EPOLLIN);
}

void IoThread::hand_over_cold() {
  for (Call* call : io_.take_cold()) events_.push_back({ColdEvent::Kind::kCall, call, &port_, {}});
  for (IoLoop::ColdMessage& each : io_.take_cold_messages()) {
    const auto kind = each.half_close ? ColdEvent::Kind::kHalfClose : ColdEvent::Kind::kMessage;
    events_.push_back({kind, each.call, &port_, std::move(each.bytes)});
  }
  for (Call* call : io_.take_cancelled()) events_.push_back({ColdEvent::Kind::kCancelled, call, &port_, {}});
  cold_.push(events_);
}

void IoThread::attend() {
  for (auto list = io_.take_attention(); !list.empty(); list = io_.take_attention()) {
    for (const Connection* connection : list) attend(*static_cast<Socket*>(connection->driver()));
  }
}

void IoThread::attend(Socket& socket) {
  const Connection& connection = *socket.connection;
  if (connection.finished()) {
    if (!connection.lingers() || socket.input_ended) return discard(socket);
    if (socket.linger_until == kNever) {
      ::shutdown(socket.fd, SHUT_WR);
      socket.linger_until = monotonic_now() + kLinger;
    }
    return;
  }
  const bool reads = connection.wants_input() && !socket.input_ended;
  watch(socket, (reads ? EPOLLIN : 0U) | (connection.stalled() ? EPOLLOUT : 0U));
}

IoThread::Socket* IoThread::add(Socket::Kind kind, int fd) {
  auto made = std::make_unique<Socket>();
  Socket* socket = made.get();
  socket->kind = kind;
  socket->fd = fd;
  epoll_event event{};
  event.data.ptr = socket;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return nullptr;
  sockets_.emplace(socket, std::move(made));
  return socket;
}

void IoThread::watch(Socket& socket, std::uint32_t events) {
  if (socket.events == events) return;
  socket.events = events;
  epoll_event event{};
  event.events = events;
  event.data.ptr = &socket;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, socket.fd, &event);
}

// Closes it now; its memory stays until the pass is through, because later events of the pass may point to it.
void IoThread::discard(Socket& socket) {
  if (socket.connection != nullptr) {
    io_.close(std::exchange(socket.connection, nullptr));
    connections_.fetch_sub(1, std::memory_order_relaxed);
  }
  socket.discarded = true;
  socket.owned.reset();
  const auto at = sockets_.find(&socket);
  closed_.push_back(std::move(at->second));
  sockets_.erase(at);
}

void IoThread::tick() {
  std::uint64_t times = 0;
  [[maybe_unused]] const ssize_t got = ::read(timer_.get(), &times, sizeof(times));
  if (!std::exchange(accepting_, true)) {
    for (Socket* listener : listeners_) watch(*listener, EPOLLIN);
  }
  io_.tick();
  const Nanos now = monotonic_now();
  std::vector<Socket*> lingered;
  for (const auto& [socket, owner] : sockets_) {
    if (socket->linger_until <= now) lingered.push_back(socket);
  }
  for (Socket* socket : lingered) discard(*socket);
}

// --- answers of cold calls: copied, because the answering thread goes on ----------------------------------------------------

namespace {

using OwnedFields = std::vector<std::pair<std::string, std::string>>;

OwnedFields owned(ColdPort::Fields fields) { return {fields.begin(), fields.end()}; }
std::vector<std::byte> owned(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

void IoThread::Port::grpc_send(Call& call, std::span<const std::byte> message) {
  thread_.mailbox_.post(
      [&io = thread_.io_, &call, message = owned(message)] { io.grpc_send(call, message); });
}

void IoThread::Port::grpc_finish(Call& call, Code code, std::string_view message, Fields trailers) {
  thread_.mailbox_.post([&io = thread_.io_, &call, code, message = std::string(message),
                         trailers = owned(trailers)] { io.grpc_finish(call, code, message, trailers); });
}

void IoThread::Port::grpc_took(Call& call) {
  thread_.mailbox_.post([&io = thread_.io_, &call] { io.grpc_took(call); });
}

void IoThread::Port::http_respond(Call& call, int status, Fields headers, std::span<const std::byte> body) {
  thread_.mailbox_.post([&io = thread_.io_, &call, status, headers = owned(headers), body = owned(body)] {
    io.http_respond(call, status, headers, body);
  });
}

void IoThread::Port::http_begin(Call& call, int status, Fields headers) {
  thread_.mailbox_.post(
      [&io = thread_.io_, &call, status, headers = owned(headers)] { io.http_begin(call, status, headers); });
}

void IoThread::Port::http_chunk(Call& call, std::span<const std::byte> piece) {
  thread_.mailbox_.post([&io = thread_.io_, &call, piece = owned(piece)] { io.http_chunk(call, piece); });
}

void IoThread::Port::http_end(Call& call) {
  thread_.mailbox_.post([&io = thread_.io_, &call] { io.http_end(call); });
}

void IoThread::Port::done(Call& call) {
  thread_.mailbox_.post([&io = thread_.io_, &call] { io.done(call); });
}

}  // namespace fastserve
