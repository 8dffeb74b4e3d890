#include "frontend/io_loop.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/log.h"
#include "frontend/grpc_connection.h"
#include "frontend/http_connection.h"

namespace fastserve {
namespace {

// Message buffers that idle calls may keep between them: enough for a few hundred image tensors in flight, so that large
// requests do not fault their pages in anew each time.
constexpr std::size_t kIdleBytes = std::size_t{64} << 20;
constexpr std::size_t kSmallBytes = 16 * 1024;
constexpr int kMostRounds = 4;  // of output and fresh answers in one pass

// `127.0.0.1:40000`, `[::1]:40000`; "" for a Unix socket and one that is gone.
std::string peer_text(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (::getpeername(fd, generic, &size) != 0 || address.ss_family == AF_UNIX) return {};
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  constexpr int kNumeric = NI_NUMERICHOST | NI_NUMERICSERV;
  if (::getnameinfo(generic, size, host, sizeof(host), port, sizeof(port), kNumeric) != 0) return {};
  const bool brackets = address.ss_family == AF_INET6;
  return std::string(brackets ? "[" : "") + host + (brackets ? "]:" : ":") + port;
}

bool is_unix(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 && address.ss_family == AF_UNIX;
}

template <class T>
void erase_from(std::vector<T*>& list, const T* item) {
  std::erase_if(list, [item](const T* each) { return each == item; });
}

}  // namespace

IoLoop::IoLoop(Engine& engine, const IoLimits& limits)
    : engine_(engine),
      limits_(limits),
      completions_(CompletionQueue::Wake::kEventFd),
      submitter_(engine),
      answers_(engine.tracer()) {}

IoLoop::~IoLoop() {
  while (!connections_.empty()) close(connections_.back().get());
  submitter_.flush();
  while (in_engine_ > 0) {
    pollfd ready{completions_.event_fd(), POLLIN, 0};
    ::poll(&ready, 1, -1);
    on_wake();
  }
}

Connection* IoLoop::adopt(std::unique_ptr<Connection> connection, const TlsFiles* tls,
                          TlsProtocols protocols) {
  if (tls != nullptr && !is_unix(connection->fd())) {
    connection->start_tls(tls->current(), protocols, monotonic_now(), tls->limits());
  }
  Connection* opened = connection.get();
  opened->slot_ = connections_.size();
  connections_.push_back(std::move(connection));
  opened->opened(monotonic_now());
  if (draining_) opened->shutdown();
  flush(*opened);
  return opened;
}

// One line a second at most: whoever can connect can cause them.
void IoLoop::note_tls_failure(const Connection& connection, const TlsSession& session) {
  constexpr Nanos kInterval = kSecond;
  counters_.tls_failures[static_cast<std::size_t>(session.failure())].add(1);
  if (session.failure() == TlsFailure::kCutOff) return;  // port scans and health checks of load balancers
  const Nanos now = monotonic_now();
  if (now - tls_failure_logged_at_ < kInterval) {
    ++tls_failures_not_logged_;
    return;
  }
  std::string line = "TLS connection from " + peer_text(connection.fd()) + " refused: " + session.error();
  if (const std::uint64_t more = std::exchange(tls_failures_not_logged_, 0); more != 0) {
    line += " (and " + std::to_string(more) + " others since the last such line)";
  }
  tls_failure_logged_at_ = now;
  log(LogLevel::kWarning, line);
}

Connection* IoLoop::open_grpc(int fd, void* driver) {
  counters_.grpc_connections.add(1);
  counters_.grpc_accepted.add(1);
  return adopt(std::make_unique<GrpcConnection>(*this, fd, driver), limits_.tls_grpc.get(),
               TlsProtocols::kHttp2);
}

Connection* IoLoop::open_http(int fd, void* driver) {
  counters_.http_connections.add(1);
  counters_.http_accepted.add(1);
  return adopt(std::make_unique<HttpConnection>(*this, fd, driver), limits_.tls_http.get(),
               TlsProtocols::kHttp1OrHttp2);
}

void IoLoop::received(Connection& connection, std::span<const std::byte> bytes) {
  enter();
  counters_.bytes_received.add(bytes.size());
  received_at_ = monotonic_now();
  connection.receive(bytes, received_at_);
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::end_of_input(Connection& connection) {
  enter();
  connection.input_ended();
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::writable(Connection& connection) {
  enter();
  connection.set_driver_writes(false);
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::close(Connection* connection) {
  erase_from(dirty_, connection);
  erase_from(attention_, connection);
  const bool grpc = dynamic_cast<GrpcConnection*>(connection) != nullptr;
  (grpc ? counters_.grpc_connections : counters_.http_connections).subtract(1);
  const std::size_t slot = connection->slot_;
  const std::unique_ptr<Connection> doomed = std::move(connections_[slot]);
  connections_[slot] = std::move(connections_.back());
  if (connections_[slot] != nullptr) connections_[slot]->slot_ = slot;
  connections_.pop_back();
}

void IoLoop::shutdown() {
  enter();
  draining_ = true;
  for (const auto& connection : connections_) {
    connection->shutdown();
    mark_dirty(*connection);
  }
  finish_pass();
}

void IoLoop::tick() {
  enter();
  const Nanos now = monotonic_now();
  for (const auto& connection : connections_) {
    if (connection->check_time(now)) mark_dirty(*connection);
  }
  pass_window_ = (pass_window_ + 1) % kPassWindows;
  longest_passes_[pass_window_] = 0;
  counters_.longest_pass_ns.set(static_cast<std::uint64_t>(std::ranges::max(longest_passes_)));
  finish_pass();
}

void IoLoop::begin_pass() {
  enter();
  in_pass_ = true;
}

void IoLoop::end_pass() {
  in_pass_ = false;
  finish_pass();
}

void IoLoop::note_pass(Nanos took) {
  longest_passes_[pass_window_] = std::max(longest_passes_[pass_window_], took);
  if (static_cast<std::uint64_t>(took) > counters_.longest_pass_ns.get()) {
    counters_.longest_pass_ns.set(static_cast<std::uint64_t>(took));
  }
}

void IoLoop::on_wake() {
  enter();
  take_responses();
  finish_pass();
}

bool IoLoop::take_responses() {
  Response* response = completions_.take_all();
  if (response == nullptr) return false;
  const Nanos now = monotonic_now();
  while (response != nullptr) {
    Response* next = response->next_in_intake;
    deliver(*response, now);
    response = next;
  }
  return true;
}

void IoLoop::deliver(Response& response, Nanos now) {
  if (!response.final) return;  // no backend gives more than one answer yet
  Call& call = *static_cast<Call*>(response.request->owner);
  call.in_engine = false;
  --in_engine_;
  if (call.connection == nullptr || !call.stream_open) {
    let_go(call);
    return;
  }
  Connection& connection = *call.connection;
  answers_.add(call.request, call.kind == CallKind::kRestInfer ? TraceSource::kHttp : TraceSource::kGrpc,
               now);
  connection.deliver(call, now);  // may recycle the call
  mark_dirty(connection);
}

// Output goes out before instances are woken: on few cores the woken thread would take the processor from us. What was
// answered meanwhile goes out at once too, but not for ever: the sockets wait.
void IoLoop::finish_pass() {
  if (in_pass_) return;
  for (int rounds = 0; rounds < kMostRounds; ++rounds) {
    while (!dirty_.empty()) {
      flushing_.swap(dirty_);  // flush may make others dirty; both keep their memory
      for (Connection* connection : flushing_) {
        connection->dirty_ = false;
        flush(*connection);
      }
      flushing_.clear();
    }
    answers_.sent();
    submitter_.flush();  // may run cheap models
    if (!take_responses() && completions_.may_sleep()) return;
    completions_.keep_awake();
  }
  if (!completions_.may_sleep() || !dirty_.empty()) completions_.wake_self();
}

void IoLoop::flush(Connection& connection) {
  if (connection.flush() && !connection.in_attention_) {
    connection.in_attention_ = true;
    attention_.push_back(&connection);
  }
}

void IoLoop::mark_dirty(Connection& connection) {
  if (connection.dirty_) return;
  connection.dirty_ = true;
  dirty_.push_back(&connection);
}

std::vector<Connection*> IoLoop::take_attention() {
  for (Connection* connection : attention_) connection->in_attention_ = false;
  return std::exchange(attention_, {});
}

Call& IoLoop::new_call(Connection& connection, CallKind kind) {
  if (idle_calls_.empty()) {
    all_calls_.push_back(std::make_unique<Call>());
    idle_calls_.push_back(all_calls_.back().get());
  }
  Call& call = *idle_calls_.back();
  idle_calls_.pop_back();
  idle_bytes_ -= call.request.message.capacity();
  call.connection = &connection;
  call.kind = kind;
  call.stream_open = true;
  call.request.completions = &completions_;
  call.request.owner = &call;
  connection.calls_.push_back(&call);
  counters_.open_calls.add(1);
  return call;
}

void IoLoop::let_go(Call& call) {
  if (call.held()) return;
  if (call.connection != nullptr) {
    auto& siblings = call.connection->calls_;
    const auto at = std::ranges::find(siblings, &call);
    *at = siblings.back();
    siblings.pop_back();
    call.connection = nullptr;
    counters_.open_calls.subtract(1);
  }
  call.request.response.release();
  call.request.reset();
  if (idle_bytes_ + call.request.message.capacity() > kIdleBytes) call.request.message.shrink(kSmallBytes);
  idle_bytes_ += call.request.message.capacity();
  call.answered = call.finished = call.cancel_noticed = call.has_header_length = false;
  call.takes_messages = false;
  call.unread_messages = 0;
  call.fields.clear();
  idle_calls_.push_back(&call);
}

Status IoLoop::submit(Call& call) {
  // Bytes of a pipelined request came before its turn did.
  call.request.times.complete = std::max(received_at_, call.request.times.received);
  Status status = submitter_.submit(call.request);
  refusal_counted_ = submitter_.refusal_counted();
  if (!status.is_ok()) return status;
  call.in_engine = true;
  ++in_engine_;
  ++submitted_;
  return Status::ok();
}

void IoLoop::abandon(Call& call) {
  if (call.in_engine) call.request.cancel();
  if (call.in_loop && !call.cancel_noticed) {
    call.cancel_noticed = true;
    cancelled_.push_back(&call);
  }
}

void IoLoop::add_cold(Call& call) {
  call.in_loop = true;
  call.peer = peer_text(call.connection->fd());
  call.secure = call.connection->secure();
  cold_.push_back(&call);
}

std::shared_ptr<const void> IoLoop::keep_for_output(Call& call) {
  call.in_output = true;
  return {&call, [this](const void* kept) {
            Call& released = *static_cast<Call*>(const_cast<void*>(kept));
            released.in_output = false;
            let_go(released);
          }};
}

// --- answers of cold calls ---------------------------------------------------------------------------------------------

void IoLoop::grpc_send(Call& call, std::span<const std::byte> message) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<GrpcConnection*>(call.connection)->send(call, message);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::grpc_finish(Call& call, Code code, std::string_view message, Fields trailers) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<GrpcConnection*>(call.connection)->finish(call, code, message, trailers);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::grpc_took(Call& call) {
  --call.unread_messages;
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<GrpcConnection*>(call.connection)->took_message(call);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::http_respond(Call& call, int status, Fields headers, std::span<const std::byte> body) {
  if (call.connection == nullptr || !call.stream_open) return;
  Connection& connection = *call.connection;
  static_cast<HttpConnection&>(connection).respond(call, status, headers, body);
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::http_begin(Call& call, int status, Fields headers) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<HttpConnection*>(call.connection)->begin(call, status, headers);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::http_chunk(Call& call, std::span<const std::byte> piece) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<HttpConnection*>(call.connection)->chunk(call, piece);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::http_abort(Call& call) {
  if (call.connection == nullptr || !call.stream_open) return;
  Connection& connection = *call.connection;
  static_cast<HttpConnection&>(connection).abort(call);
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::http_end(Call& call) {
  if (call.connection == nullptr || !call.stream_open) return;
  Connection& connection = *call.connection;
  static_cast<HttpConnection&>(connection).end(call);
  mark_dirty(connection);
  finish_pass();
}

// A driver that lets go of a call without an answer aborts it, so that no client waits for ever.
void IoLoop::done(Call& call) {
  erase_from(cancelled_, &call);
  std::erase_if(cold_messages_, [&call](const ColdMessage& each) { return each.call == &call; });
  call.cancel_noticed = true;
  if (!call.finished) {
    if (call.kind == CallKind::kGrpcCold) grpc_finish(call, Code::kInternal, "the call was dropped", {});
    if (call.kind == CallKind::kHttpCold && !call.answered) http_respond(call, 500, {}, {});
    if (call.kind == CallKind::kHttpCold && call.answered) http_abort(call);
  }
  call.in_loop = false;
  let_go(call);
}

}  // namespace fastserve
