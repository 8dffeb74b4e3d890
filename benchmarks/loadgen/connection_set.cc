#include "loadgen/connection_set.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace fastserve::bench {
namespace {

void control(int epoll, int operation, int fd, std::uint32_t events, std::uint64_t key) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  if (epoll_ctl(epoll, operation, fd, &event) != 0) {
    throw std::runtime_error(std::string("epoll_ctl: ") + std::strerror(errno));
  }
}

}  // namespace

ConnectionSet::ConnectionSet() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

ConnectionSet::~ConnectionSet() { close(epoll_); }

void ConnectionSet::add(std::unique_ptr<Connection> connection) {
  control(epoll_, EPOLL_CTL_ADD, connection->fd(), EPOLLIN, connections_.size());
  connections_.push_back(std::move(connection));
  waits_for_room_.push_back(0);
  events_.resize(connections_.size() + 1);
}

void ConnectionSet::watch(int fd, std::uint64_t key) { control(epoll_, EPOLL_CTL_ADD, fd, EPOLLIN, key); }

bool ConnectionSet::send(std::size_t index) {
  Connection& connection = *connections_[index];
  if (!connection.send()) return false;
  if (static_cast<bool>(waits_for_room_[index]) != connection.wants_write()) {
    waits_for_room_[index] = connection.wants_write();
    control(epoll_, EPOLL_CTL_MOD, connection.fd(),
            EPOLLIN | (connection.wants_write() ? static_cast<std::uint32_t>(EPOLLOUT) : 0U), index);
  }
  return true;
}

void ConnectionSet::drop(std::size_t index) {
  connections_[index].reset();  // closing the socket takes it out of the epoll set
}

std::span<const epoll_event> ConnectionSet::wait(int timeout_ms) {
  const int n = epoll_wait(epoll_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
  if (n < 0 && errno != EINTR) throw std::runtime_error(std::string("epoll_wait: ") + std::strerror(errno));
  return {events_.data(), n < 0 ? 0 : static_cast<std::size_t>(n)};
}

}  // namespace fastserve::bench
