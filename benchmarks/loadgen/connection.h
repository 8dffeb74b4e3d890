// One connection of the load client with a protocol on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/closed_loop.h"
#include "loadgen/socket.h"

namespace fastserve::bench {

using OnReply = std::function<void(const Reply&)>;

class Connection {
 public:
  Connection(const std::string& address, OnReply on_reply)
      : socket_(address), on_reply_(std::move(on_reply)) {}
  virtual ~Connection() = default;

  // Queues the request `tag`; send() puts it on the wire.
  virtual void submit(std::uint64_t tag) = 0;
  // Requests this connection may have outstanding at once.
  virtual int capacity() const = 0;

  // Writes what is queued. False: the connection is over, and failure() says why.
  bool send();
  // Reads once and reports the replies that became complete. False as above.
  bool receive();

  int in_flight() const { return in_flight_; }
  int fd() const { return socket_.fd(); }
  bool wants_write() const { return socket_.pending(); }
  const std::string& failure() const { return failure_; }

 protected:
  // Turns what is queued into bytes in socket().out().
  virtual bool encode() = 0;
  virtual bool decode(std::string_view bytes) = 0;
  bool fail(std::string reason);
  void reply(const Reply& reply);

  Socket& socket() { return socket_; }
  int in_flight_ = 0;

 private:
  Socket socket_;
  OnReply on_reply_;
  std::string failure_;
};

// HTTP/2 + gRPC ModelInfer with raw_input_contents.
std::unique_ptr<Connection> make_grpc_connection(const std::string& address, const LoadOptions& options,
                                                 const Payload& payload, OnReply on_reply);

// How tensors travel over REST. kJson: as text both ways, numbers below 1 with seven digits; for --dtype FP32 only, and its
// replies are looked at no further than their status and length.
enum class RestForm { kBinary, kJson };

// HTTP/1.1 POST /v2/models/.../infer; with `pipeline`, --in-flight requests go out without waiting, otherwise one at a time.
std::unique_ptr<Connection> make_rest_connection(const std::string& address, const LoadOptions& options,
                                                 const Payload& payload, RestForm form, bool pipeline,
                                                 OnReply on_reply);

}  // namespace fastserve::bench
