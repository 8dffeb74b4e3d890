// The floor of a REST request: what the kernel alone takes for the same bytes. One thread, one epoll set; takes a fixed number
// of bytes for a request without looking at them and answers each with the same bytes from a file.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/args.h"
#include "common/process.h"
#include "common/tool.h"

namespace fastserve::bench {
namespace {

constexpr std::string_view kHelp = R"(kernel_echo: reads N bytes, writes M bytes, parses nothing.

  kernel_echo --request-bytes N --reply FILE [--address 127.0.0.1:0] [--ready-file PATH] [--cpu N]

  --request-bytes N    so many bytes are a request
  --reply FILE         what each is answered with, as it stands
  --ready-file PATH    written when the server listens: {"http": "127.0.0.1:PORT"}
Ends on SIGTERM or SIGINT.
)";
constexpr std::size_t kMaxRequestBytes = std::size_t{64} << 20;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

// Blocking sockets: a write waits until the client has taken everything, a read asks not to wait.
class Echo {
 public:
  Echo(std::size_t request_bytes, std::string reply, int listener, int signals)
      : request_bytes_(request_bytes),
        reply_(std::move(reply)),
        listener_(listener),
        signals_(signals),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    watch(listener_);
    watch(signals_);
  }

  void run() {
    std::array<epoll_event, 256> events{};
    while (true) {
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      if (n < 0 && errno != EINTR) fail("epoll_wait");
      for (int i = 0; i < n; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == signals_) return;
        if (fd == listener_) {
          accept_one();
        } else if (!serve(fd)) {
          close(fd);  // takes it out of the epoll set
        }
      }
    }
  }

 private:
  void watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
  }
  void accept_one() {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (received_.size() <= static_cast<std::size_t>(fd)) received_.resize(static_cast<std::size_t>(fd) + 1);
    received_[static_cast<std::size_t>(fd)] = 0;
    watch(fd);
  }
  // False: the connection is over.
  bool serve(int fd) {
    const ssize_t n = recv(fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
    std::size_t& received = received_[static_cast<std::size_t>(fd)];
    for (received += static_cast<std::size_t>(n); received >= request_bytes_; received -= request_bytes_) {
      if (!answer(fd)) return false;
    }
    return true;
  }
  bool answer(int fd) const {
    for (std::size_t sent = 0; sent < reply_.size();) {
      const ssize_t n = send(fd, reply_.data() + sent, reply_.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno != EINTR) return false;
      if (n > 0) sent += static_cast<std::size_t>(n);
    }
    return true;
  }

  const std::size_t request_bytes_;
  const std::string reply_;
  const int listener_, signals_, epoll_;
  std::vector<std::size_t> received_;  // by socket: bytes of a request that is not whole
  std::vector<char> buffer_ = std::vector<char>(std::size_t{64} << 10);
};

int listen_on(const std::string& address, int& port) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  const std::size_t colon = address.rfind(':');
  std::uint16_t wanted = 0;
  if (colon == std::string::npos ||
      std::from_chars(address.data() + colon + 1, address.data() + address.size(), wanted).ec !=
          std::errc() ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &name.sin_addr) != 1) {
    throw std::runtime_error("--address " + address + ": want an IPv4 address and a port");
  }
  name.sin_port = htons(wanted);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  socklen_t size = sizeof(name);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&name), size) != 0 || listen(fd, 1024) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    fail(address);
  }
  port = ntohs(name.sin_port);
  return fd;
}

int run(int argc, char** argv) {
  Args args(argc, argv, kHelp);
  const std::string address = args.text("--address", "127.0.0.1:0");
  const std::string ready_file = args.text("--ready-file");
  const std::string reply_file = args.text("--reply");
  const auto request_bytes = static_cast<std::size_t>(
      args.integer("--request-bytes", 0, 0, static_cast<std::int64_t>(kMaxRequestBytes)));
  const int cpu = static_cast<int>(args.integer("--cpu", -1, -1, 1023));
  args.finish();
  if (request_bytes == 0) args.fail("want --request-bytes N (see --help)");
  if (reply_file.empty()) args.fail("want --reply FILE (see --help)");
  if (!pin_to_cpu(cpu)) args.fail("--cpu: cannot pin to CPU " + std::to_string(cpu));

  const StopSignals stop;
  int port = 0;
  const int listener = listen_on(address, port);
  Echo echo(request_bytes, read_file(reply_file), listener, signalfd(-1, &stop.set(), SFD_CLOEXEC));
  write_ready_file(ready_file, "http", port);
  std::printf("listening on 127.0.0.1:%d\n", port);
  std::fflush(stdout);
  echo.run();
  return 0;
}

}  // namespace
}  // namespace fastserve::bench

int main(int argc, char** argv) { return fastserve::bench::run_tool(fastserve::bench::run, argc, argv); }
