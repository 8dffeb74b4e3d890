#include "batch/arena.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/samples.h"

namespace fastserve {
namespace {

// Counts what is out, so that a test sees what was freed.
class CountingAllocator final : public HostAllocator {
 public:
  std::byte* allocate(std::size_t bytes) override {
    if (bytes > most) return nullptr;
    ++out;
    return plain_host_allocator().allocate(bytes);
  }
  void free(std::byte* memory, std::size_t bytes) override {
    --out;
    plain_host_allocator().free(memory, bytes);
  }
  std::atomic<int> out{0};
  std::size_t most = SIZE_MAX;
};

TEST(BatchArena, HandsTheSameBatchOutAgain) {
  auto* arena = new BatchArena(row_signature(4), plain_host_allocator(), 2);
  Batch* first = arena->acquire();
  EXPECT_EQ(arena->out(), 1);
  { const BatchRef hold(first); }
  EXPECT_EQ(arena->out(), 0);
  EXPECT_EQ(arena->acquire(), first);
  BatchArena::give_back(*first);
  arena->close();
}

TEST(BatchArena, GrowsOnDemandAndFreesTheSurplus) {
  CountingAllocator memory;
  auto* arena = new BatchArena(row_signature(4), memory, 2);
  {
    std::vector<BatchRef> kept;
    for (int i = 0; i < 10; ++i) {
      Batch* batch = arena->acquire();
      ASSERT_NE(batch->output_memory(0, 64), nullptr);
      kept.emplace_back(batch);
    }
    EXPECT_EQ(memory.out, 10);
  }
  Batch* again = arena->acquire();
  EXPECT_EQ(memory.out, 2);
  BatchArena::give_back(*again);
  arena->close();
  EXPECT_EQ(memory.out, 0);
}

TEST(BatchArena, KeptResultsOutliveTheInstance) {
  CountingAllocator memory;
  auto* arena = new BatchArena(row_signature(4), memory, 2);
  Batch* batch = arena->acquire();
  std::byte* data = batch->output_memory(0, 8);
  std::memset(data, 7, 8);
  BatchRef kept(batch);
  arena->close();
  EXPECT_EQ(data[7], std::byte{7});
  EXPECT_EQ(memory.out, 1);
  kept.release();
  EXPECT_EQ(memory.out, 0);
}

TEST(BatchArena, DeviceMemoryLivesAsLongAsTheResult) {
  auto* arena = new BatchArena(row_signature(4), plain_host_allocator(), 2);
  const auto device = std::make_shared<int>(1);
  Batch* batch = arena->acquire();
  batch->device_memory = device;
  BatchRef kept(batch);
  EXPECT_EQ(device.use_count(), 2);
  kept.release();
  arena->close();
  EXPECT_EQ(device.use_count(), 1);
}

TEST(BatchArena, NoMemoryIsResourceExhausted) {
  CountingAllocator memory;
  memory.most = 16;
  auto* arena = new BatchArena(row_signature(4), memory, 2);
  Batch* batch = arena->acquire();
  RowRequest a(nullptr, 2);
  RowRequest b(nullptr, 2);
  for (RowRequest* r : {&a, &b}) {
    prepare(r->request, row_signature(4));
    batch->add(&r->request);
  }
  EXPECT_EQ(batch->gather(4).code(), Code::kResourceExhausted);
  EXPECT_EQ(batch->output_memory(0, 17), nullptr);
  BatchArena::give_back(*batch);
  arena->close();
}

TEST(BatchArena, BatchesComeBackOnAnyThread) {
  auto* arena = new BatchArena(row_signature(4), plain_host_allocator(), 4);
  Intake<Batch> to_release;
  std::atomic<bool> done{false};
  std::thread releaser([&] {
    while (!done || !to_release.empty()) {
      for (Batch* batch = to_release.take_all(); batch != nullptr;) {
        Batch* next = batch->next_in_intake;
        batch->on_recycle(*batch);
        batch = next;
      }
    }
  });
  for (int i = 0; i < 20'000; ++i) to_release.push(arena->acquire());
  done = true;
  releaser.join();
  EXPECT_EQ(arena->out(), 0);
  arena->close();
}

}  // namespace
}  // namespace fastserve
