// The front end of one loop: its connections, its completions, its calls. Everything that a driver needs; knows no event
// loop and no Python. One thread; responses arrive from others through the completion queue and its eventfd.
//
//   socket readable   -> received(connection, bytes)
//   event_fd readable -> on_wake()
//   then              -> take_cold(), take_cold_messages(), take_cancelled(), in this order, and take_attention()
//
// Each of these is a pass of its own: output goes to the sockets and instances are woken at its end. A driver that knows of
// several events at once puts them between begin_pass() and end_pass() and pays for one wake.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/tally.h"
#include "engine/engine.h"
#include "frontend/answer_clock.h"
#include "frontend/cold_port.h"
#include "frontend/connection.h"
#include "frontend/tls_files.h"
#include "queue/completion_queue.h"

namespace fastserve {

struct IoLimits {
  std::size_t max_message_bytes = std::size_t{64} << 20;  // a gRPC message, a REST body
  std::uint32_t max_streams = 1024;                       // concurrent calls per gRPC connection
  std::uint32_t max_stream_requests =
      256;                        // requests in work of one ModelStreamInfer; more wait at the client
  bool compress_answers = false;  // gRPC: for every client that reads gzip or deflate
  // What a gRPC client has for its preface, its first SETTINGS included (gRPC servers' default).
  Nanos preface_timeout_ns = 120 * kSecond;
  // A gRPC peer that was silent for so long is sent a PING, and closed without an answer to it (gRPC servers' defaults).
  Nanos keepalive_time_ns = 7200 * kSecond;
  Nanos keepalive_timeout_ns = 20 * kSecond;
  // gRPC: paths of cold methods that take a stream of requests. nullptr: none.
  std::shared_ptr<const std::vector<std::string>> client_streams;
  // nullptr: plain. Connections over Unix sockets are plain all the same: their file's rights guard them.
  std::shared_ptr<const TlsFiles> tls_grpc;
  std::shared_ptr<const TlsFiles> tls_http;
};

// Read by any thread.
struct IoCounters {
  Tally bytes_received;
  Tally bytes_sent;
  Tally grpc_connections;  // open now
  Tally http_connections;
  Tally grpc_accepted;
  Tally http_accepted;
  Tally open_calls;
  Tally longest_pass_ns;  // of the last seconds: as long may a socket have waited for this thread
  // Hot calls answered without having reached a model's queue, HTTP requests that could not be read, and connections that a
  // limit or a violation of HTTP/2 ended, by status code;
  // without those refused by a full queue, which the version's statistics have.
  std::array<Tally, 17> refused_by_code;
  Tally tls_handshakes;  // complete
  Tally tls_truncated;   // connections that ended without close_notify
  std::array<Tally, kTlsFailures> tls_failures;
};

class IoLoop final : public ColdPort {
 public:
  IoLoop(Engine& engine, const IoLimits& limits);
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
  void tick();  // about once a second
  void on_wake();
  void begin_pass();
  void end_pass();
  void note_pass(Nanos took);                             // by drivers that measure their passes
  std::uint64_t submitted() const { return submitted_; }  // requests that the engine took, since the start

  // --- the rest of a pass
  std::vector<Call*> take_cold() { return std::exchange(cold_, {}); }
  struct ColdMessage {
    Call* call;
    std::string bytes;
    bool half_close = false;  // instead of a message
  };
  std::vector<ColdMessage> take_cold_messages() { return std::exchange(cold_messages_, {}); }
  std::vector<Call*> take_cancelled() { return std::exchange(cancelled_, {}); }
  std::vector<Connection*> take_attention();

  // --- answers of cold calls (ColdPort)
  void grpc_send(Call& call, std::span<const std::byte> message) override;
  void grpc_finish(Call& call, Code code, std::string_view message, Fields trailers) override;
  void grpc_took(Call& call) override;
  void http_respond(Call& call, int status, Fields headers, std::span<const std::byte> body) override;
  void http_begin(Call& call, int status, Fields headers) override;
  void http_chunk(Call& call, std::span<const std::byte> piece) override;
  void http_end(Call& call) override;
  void http_abort(Call& call);  // in the middle of a streamed answer: the client sees a cut connection
  void done(Call& call) override;

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
  void add_cold_message(ColdMessage message) { cold_messages_.push_back(std::move(message)); }
  std::shared_ptr<const void> keep_for_output(Call& call);
  OutMessage& scratch_message() { return scratch_message_; }
  void count_sent(std::size_t bytes) { counters_.bytes_sent.add(bytes); }
  // Of a call that is answered without the engine; when submit refused it, before anything else is submitted.
  void count_tls_handshake() { counters_.tls_handshakes.add(1); }
  void count_tls_truncated() { counters_.tls_truncated.add(1); }
  void note_tls_failure(const Connection& connection, const TlsSession& session);
  void count_refused(Code code) {
    if (!std::exchange(refusal_counted_, false))
      counters_.refused_by_code[static_cast<std::size_t>(code)].add(1);
  }
  void mark_dirty(Connection& connection);
  void forget_calls(std::size_t count) { counters_.open_calls.subtract(count); }  // of a connection that goes

 private:
  Connection* adopt(std::unique_ptr<Connection> connection, const TlsFiles* tls, TlsProtocols protocols);
  void deliver(Response& response, Nanos now);
  void enter() { completions_.keep_awake(); }  // every pass begins with it and ends with finish_pass
  void finish_pass();
  bool take_responses();
  void flush(Connection& connection);

  Engine& engine_;
  const IoLimits limits_;
  CompletionQueue completions_;
  Submitter submitter_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Call>> all_calls_;
  std::vector<Call*> idle_calls_;
  std::size_t idle_bytes_ = 0;  // message capacity that idle calls keep
  std::size_t in_engine_ = 0;
  std::uint64_t submitted_ = 0;
  std::vector<Call*> cold_;
  std::vector<ColdMessage> cold_messages_;
  std::vector<Call*> cancelled_;
  std::vector<Connection*> dirty_;  // have output to flush at the end of the pass
  std::vector<Connection*> flushing_;
  std::vector<Connection*> attention_;
  AnswerClock answers_;
  Nanos received_at_ = 0;         // the last bytes of any connection
  bool refusal_counted_ = false;  // by the engine, of the call that submit refused last
  OutMessage scratch_message_;    // encoded into, then moved from: keeps its capacity
  IoCounters counters_;
  static constexpr std::size_t kPassWindows = 10;  // longest_pass_ns looks back this many ticks
  std::array<Nanos, kPassWindows> longest_passes_{};
  std::size_t pass_window_ = 0;
  Nanos tls_failure_logged_at_ = 0;
  std::uint64_t tls_failures_not_logged_ = 0;
  bool in_pass_ = false;
  bool draining_ = false;
};

}  // namespace fastserve
