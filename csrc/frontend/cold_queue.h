// Cold calls of all I/O threads on their way to the loop that answers them (Python's), what else their clients send, and the
// news that a client is gone. In order: the end of a call never overtakes its begin, nor its memory's next use.
// Thread: push from I/O threads; take_all from the answering one.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"
#include "frontend/cold_port.h"

namespace fastserve {

struct ColdEvent {
  // kMessage, kHalfClose: of a call with `takes_messages`, between its kCall and its kCancelled.
  enum class Kind : std::uint8_t { kCall, kMessage, kHalfClose, kCancelled };
  Kind kind;
  Call* call;
  ColdPort* port;       // where the call is answered
  std::string message;  // kMessage
};

class ColdQueue {
 public:
  ColdQueue();                                      // throws std::system_error
  int event_fd() const { return event_fd_.get(); }  // readable when there is something to take
  void push(std::vector<ColdEvent>& events);        // leaves it empty
  std::vector<ColdEvent> take_all();

 private:
  UniqueFd event_fd_;
  std::mutex mutex_;
  std::vector<ColdEvent> events_;
};

}  // namespace fastserve
