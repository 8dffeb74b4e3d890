#include "backend/worker_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>
#include <utility>

#include "backend/worker_policy.h"

extern char** environ;  // NOLINT: POSIX has it so

namespace fastserve {
namespace {

constexpr int kFirstGiven = 3;

struct Actions {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  Actions() {
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
  }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;
  ~Actions() {
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
  }
};

Status failed(const char* what, int error) {
  return unavailable(std::string("no worker process: ") + what + ": " + std::strerror(error));
}

Status make_pipe(UniqueFd& reader, UniqueFd& writer) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return failed("pipe", errno);
  reader = UniqueFd(ends[0]);
  writer = UniqueFd(ends[1]);
  ::fcntl(reader.get(), F_SETFL, O_NONBLOCK);
  return Status::ok();
}

// Its own copies of what is given, above the numbers that they are to get: dup2 onto one of these would lose another.
Status move_up(const std::vector<int>& given, std::vector<UniqueFd>& out) {
  const int above = kFirstGiven + static_cast<int>(given.size());
  for (const int fd : given) {
    out.emplace_back(fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, above));
    if (fd >= 0 && !out.back().valid()) return failed("fcntl", errno);
  }
  return Status::ok();
}

void set_attributes(posix_spawnattr_t& attributes) {
  sigset_t all;
  sigset_t none;
  ::sigfillset(&all);
  ::sigemptyset(&none);
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
}

std::vector<std::string> environment_of(const WorkerCommand& command) {
  std::vector<std::string> out;
  for (char** each = environ; each != nullptr && *each != nullptr; ++each) {
    const std::string_view entry = *each;
    const std::string name(entry.substr(0, entry.find('=')));
    if (!command.environment.contains(name)) out.emplace_back(entry);
  }
  for (const auto& [name, value] : command.environment) out.push_back(name + "=" + value);
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Result<WorkerProcess> WorkerProcess::start(const WorkerCommand& command, const std::vector<int>& given,
                                           Pipes& pipes) {
  UniqueFd out_writer;
  UniqueFd err_writer;
  std::vector<UniqueFd> moved;
  FS_RETURN_IF_ERROR(make_pipe(pipes.out, out_writer));
  FS_RETURN_IF_ERROR(make_pipe(pipes.err, err_writer));
  FS_RETURN_IF_ERROR(move_up(given, moved));
  Actions actions;
  ::posix_spawn_file_actions_addopen(&actions.files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions.files, out_writer.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions.files, err_writer.get(), 2);
  for (std::size_t i = 0; i < moved.size(); ++i) {
    const int number = kFirstGiven + static_cast<int>(i);
    if (moved[i].valid()) ::posix_spawn_file_actions_adddup2(&actions.files, moved[i].get(), number);
  }
  ::posix_spawn_file_actions_addclosefrom_np(&actions.files, kFirstGiven + static_cast<int>(moved.size()));
  set_attributes(actions.attributes);
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = environment_of(command);
  WorkerProcess process;
  const int error =
      ::posix_spawn(&process.pid_, arguments.front().c_str(), &actions.files, &actions.attributes,
                    pointers(arguments).data(), pointers(environment).data());
  if (error != 0) {
    process.pid_ = -1;
    return failed(arguments.front().c_str(), error);
  }
  // Nobody else waits for it, so the number is still its own.
  process.pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0)));
  if (!process.pidfd_.valid()) return failed("pidfd_open", errno);
  return process;
}

WorkerProcess::~WorkerProcess() {
  if (!running()) return;
  signal_group(SIGKILL);
  reap();
}

void WorkerProcess::signal(int number) const {
  if (running()) ::kill(pid_, number);
}

void WorkerProcess::signal_group(int number) const {
  if (running()) ::kill(-pid_, number);
}

std::string WorkerProcess::reap() {
  signal_group(SIGKILL);  // while the zombie still holds the number
  siginfo_t end{};
  int waited = 0;
  do {
    waited = ::waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED);
  } while (waited != 0 && errno == EINTR);
  pid_ = -1;
  pidfd_.reset();
  return death_text(waited == 0 ? end.si_code : 0, end.si_status);
}

}  // namespace fastserve
