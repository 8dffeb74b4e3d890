// Cold calls of all I/O threads on their way to the loop that answers them (Python's), and the news that a client of one is
// gone. In order: the end of a call never overtakes its begin, nor its memory's next use.
// Thread: push from I/O threads; take_all from the answering one.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "base/fd.h"
#include "frontend/cold_port.h"

namespace fastserve {

struct ColdEvent {
  enum class Kind : std::uint8_t { kCall, kCancelled };
  Kind kind;
  Call* call;
  ColdPort* port;  // where the call is answered
};

class ColdQueue {
 public:
  ColdQueue();                                      // throws std::system_error
  int event_fd() const { return event_fd_.get(); }  // readable when there is something to take
  void push(std::span<const ColdEvent> events);
  std::vector<ColdEvent> take_all();

 private:
  UniqueFd event_fd_;
  std::mutex mutex_;
  std::vector<ColdEvent> events_;
};

}  // namespace fastserve
