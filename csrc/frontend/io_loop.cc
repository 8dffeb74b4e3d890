#include "frontend/io_loop.h"

#include <poll.h>

#include <algorithm>

#include "frontend/grpc_connection.h"
#include "frontend/http_connection.h"

namespace fastserve {
namespace {

// Message buffers that idle calls may keep between them: enough for a few hundred image tensors in flight, so that large
// requests do not fault their pages in anew each time.
constexpr std::size_t kIdleBytes = std::size_t{64} << 20;
constexpr std::size_t kSmallBytes = 16 * 1024;

template <class T>
void erase_from(std::vector<T*>& list, const T* item) {
  std::erase_if(list, [item](const T* each) { return each == item; });
}

}  // namespace

IoLoop::IoLoop(Engine& engine, IoLimits limits)
    : engine_(engine), limits_(limits), completions_(CompletionQueue::Wake::kEventFd), submitter_(engine) {}

IoLoop::~IoLoop() {
  while (!connections_.empty()) close(connections_.back().get());
  submitter_.flush();
  while (in_engine_ > 0) {
    pollfd ready{completions_.event_fd(), POLLIN, 0};
    ::poll(&ready, 1, -1);
    on_wake();
  }
}

Connection* IoLoop::adopt(std::unique_ptr<Connection> connection) {
  Connection* opened = connection.get();
  connections_.push_back(std::move(connection));
  opened->opened(monotonic_now());
  if (draining_) opened->shutdown();
  flush(*opened);
  return opened;
}

Connection* IoLoop::open_grpc(int fd, void* driver) {
  ++grpc_connections_;
  return adopt(std::make_unique<GrpcConnection>(*this, fd, driver));
}

Connection* IoLoop::open_http(int fd, void* driver) {
  return adopt(std::make_unique<HttpConnection>(*this, fd, driver));
}

void IoLoop::received(Connection& connection, std::span<const std::byte> bytes) {
  counters_.bytes_received += bytes.size();
  connection.feed(bytes, monotonic_now());
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::end_of_input(Connection& connection) {
  connection.end_of_input();
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::writable(Connection& connection) {
  connection.set_driver_writes(false);
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::close(Connection* connection) {
  const auto at =
      std::ranges::find_if(connections_, [&](const auto& each) { return each.get() == connection; });
  if (at == connections_.end()) return;
  erase_from(dirty_, connection);
  erase_from(attention_, connection);
  if (dynamic_cast<GrpcConnection*>(connection) != nullptr) --grpc_connections_;
  const std::unique_ptr<Connection> doomed = std::move(*at);
  connections_.erase(at);
}

void IoLoop::shutdown() {
  draining_ = true;
  for (const auto& connection : connections_) {
    connection->shutdown();
    mark_dirty(*connection);
  }
  finish_pass();
}

void IoLoop::tick() {
  const Nanos now = monotonic_now();
  for (const auto& connection : connections_) {
    connection->tick(now);
    mark_dirty(*connection);
  }
  finish_pass();
}

void IoLoop::on_wake() {
  const Nanos now = monotonic_now();
  Response* response = completions_.take_all();
  while (response != nullptr) {
    Response* next = response->next_in_intake;
    deliver(*response, now);
    response = next;
  }
  finish_pass();
}

void IoLoop::deliver(Response& response, Nanos now) {
  if (!response.final) return;  // streaming answers need ModelStreamInfer, which does not exist yet
  Call& call = *static_cast<Call*>(response.request->owner);
  call.in_engine = false;
  --in_engine_;
  if (call.connection == nullptr || !call.stream_open) {
    let_go(call);
    return;
  }
  Connection& connection = *call.connection;
  connection.deliver(call, now);  // may recycle the call
  mark_dirty(connection);
}

// Output goes out before instances are woken: on few cores the woken thread would take the processor from us.
void IoLoop::finish_pass() {
  while (!dirty_.empty()) {
    for (Connection* connection : std::exchange(dirty_, {})) {
      connection->dirty_ = false;
      flush(*connection);
    }
  }
  submitter_.flush();
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
  }
  call.request.response.release();
  call.request.reset();
  if (idle_bytes_ + call.request.message.capacity() > kIdleBytes) call.request.message.shrink(kSmallBytes);
  idle_bytes_ += call.request.message.capacity();
  call.answered = call.finished = call.cancel_noticed = call.has_header_length = false;
  call.fields.clear();
  call.loop_object = nullptr;
  idle_calls_.push_back(&call);
}

Status IoLoop::submit(Call& call) {
  FS_RETURN_IF_ERROR(submitter_.submit(call.request));
  call.in_engine = true;
  ++in_engine_;
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

std::size_t IoLoop::open_calls() const {
  std::size_t sum = 0;
  for (const auto& connection : connections_) sum += connection->open_calls();
  return sum;
}

// --- answers of cold calls ---------------------------------------------------------------------------------------------

void IoLoop::grpc_send(Call& call, std::span<const std::byte> message) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<GrpcConnection*>(call.connection)->send(call, message);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::grpc_finish(Call& call, Code code, std::string_view message,
                         std::span<const std::pair<std::string, std::string>> trailers) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<GrpcConnection*>(call.connection)->finish(call, code, message, trailers);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::http_respond(Call& call, int status,
                          std::span<const std::pair<std::string, std::string>> headers,
                          std::span<const std::byte> body) {
  if (call.connection == nullptr || !call.stream_open) return;
  Connection& connection = *call.connection;
  static_cast<HttpConnection&>(connection).respond(call, status, headers, body);
  mark_dirty(connection);
  finish_pass();
}

void IoLoop::http_begin(Call& call, int status,
                        std::span<const std::pair<std::string, std::string>> headers) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<HttpConnection*>(call.connection)->begin(status, headers);
  mark_dirty(*call.connection);
  finish_pass();
}

void IoLoop::http_chunk(Call& call, std::span<const std::byte> piece) {
  if (call.connection == nullptr || !call.stream_open) return;
  static_cast<HttpConnection*>(call.connection)->chunk(piece);
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
  call.loop_object = nullptr;
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
