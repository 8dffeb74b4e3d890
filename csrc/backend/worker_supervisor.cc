#include "backend/worker_supervisor.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace fastserve {
namespace {

constexpr std::size_t kOpenRoom = std::size_t{1} << 20;  // for the description
constexpr Nanos kTracebackTime = 300 * kMillisecond;     // for faulthandler to write where it hangs
constexpr Nanos kTerminateTime = kSecond;                // between SIGTERM and SIGKILL

std::string seconds_text(Nanos ns) {
  std::string text = std::to_string(static_cast<double>(ns) / static_cast<double>(kSecond));
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text + " s";
}

// Threads and processes inherit the priority of who starts them, and a loader's is low: a worker that kept SCHED_IDLE would get
// no CPU at all beside a busy process.
void use_priority(int policy, int nice) {
  const sched_param none{};
  if (::sched_getscheduler(0) != policy) ::sched_setscheduler(0, policy, &none);
  ::setpriority(PRIO_PROCESS, 0, nice);
}

}  // namespace

std::string_view worker_state_name(WorkerState state) {
  constexpr std::array<std::string_view, 5> kNames{"STARTING", "UP", "WAITING", "STOPPING", "ENDED"};
  return kNames[static_cast<std::size_t>(state)];
}

WorkerSupervisor::WorkerSupervisor(std::shared_ptr<const WorkerPlan> plan, WorkerSpec worker,
                                   const std::vector<std::unique_ptr<WorkerSupervisor>>& siblings)
    : plan_(std::move(plan)),
      worker_(std::move(worker)),
      siblings_(siblings),
      title_("model '" + plan_->spec.model + "' version " + std::to_string(plan_->spec.version) +
             ": worker " + worker_.instance_name),
      log_(title_),
      command_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { run(); }) {}

WorkerSupervisor::~WorkerSupervisor() {
  begin_stop();
  thread_.join();
}

void WorkerSupervisor::begin_stop() {
  stopping_.store(true, std::memory_order_seq_cst);
  ::eventfd_write(command_.get(), 1);
}

void WorkerSupervisor::give_up() {
  given_up_.store(true, std::memory_order_seq_cst);
  begin_stop();
}

Result<WorkerDescription> WorkerSupervisor::wait_described() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return described_.has_value(); });
  return *described_;
}

WorkerReport WorkerSupervisor::report() const {
  const std::lock_guard lock(mutex_);
  return {plan_->spec.model,
          plan_->spec.version,
          worker_.instance_name,
          state_,
          pid_,
          restarts_.load(std::memory_order_relaxed),
          state_ == WorkerState::kUp || (state_ == WorkerState::kStarting && down_reason_.empty()),
          last_death_};
}

// ---- own thread --------------------------------------------------------------------------------------------------------

void WorkerSupervisor::run() {
  ::pthread_setname_np(::pthread_self(), "fs-worker");
  use_priority(plan_->policy, plan_->nice);
  start_process();
  for (;;) {
    const Nanos until = step();
    if (state_ == WorkerState::kEnded) return;  // only this thread writes it
    wait(until);
  }
}

Nanos WorkerSupervisor::step() {
  const Nanos now = monotonic_now();
  if (process_.running()) {
    log_.read(now);
    take_replies();
  }
  if (stopping_.load(std::memory_order_seq_cst)) stop_process();
  if (state_ == WorkerState::kEnded) return now;
  if (!process_.running()) {
    if (now < restart_at_) return restart_at_;
    restarts_.fetch_add(1, std::memory_order_relaxed);
    start_process();
    return process_.running() ? check_limits(now) : restart_at_;
  }
  return check_limits(now);
}

