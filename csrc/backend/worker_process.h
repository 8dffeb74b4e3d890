// One worker process: started in a process group of its own with nothing of the server's but the descriptors that it is given,
// watched by a pidfd, ended with everything that it started.
//
// It dies with the thread that started it (PR_SET_PDEATHSIG, which the process itself asks for), so that thread must live
// at least as long; a server that is killed leaves none behind.
// Thread: one.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/status.h"

namespace fastserve {

// How workers are started, from Python at registration (fastserve/worker/registration.py).
struct WorkerCommand {
  std::vector<std::string> arguments;              // [0] is the interpreter's path
  std::map<std::string, std::string> environment;  // over the server's own
};

class WorkerProcess {
 public:
  struct Pipes {
    UniqueFd out, err;  // read ends, non-blocking
  };

  WorkerProcess() = default;
  WorkerProcess(WorkerProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
  WorkerProcess& operator=(WorkerProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(pidfd_, other.pidfd_);
    return *this;
  }
  ~WorkerProcess();  // kills and reaps

  // `given`: what the process gets as descriptors 3, 4, ...; -1 leaves a gap. UNAVAILABLE with the reason.
  static Result<WorkerProcess> start(const WorkerCommand& command, const std::vector<int>& given,
                                     Pipes& pipes);

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }  // readable when it ended
  bool running() const { return pid_ > 0; }
  void signal(int number) const;        // to the process alone
  void signal_group(int number) const;  // to everything in its group
  // It ended (pidfd is readable): ends the rest of its group, reaps it and says how it died.
  std::string reap();

 private:
  pid_t pid_ = -1;
  UniqueFd pidfd_;
};

}  // namespace fastserve
