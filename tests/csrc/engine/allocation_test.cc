// The hot path allocates nothing once its vectors have grown: counted by replacing operator new for this program.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <new>

#include "engine/engine.h"
#include "support/samples.h"

// Sanitizers bring their own operator new.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)

namespace {
std::atomic<std::uint64_t> g_allocations{0};
}  // namespace

void* operator new(std::size_t bytes) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace fastserve {
namespace {

TEST(Allocation, NoneForARequestInSteadyState) {
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8)).is_ok());
  Submitter submitter(engine);
  CompletionQueue completions(CompletionQueue::Wake::kFutex);
  std::deque<RowRequest> samples;
  for (int i = 0; i < 16; ++i) samples.emplace_back(&completions, 1, i);
  const auto burst = [&](Nanos deadline) {
    for (RowRequest& sample : samples) {
      sample.fill(1, 7);
      sample.request.completions = &completions;
      sample.request.deadline = deadline;
      ASSERT_TRUE(submitter.submit(sample.request).is_ok());
    }
    submitter.flush();
    for (std::size_t taken = 0; taken < samples.size();) {
      for (Response* response = completions.wait(kNever); response != nullptr; ++taken) {
        Response* next = response->next_in_intake;
        response->request->reset();
        response = next;
      }
    }
  };
  const Nanos later = monotonic_now() + 1000 * kSecond;
  // Batches and the deadline heap grow to their largest at different times: long enough for all of them.
  for (int i = 0; i < 3000; ++i) burst(later);
  const std::uint64_t before = g_allocations;
  constexpr std::uint64_t kBursts = 3000;
  for (std::uint64_t i = 0; i < kBursts; ++i) burst(later);
  // Not exactly 0: how many batches are out at once depends on the threads' luck, and a new one may still be made.
  EXPECT_LT(g_allocations - before, kBursts / 20);
}

}  // namespace
}  // namespace fastserve

#endif
