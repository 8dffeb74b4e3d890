// The front end of one loop: its connections, its completions, its calls. Everything that a driver needs; knows no event
// loop and no Python. One thread; responses arrive from others through the completion queue and its eventfd.
//
//   socket readable   -> received(connection, bytes)
//   event_fd readable -> on_wake()
//   then              -> take_cold(), take_cancelled(), take_attention()
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "frontend/connection.h"
#include "queue/completion_queue.h"

namespace fastserve {

struct IoLimits {
  std::size_t max_message_bytes = std::size_t{64} << 20;  // a gRPC message, a REST body
  std::uint32_t max_streams = 1024;                       // concurrent calls per gRPC connection
};

struct IoCounters {
  std::uint64_t bytes_received = 0;
  std::uint64_t bytes_sent = 0;
  std::array<std::uint64_t, 17>
      refused_by_code{};  // hot calls answered without having reached a model, by status code
};

class IoLoop {
 public:
  IoLoop(Engine& engine, IoLimits limits);
  ~IoLoop();  // closes all connections, waits for the calls that the engine still has
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  int event_fd() const { return completions_.event_fd(); }

  // --- connections. `driver` is the driver's own object for it.
  Connection* open_grpc(int fd, void* driver);
  Connection* open_http(int fd, void* driver);
  void received(Connection& connection, std::span<const std::byte> bytes);
  void end_of_input(Connection& connection);
  void writable(Connection& connection);  // the driver's own buffer is empty again
  void close(Connection* connection);     // the socket is gone; calls in flight are cancelled
  void shutdown();
  void tick();

  // --- the rest of a pass
  void on_wake();
  std::vector<Call*> take_cold() { return std::exchange(cold_, {}); }
  std::vector<Call*> take_cancelled() { return std::exchange(cancelled_, {}); }
  std::vector<Connection*> take_attention();

  // --- answers of cold calls; no-ops for a call whose client is gone. After the last one comes done().
  void grpc_send(Call& call, std::span<const std::byte> message);
  void grpc_finish(Call& call, Code code, std::string_view message,
                   std::span<const std::pair<std::string, std::string>> trailers);
  void http_respond(Call& call, int status, std::span<const std::pair<std::string, std::string>> headers,
                    std::span<const std::byte> body);
  void http_begin(Call& call, int status, std::span<const std::pair<std::string, std::string>> headers);
  void http_chunk(Call& call, std::span<const std::byte> piece);
  void http_end(Call& call);
  void http_abort(Call& call);  // in the middle of a streamed answer: the client sees a cut connection
  void done(Call& call);        // the driver lets go of the call

  std::size_t grpc_connections() const { return grpc_connections_; }
  std::size_t http_connections() const { return connections_.size() - grpc_connections_; }
  std::size_t open_calls() const;
  const IoCounters& counters() const { return counters_; }
  bool draining() const { return draining_; }

  // --- for connections
  Engine& engine() { return engine_; }
  const IoLimits& limits() const { return limits_; }
  Call& new_call(Connection& connection, CallKind kind);
  void let_go(Call& call);    // recycles it when nobody holds it any more
  Status submit(Call& call);  // OK: call.in_engine
  void abandon(Call& call);   // its stream ended without an answer: cancel where it is
  void add_cold(Call& call);
  std::shared_ptr<const void> keep_for_output(Call& call);
  OutMessage& scratch_message() { return scratch_message_; }
  void count_sent(std::size_t bytes) { counters_.bytes_sent += bytes; }
  void count_refused(Code code) { ++counters_.refused_by_code[static_cast<std::size_t>(code)]; }
  void mark_dirty(Connection& connection);

 private:
  Connection* adopt(std::unique_ptr<Connection> connection);
  void deliver(Response& response, Nanos now);
  void finish_pass();
  void flush(Connection& connection);

  Engine& engine_;
  const IoLimits limits_;
  CompletionQueue completions_;
  Submitter submitter_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::size_t grpc_connections_ = 0;
  std::vector<std::unique_ptr<Call>> all_calls_;
  std::vector<Call*> idle_calls_;
  std::size_t idle_bytes_ = 0;  // message capacity that idle calls keep
  std::size_t in_engine_ = 0;
  std::vector<Call*> cold_;
  std::vector<Call*> cancelled_;
  std::vector<Connection*> dirty_;  // have output to flush at the end of the pass
  std::vector<Connection*> attention_;
  OutMessage scratch_message_;  // encoded into, then moved from: keeps its capacity
  IoCounters counters_;
  bool draining_ = false;
};

}  // namespace fastserve
