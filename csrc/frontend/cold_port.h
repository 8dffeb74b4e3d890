// Where the answers of cold calls go. An IoLoop is one for code on its own thread; an IoThread's port may be used from
// another thread and passes the answers on to the loop that owns the call.
//
// A call that was taken from the cold list is answered once (grpc_send* + grpc_finish, or http_respond, or http_begin +
// http_chunk* + http_end) and then given back with done(), after which it must not be touched. Answers to a client that is
// gone are dropped.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "frontend/call.h"

namespace fastserve {

class ColdPort {
 public:
  using Fields = std::span<const std::pair<std::string, std::string>>;

  virtual void grpc_send(Call& call, std::span<const std::byte> message) = 0;
  virtual void grpc_finish(Call& call, Code code, std::string_view message, Fields trailers) = 0;
  virtual void http_respond(Call& call, int status, Fields headers, std::span<const std::byte> body) = 0;
  virtual void http_begin(Call& call, int status, Fields headers) = 0;
  virtual void http_chunk(Call& call, std::span<const std::byte> piece) = 0;
  virtual void http_end(Call& call) = 0;
  // One more message of a stream of requests was dealt with: the client may send on.
  virtual void grpc_took(Call& call) = 0;
  // Gives the call back. Without an answer the client gets an error, so that it does not wait for ever.
  virtual void done(Call& call) = 0;

 protected:
  ~ColdPort() = default;
};

}  // namespace fastserve
