#include "frontend/io_threads.h"

#include <algorithm>
#include <string>

namespace fastserve {

IoThreads::IoThreads(Engine& engine, const IoLimits& limits, int count) {
  for (int i = 0; i < count; ++i) {
    threads_.push_back(std::make_unique<IoThread>(
        engine, limits, cold_,
        [this](Protocol protocol, UniqueFd socket) { hand_out(protocol, std::move(socket)); },
        "fs-io" + std::to_string(i)));
  }
}

// The first one first: it hands sockets to the others.
IoThreads::~IoThreads() {
  for (const auto& thread : threads_) thread->stop();
}

void IoThreads::shutdown() {
  for (const auto& thread : threads_) thread->shutdown();
}

std::size_t IoThreads::connections() const {
  std::size_t sum = 0;
  for (const auto& thread : threads_) sum += thread->connections();
  return sum;
}

void IoThreads::hand_out(Protocol protocol, UniqueFd socket) {
  const auto least =
      std::ranges::min_element(threads_, {}, [](const auto& thread) { return thread->connections(); });
  (*least)->adopt(protocol, std::move(socket));
}

}  // namespace fastserve
