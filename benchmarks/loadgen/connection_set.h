// The connections of one load client and the epoll set that they are in. One thread.
#pragma once

#include <sys/epoll.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "loadgen/connection.h"

namespace fastserve::bench {

class ConnectionSet {
 public:
  ConnectionSet();
  ~ConnectionSet();
  ConnectionSet(const ConnectionSet&) = delete;
  ConnectionSet& operator=(const ConnectionSet&) = delete;

  void add(std::unique_ptr<Connection> connection);  // its index: how many there were
  void watch(int fd, std::uint64_t key);             // something else; `key` from 2^32 on

  std::size_t size() const { return connections_.size(); }
  Connection* operator[](std::size_t index) const { return connections_[index].get(); }  // null once dropped

  // Sends what is queued, and looks out for room in the socket while there is none. False: the connection is over.
  bool send(std::size_t index);
  void drop(std::size_t index);

  // What can be read, by index or key (epoll_event::data.u64); empty after `timeout_ms` (-1: never) or a signal. Throws
  // std::runtime_error when the kernel refuses.
  std::span<const epoll_event> wait(int timeout_ms);

 private:
  int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<char> waits_for_room_;  // by index
  std::vector<epoll_event> events_;
};

}  // namespace fastserve::bench
