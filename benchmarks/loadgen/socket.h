// One non-blocking TCP connection of the load client: bytes out, bytes in. No protocol.
#pragma once

#include <string>
#include <string_view>

namespace fastserve::bench {

class Socket {
 public:
  // Connects to a numeric `host:port` (blocking). Throws std::runtime_error that names the address.
  explicit Socket(const std::string& address);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int fd() const { return fd_; }
  // Bytes to be sent: append, then flush().
  std::string& out() { return out_; }
  bool pending() const { return sent_ < out_.size(); }
  // False if the peer is gone.
  bool flush();
  // One read. The view is valid until the next call; `open` is false at the end of the stream or on an error.
  // Returns an empty view when nothing is there to be read.
  std::string_view read(bool& open);

 private:
  int fd_;
  std::string out_;
  std::size_t sent_ = 0;
};

}  // namespace fastserve::bench