void WorkerSupervisor::wait(Nanos until) {
  if (process_.running() && !channel_->fall_asleep()) return;
  {
    const std::lock_guard lock(mutex_);
    sleeps_without_limit_ = until == kNever;
    // A batch that was sent between the look at the clocks and now.
    if (sleeps_without_limit_ && !in_flight_.empty() && plan_->limits.execute_ns != 0)
      until = monotonic_now() + plan_->limits.execute_ns;
  }
  int timeout_ms = -1;
  if (until != kNever) {
    const Nanos left = std::clamp<Nanos>(until - monotonic_now(), 0, 3600 * kSecond);
    timeout_ms = static_cast<int>((left + kMillisecond - 1) / kMillisecond);
  }
  std::array<epoll_event, 8> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  if (process_.running()) channel_->wake_up();
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<std::size_t>(i)].data.fd;
    if (fd == command_.get()) {
      eventfd_t value = 0;
      ::eventfd_read(fd, &value);
    } else if (process_.running() && fd == process_.pidfd()) {
      on_death();
    }
  }
}

void WorkerSupervisor::watch(int fd, bool edge) {
  epoll_event event{};
  event.events = EPOLLIN | (edge ? EPOLLET : 0U);
  event.data.fd = fd;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void WorkerSupervisor::start_process() {
  started_at_ = monotonic_now();
  kill_at_ = restart_at_ = kNever;
  up_since_ = 0;
  verdict_.clear();
  {
    const std::lock_guard lock(mutex_);
    state_ = WorkerState::kStarting;
  }
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  watch(command_.get(), false);
  if (const Status spawned = spawn(); !spawned.is_ok()) bury(spawned.message());
}

Status WorkerSupervisor::spawn() {
  FS_ASSIGN_OR_RETURN(auto channel, WorkerChannel::create());
  std::vector<int> given = channel.for_worker();
  UniqueFd calls;
  if (plan_->calls) calls = plan_->calls(plan_->spec.model);
  if (calls.valid()) given.push_back(calls.get());
  WorkerCommand command = plan_->command;
  command.environment["FASTSERVE_WORKER_PARENT"] = std::to_string(::getpid());
  for (const char* name :
       {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"})
    command.environment[name] = std::to_string(worker_.threads);
  WorkerProcess::Pipes pipes;
  FS_ASSIGN_OR_RETURN(process_, WorkerProcess::start(command, given, pipes));
  channel.started();
  watch(process_.pidfd(), false);
  watch(channel.bell(), true);
  watch(pipes.out.get(), false);
  watch(pipes.err.get(), false);
  log_.attach(std::move(pipes.out), std::move(pipes.err));
  const std::lock_guard lock(mutex_);
  pid_ = process_.pid();
  channel_.emplace(std::move(channel));
  // Where that fails it is gone already, and its own end says more.
  if (!send_open().is_ok()) process_.signal_group(SIGKILL);
  return Status::ok();
}

// The lock is held.
Status WorkerSupervisor::send_open() {
  record_.clear();
  write_worker_spec(plan_->spec, worker_, record_);
  InFlight open;
  open.room_at = worker::aligned(record_.size());
  open_room_at_ = open.room_at;
  open.block = open_block_ = WorkerBlock::make(plan_->memory, open.room_at + kOpenRoom);
  if (open.block == nullptr) return unavailable("no memory to tell it about its model");
  std::memcpy(open.block->data(), record_.bytes().data(), record_.size());
  worker::WorkCell cell = cell_of(open, worker::ToWorker::kOpen, record_.size());
  return channel_->send(cell, *plan_->memory);
}

// When the next limit of time is; what passed one already is ended.
Nanos WorkerSupervisor::check_limits(Nanos now) {
  if (kill_at_ <= now) process_.signal_group(SIGKILL);
  if (kill_at_ != kNever) return kill_at_ <= now ? now + kSecond : kill_at_;
  const WorkerLimits& limits = plan_->limits;
  Nanos due = kNever;
  std::string what;
  {
    const std::lock_guard lock(mutex_);
    if (state_ == WorkerState::kStarting && limits.initialize_ns != 0) {
      due = started_at_ + limits.initialize_ns;
      what = "initialize took longer than " + seconds_text(limits.initialize_ns) + " (initialize_timeout_s)";
    } else if (state_ == WorkerState::kUp && !in_flight_.empty() && limits.execute_ns != 0) {
      due = std::max(in_flight_.front().since, last_reply_) + limits.execute_ns;
      what = "a batch took longer than " + seconds_text(limits.execute_ns) + " (execute_timeout_s)";
    }
  }
  if (due > now) return due;
  kill(std::move(what), true);
  return kill_at_;
}

// Ends the process; what was in flight is answered once it is reaped.
void WorkerSupervisor::kill(std::string verdict, bool ask_for_traceback) {
  if (kill_at_ != kNever) return;
  verdict_ = std::move(verdict);
  up_.store(false, std::memory_order_relaxed);
  if (ask_for_traceback) process_.signal(SIGABRT);  // faulthandler writes where every thread is
  if (!ask_for_traceback) process_.signal_group(SIGKILL);
  kill_at_ = monotonic_now() + kTracebackTime;
}

void WorkerSupervisor::on_death() {
  if (verdict_.empty()) take_replies();  // what it said before
  log_.finish(monotonic_now());
  const std::string how = process_.reap();
  bury(verdict_.empty() ? how : verdict_);
}

// The process is gone, or there never was one.
void WorkerSupervisor::bury(const std::string& why) {
  const Nanos now = monotonic_now();
  process_ = WorkerProcess();
  const bool stopping = stopping_.load(std::memory_order_relaxed);
  const Nanos delay = policy_.died(up_since_, answered_, now);
  std::deque<InFlight> lost;
  std::vector<Batch*> held;
  {
    const std::lock_guard lock(mutex_);
    const bool first_start = !described_ || !described_->is_ok();
    if (!described_) described_ = Status(Code::kFailedPrecondition, title_ + ": " + why + log_.tail());
    changed_.notify_all();
    state_ = stopping || first_start ? WorkerState::kEnded : WorkerState::kWaiting;
    up_.store(false, std::memory_order_relaxed);
    pid_ = -1;
    open_block_.reset();
    channel_.reset();
    lost.swap(in_flight_);
    last_death_ = why;
    if (delay == 0 && state_ == WorkerState::kWaiting) {
      state_ = WorkerState::kStarting;
      down_reason_.clear();
    } else {
      held.swap(held_);
      down_reason_ = why + "; the next one starts after a back-off of " + seconds_text(delay);
    }
  }
  restart_at_ = now + delay;
  if (!stopping) {
    log_.say(LogLevel::kError, why + "; " + std::to_string(lost.size()) + " batches were in flight; " +
                                   (state_ == WorkerState::kEnded ? "not started again"
                                    : delay == 0                  ? "starting the next one"
                                                 : "starting the next one in " + seconds_text(delay)));
  }
  const Status status = unavailable(title_ + ": " + why + log_.tail());
  for (const InFlight& entry : lost) entry.batch->finish(status);
  for (Batch* batch : held) batch->finish(status);
}

// Again and again until it is gone.
void WorkerSupervisor::stop_process() {
  const Nanos now = monotonic_now();
  if (!process_.running()) {
    const std::lock_guard lock(mutex_);
    state_ = WorkerState::kEnded;
    if (!described_) described_ = Status(Code::kCancelled, title_ + ": stopped");
    changed_.notify_all();
    return;
  }
  if (!stop_sent_ && given_up_.load(std::memory_order_seq_cst)) {
    stop_sent_ = terminated_ = true;
    return kill("its load was given up", true);
  }
  if (!stop_sent_) {
    stop_sent_ = true;
    const std::lock_guard lock(mutex_);
    const bool was_up = state_ == WorkerState::kUp;
    state_ = WorkerState::kStopping;
    up_.store(false, std::memory_order_relaxed);
    worker::WorkCell cell;
    cell.kind = worker::ToWorker::kStop;
    const bool told = was_up && channel_->send(cell, *plan_->memory).is_ok();
    const Nanos patience = plan_->limits.finalize_ns;
    kill_at_ = !told ? now : patience == 0 ? kNever : now + patience;
  }
  if (kill_at_ > now || terminated_) return;
  terminated_ = true;
  if (up_since_ != 0) log_.say(LogLevel::kWarning, "did not finish in time (finalize_timeout_s): SIGTERM");
  process_.signal_group(SIGTERM);
  kill_at_ = now + kTerminateTime;
}

}  // namespace fastserve
