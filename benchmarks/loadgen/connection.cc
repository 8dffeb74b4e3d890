#include "loadgen/connection.h"

namespace fastserve::bench {

bool Connection::send() { return encode() && (socket_.flush() || fail("the server closed the connection")); }

bool Connection::receive() {
  bool open = true;
  const std::string_view bytes = socket_.read(open);
  if (!bytes.empty() && !decode(bytes)) return fail("broken reply");
  return open || fail("the server closed the connection");
}

bool Connection::fail(std::string reason) {
  if (failure_.empty()) failure_ = std::move(reason);
  return false;
}

void Connection::reply(const Reply& reply) {
  --in_flight_;
  on_reply_(reply);
}

}  // namespace fastserve::bench
