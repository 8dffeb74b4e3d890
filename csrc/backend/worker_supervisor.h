// Keeps one instance's worker process running: starts it, hands it batches, takes its answers, notices that it died (pidfd) or
// hangs (time limits), answers what was in flight with UNAVAILABLE, and starts the next one (RestartPolicy).
//
//   kStarting > kUp > (death) kStarting at once, or kWaiting for the back-off and then kStarting > ... > kEnded
//
// While a first restart is under way batches wait; in a back-off they go to a sibling that is up, or are refused. Nothing of a
// dead process is reused before it was reaped, so that no late write meets the next batch.
// Thread: one of its own, which reads replies, logs and clocks; submit() by whoever holds the instance; the rest as said.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backend/worker_channel.h"
#include "backend/worker_frame.h"
#include "backend/worker_log.h"
#include "backend/worker_memory.h"
#include "backend/worker_policy.h"
#include "backend/worker_process.h"

namespace fastserve {

enum class WorkerState : std::uint8_t { kStarting, kUp, kWaiting, kStopping, kEnded };
std::string_view worker_state_name(WorkerState state);

// Of the outside: metrics, `status`.
struct WorkerReport {
  std::string model;
  std::int64_t version = 0;
  std::string instance;
  WorkerState state = WorkerState::kStarting;
  pid_t pid = -1;
  std::uint64_t restarts = 0;
  bool serves = false;     // it takes batches: it is up, or a first restart is under way
  std::string last_death;  // why the last one ended
};

// The worker's end of a connection for calls to other models; invalid: there are none.
using MakeCallConnection = std::function<UniqueFd(const std::string& model)>;

// What the workers of a version share.
struct WorkerPlan {
  LoadSpec spec;
  WorkerCommand command;
  WorkerLimits limits;
  MakeCallConnection calls;
  std::shared_ptr<WorkerMemory> memory;
  int policy = 0, nice = 0;  // of the processes: sched(7)
};

class WorkerSupervisor {
 public:
  // Starts the process. `siblings` has all of the version's once loading is over, and lives as long.
  WorkerSupervisor(std::shared_ptr<const WorkerPlan> plan, WorkerSpec worker,
                   const std::vector<std::unique_ptr<WorkerSupervisor>>& siblings);
  WorkerSupervisor(const WorkerSupervisor&) = delete;
  WorkerSupervisor& operator=(const WorkerSupervisor&) = delete;
  ~WorkerSupervisor();  // begin_stop() and waits

  // Loader thread: until the first process described its model, or failed to.
  Result<WorkerDescription> wait_described();
  void begin_stop();
  void give_up();  // its load: the process is ended, and writes before where it hangs

  // Sends it, keeps it, hands it to a sibling, or finishes it with UNAVAILABLE.
  void submit(Batch& batch);

  WorkerReport report() const;  // any thread
  bool up() const { return up_.load(std::memory_order_relaxed); }

 private:
  struct InFlight {
    std::uint64_t tag = 0;
    Batch* batch = nullptr;
    std::shared_ptr<WorkerBlock> block;
    std::size_t room_at = 0;
    int rooms = 0;  // larger ones that it asked for
    Nanos since = 0;
    std::span<std::byte> room() const { return {block->data() + room_at, block->size() - room_at}; }
  };
  struct Finished {
    Batch* batch = nullptr;
    Status status;
  };
  enum class Sent : std::uint8_t { kYes, kNotUp, kFailed };

  // --- worker_submit.cc: any thread
  Sent try_send(Batch& batch, Status& why);
  Status send_locked(Batch& batch);
  worker::WorkCell cell_of(const InFlight& entry, worker::ToWorker kind, std::size_t record_bytes) const;

  // --- worker_supervisor.cc: own thread
  void run();
  Nanos step();  // what is due; when to look again
  void wait(Nanos until);
  void start_process();
  Status spawn();
  Status send_open();
  void on_death();
  void bury(const std::string& why);
  void kill(std::string verdict, bool ask_for_traceback);
  Nanos check_limits(Nanos now);
  void stop_process();
  void watch(int fd, bool edge);

  // --- worker_replies.cc: own thread
  void take_replies();
  void on_reply(const worker::ReplyCell& cell);
  void on_described(const worker::ReplyCell& cell);
  void on_done(const worker::ReplyCell& cell);
  void on_room_wanted(const worker::ReplyCell& cell);
  void become_up();
  void learn_room(const InFlight& entry, std::size_t bytes);

  const std::shared_ptr<const WorkerPlan> plan_;
  const WorkerSpec worker_;
  const std::vector<std::unique_ptr<WorkerSupervisor>>& siblings_;
  const std::string title_;  // "model 'x' version 1 worker x_0_0"

  // --- own thread
  WorkerLog log_;
  WorkerProcess process_;
  RestartPolicy policy_;
  std::shared_ptr<WorkerBlock> open_block_;  // until it described itself
  std::size_t open_room_at_ = 0;
  UniqueFd epoll_;
  std::string verdict_;  // why it was ended by us
  Nanos started_at_ = 0;
  Nanos up_since_ = 0;
  Nanos last_reply_ = 0;
  Nanos kill_at_ = kNever;  // after an order to end that may be ignored
  Nanos restart_at_ = kNever;
  bool answered_ = false;
  bool stop_sent_ = false;
  bool terminated_ = false;

  mutable std::mutex mutex_;  // guards what follows, and channel_'s sending
  std::condition_variable changed_;
  WorkerState state_ = WorkerState::kStarting;
  std::optional<WorkerChannel> channel_;
  std::optional<Result<WorkerDescription>> described_;  // the first answer
  std::deque<InFlight> in_flight_;
  std::vector<Batch*> held_;  // wait for the first restart
  std::uint64_t next_tag_ = 1;
  std::size_t dynamic_row_bytes_ = 4096;
  bool sleeps_without_limit_ = false;
  std::string down_reason_;
  std::string last_death_;
  pid_t pid_ = -1;
  worker::RecordWriter record_;

  std::atomic<bool> up_{false};
  std::atomic<bool> stopping_{false}, given_up_{false};
  std::atomic<std::uint64_t> restarts_{0};
  UniqueFd command_;  // eventfd: look at stopping_ and the limits
  std::thread thread_;
};

}  // namespace fastserve
