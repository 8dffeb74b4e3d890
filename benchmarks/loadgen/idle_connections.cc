// Opens many connections, asks once on each, then says nothing on them: company for a server that is measured.
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/closed_loop.h"
#include "common/process.h"
#include "common/tool.h"
#include "loadgen/connection.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp =
    R"(idle_connections: holds connections open that have asked once and ask no more.

  idle_connections (--grpc HOST:PORT | --rest HOST:PORT) --connections N [options]

Opens N connections one after the other and waits for the reply to one request on each. Then it prints {"open": N} and holds
them, answering what the protocol asks (SETTINGS, PING), until its standard input ends. At last it prints
{"open": how many are still there, "broken": how many are not}: exit code 1 if any broke or was refused.
Options: those of loadgen (--help there) that say what is asked, and --stall.
)";

class Holder {
 public:
  Holder(std::string grpc, std::string rest, const LoadOptions& options)
      : grpc_(std::move(grpc)),
        rest_(std::move(rest)),
        options_(options),
        payload_(options.input, options.seed),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~Holder() { close(epoll_); }

  // Throws std::runtime_error when a connection is refused or its request fails.
  void open_all() {
    for (int i = 0; i < options_.connections; ++i) open_one();
  }
  void hold_until_end_of_input() {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = nullptr;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    while (true) {
      std::array<epoll_event, 64> events{};
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      if (n < 0 && errno != EINTR) throw std::runtime_error("epoll_wait");
      for (int i = 0; i < n; ++i) {
        void* const found = events[static_cast<std::size_t>(i)].data.ptr;
        if (found == nullptr) return;
        serve(*static_cast<std::unique_ptr<Connection>*>(found));
      }
    }
  }
  std::size_t open() const { return connections_.size() - broken_; }
  std::size_t broken() const { return broken_; }

 private:
  void open_one();
  void serve(std::unique_ptr<Connection>& connection) {
    if (connection->receive() && connection->send()) return;
    connection.reset();
    ++broken_;
  }

  const std::string grpc_, rest_;
  const LoadOptions& options_;
  const Payload payload_;
  const int epoll_;
  std::string error_;
  std::vector<std::unique_ptr<std::unique_ptr<Connection>>> connections_;  // null inside: broken
  std::size_t broken_ = 0;
};

void Holder::open_one() {
  const auto on_reply = [this](const Reply& reply) { error_ = reply.error; };
  std::unique_ptr<Connection> connection =
      grpc_.empty() ? make_rest_connection(rest_, options_, payload_, RestForm::kBinary, false, on_reply)
                    : make_grpc_connection(grpc_, options_, payload_, on_reply);
  connection->submit(connections_.size());
  bool alive = connection->send();
  while (alive && connection->in_flight() > 0) {
    pollfd ready{connection->fd(), static_cast<short>(POLLIN | (connection->wants_write() ? POLLOUT : 0)), 0};
    if (poll(&ready, 1, static_cast<int>(options_.stall_s * 1e3)) == 0) {
      throw std::runtime_error("no reply within --stall");
    }
    alive = connection->receive() && connection->send();
  }
  const std::string which = "connection " + std::to_string(connections_.size() + 1) + ": ";
  if (!alive) throw std::runtime_error(which + connection->failure());
  if (!error_.empty()) throw std::runtime_error(which + error_);
  connections_.push_back(std::make_unique<std::unique_ptr<Connection>>(std::move(connection)));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = connections_.back().get();
  epoll_ctl(epoll_, EPOLL_CTL_ADD, (*connections_.back())->fd(), &event);
}

int run(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const std::string grpc = args.text("--grpc");
  const std::string rest = args.text("--rest");
  const LoadOptions options = LoadOptions::parse(args);
  args.finish();
  if (grpc.empty() == rest.empty()) args.fail("want one of --grpc and --rest (see --help)");
  if (!pin_to_cpu(options.cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(options.cpu));
  Holder holder(grpc, rest, options);
  holder.open_all();
  std::printf("%s\n", JsonObject().add("open", holder.open()).str().c_str());
  std::fflush(stdout);
  holder.hold_until_end_of_input();
  std::printf("%s\n", JsonObject().add("open", holder.open()).add("broken", holder.broken()).str().c_str());
  return holder.broken() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
