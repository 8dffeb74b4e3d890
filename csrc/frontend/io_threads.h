// The native front end: N I/O threads, their common queue of cold calls, and who gets which connection.
// Thread: any, unless a comment says otherwise. stop_listening and shutdown may be called once each; destruction waits for
// the calls that the engine still has.
#pragma once

#include <memory>
#include <vector>

#include "frontend/io_thread.h"

namespace fastserve {

class IoThreads {
 public:
  IoThreads(Engine& engine, const IoLimits& limits, int count);  // count >= 1; throws std::system_error
  ~IoThreads();
  IoThreads(const IoThreads&) = delete;
  IoThreads& operator=(const IoThreads&) = delete;

  void listen(Protocol protocol, UniqueFd socket) { threads_.front()->listen(protocol, std::move(socket)); }
  void stop_listening() { threads_.front()->stop_listening(); }
  void shutdown();

  // The answering thread.
  int event_fd() const { return cold_.event_fd(); }
  std::vector<ColdEvent> take_cold() { return cold_.take_all(); }

  std::size_t size() const { return threads_.size(); }
  const IoCounters& counters(std::size_t thread) const { return threads_[thread]->counters(); }
  std::size_t connections() const;

 private:
  void hand_out(Protocol protocol, UniqueFd socket);  // first thread

  ColdQueue cold_;
  std::vector<std::unique_ptr<IoThread>> threads_;
};

}  // namespace fastserve
