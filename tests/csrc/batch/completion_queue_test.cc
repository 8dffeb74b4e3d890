#include "queue/completion_queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <memory>
#include <thread>

#include "batch/request.h"

namespace fastserve {
namespace {

bool readable(int fd) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, 0) == 1;
}

TEST(CompletionQueue, TheFirstOfABurstMakesTheEventFdReadable) {
  CompletionQueue queue(CompletionQueue::Wake::kEventFd);
  std::array<Response, 3> responses;
  EXPECT_FALSE(readable(queue.event_fd()));
  for (Response& response : responses) queue.deliver(&response);
  EXPECT_TRUE(readable(queue.event_fd()));
  Response* taken = queue.take_all();
  for (Response& response : responses) {
    ASSERT_EQ(taken, &response);
    taken = taken->next_in_intake;
  }
  EXPECT_FALSE(readable(queue.event_fd()));
  EXPECT_EQ(queue.take_all(), nullptr);
}

TEST(CompletionQueue, WaitEndsWithAResponseOrInTime) {
  CompletionQueue queue(CompletionQueue::Wake::kFutex);
  EXPECT_EQ(queue.event_fd(), -1);
  EXPECT_EQ(queue.wait(monotonic_now() + kMillisecond), nullptr);
  Response response;
  std::thread deliverer([&] { queue.deliver(&response); });
  EXPECT_EQ(queue.wait(kNever), &response);
  deliverer.join();
}

// The owner destroys its queue as soon as it has its answer, while the deliverer may still be waking it. (ASan, TSan)
TEST(CompletionQueue, MayBeDestroyedAsSoonAsTheLastResponseIsTaken) {
  for (const auto wake : {CompletionQueue::Wake::kFutex, CompletionQueue::Wake::kEventFd}) {
    std::atomic<CompletionQueue*> target{nullptr};
    std::atomic<bool> stop{false};
    Response response;
    std::thread deliverer([&] {
      while (!stop) {
        if (CompletionQueue* queue = target.exchange(nullptr)) {
          queue->deliver(&response);
        } else {
          std::this_thread::yield();
        }
      }
    });
    for (int i = 0; i < 800; ++i) {
      auto queue = std::make_unique<CompletionQueue>(wake);
      target = queue.get();
      while (queue->take_all() == nullptr) std::this_thread::yield();
    }
    stop = true;
    deliverer.join();
  }
}

}  // namespace
}  // namespace fastserve
