// Many threads at once: nothing lost, nothing crossed, nothing answered twice. Run under TSan and ASan+UBSan as well.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <deque>
#include <random>
#include <thread>

#include "engine/engine.h"
#include "support/samples.h"

namespace fastserve {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kLess = 4;  // sanitizers are slower
#else
constexpr int kLess = 1;
#endif

// One submitting thread with a window of requests, as an I/O loop has it.
class Producer {
 public:
  Producer(Engine& engine, int number, std::size_t window)
      : submitter_(engine), completions_(CompletionQueue::Wake::kFutex), number_(number) {
    for (std::size_t i = 0; i < window; ++i) free_.push_back(&samples_.emplace_back(&completions_));
  }
  ~Producer() {
    for (RowRequest& sample : samples_) sample.request.reset();
  }

  // Keeps the window full until `count` requests were accepted and answered. `change` may alter a request before it goes.
  template <class Change>
  void run(int count, Change change) {
    int accepted = 0;
    while (answered < count) {
      while (!free_.empty() && accepted < count) {
        RowRequest& sample = *free_.back();
        sample.fill(1 + (accepted + number_) % 4, number_ * 1'000'003 + accepted);
        sample.request.completions = &completions_;
        sample.request.owner = &sample;
        sample.request.owner_tag = static_cast<std::uint64_t>(accepted);
        change(sample.request);
        if (const Status status = submitter_.submit(sample.request); !status.is_ok()) {
          ++refused[static_cast<std::size_t>(status.code())];
          sample.request.reset();
          break;
        }
        free_.pop_back();
        ++accepted;
      }
      submitter_.flush();
      take(completions_.wait(free_.empty() || accepted == count ? kNever : monotonic_now()));
    }
  }

  std::array<int, 17> refused{};   // by code
  std::array<int, 17> outcomes{};  // by code
  int answered = 0;
  int wrong = 0;
  bool in_order = true;  // by submission, of those that succeeded

 private:
  void take(Response* response) {
    while (response != nullptr) {
      Response* next = response->next_in_intake;
      auto& sample = *static_cast<RowRequest*>(response->request->owner);
      ++answered;
      ++outcomes[static_cast<std::size_t>(response->status.code())];
      if (response->status.is_ok()) {
        if (!sample.echoed()) ++wrong;
        if (sample.request.owner_tag < next_tag_) in_order = false;
        next_tag_ = sample.request.owner_tag + 1;
      }
      sample.request.reset();
      free_.push_back(&sample);
      response = next;
    }
  }

  Submitter submitter_;
  CompletionQueue completions_;
  const int number_;
  std::deque<RowRequest> samples_;
  std::vector<RowRequest*> free_;
  std::uint64_t next_tag_ = 0;
};

constexpr auto kUnchanged = [](Request&) {};

int ok(const Producer& p) { return p.outcomes[0]; }

TEST(Stress, FourProducersTwoInstances) {
  constexpr int kRequests = 200'000 / kLess;
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8, 2)).is_ok());
  std::vector<std::thread> threads;
  for (int p = 0; p < 4; ++p) {
    threads.emplace_back([&, p] {
      Producer producer(engine, p, 64);
      producer.run(kRequests, kUnchanged);
      EXPECT_EQ(ok(producer), kRequests);
      EXPECT_EQ(producer.wrong, 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(engine.drain(kNever));
  const VersionStatistics s = engine.statistics("echo", 1).value();
  EXPECT_EQ(s.success.count, 4U * kRequests);
  EXPECT_EQ(s.in_flight, 0);
  EXPECT_EQ(s.pending, 0);
}

TEST(Stress, OneInstanceKeepsTheOrderWithinAPriority) {
  constexpr int kRequests = 50'000 / kLess;
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8, 1)).is_ok());
  std::vector<std::thread> threads;
  for (int p = 0; p < 2; ++p) {
    threads.emplace_back([&, p] {
      Producer producer(engine, p, 64);
      producer.run(kRequests, [p](Request& r) { r.priority = static_cast<std::uint32_t>(p + 1); });
      EXPECT_TRUE(producer.in_order);
      EXPECT_EQ(ok(producer), kRequests);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Stress, CallersOfInferShareInstancesWithTheirThreads) {
  constexpr int kRequests = 20'000 / kLess;
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8, 2)).is_ok());
  std::vector<std::thread> threads;
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&, p] {
      Submitter submitter(engine);
      CompletionQueue completions(CompletionQueue::Wake::kFutex);
      RowRequest sample(&completions);
      for (int i = 0; i < kRequests; ++i) {
        sample.fill(1 + i % 3, p * 7919 + i);
        sample.request.completions = &completions;
        ASSERT_TRUE(submitter.infer(sample.request).is_ok());
        ASSERT_TRUE(sample.echoed());
        sample.request.reset();
      }
    });
  }
  threads.emplace_back([&] {
    Producer producer(engine, 9, 32);
    producer.run(kRequests, kUnchanged);
    EXPECT_EQ(producer.wrong, 0);
  });
  for (std::thread& thread : threads) thread.join();
}

TEST(Stress, CancelAndExpiryUnderLoad) {
  constexpr int kRequests = 30'000 / kLess;
  Engine engine;
  LoadSpec spec = identity_spec(8, 2);
  spec.parameters["execute_burn_us"] = "20";
  ASSERT_TRUE(engine.load(spec).is_ok());
  std::vector<std::thread> threads;
  std::array<std::atomic<int>, 17> outcomes{};
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&, p] {
      Producer producer(engine, p, 64);
      std::mt19937 random(static_cast<unsigned>(p));
      producer.run(kRequests, [&](Request& r) {
        switch (random() % 8) {
          case 0:
            r.cancel();
            break;
          case 1:
            r.deadline = monotonic_now() + static_cast<Nanos>(random() % 200) * kMicrosecond;
            break;
          case 2:
            r.queue_timeout_ns = 1 + static_cast<Nanos>(random() % 100) * kMicrosecond;
            break;
          default:
            break;
        }
      });
      EXPECT_EQ(producer.answered, kRequests);
      EXPECT_EQ(producer.wrong, 0);
      for (std::size_t i = 0; i < outcomes.size(); ++i) outcomes[i] += producer.outcomes[i];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(outcomes[static_cast<std::size_t>(Code::kOk)], 0);
  EXPECT_GT(outcomes[static_cast<std::size_t>(Code::kCancelled)], 0);
  EXPECT_GT(outcomes[static_cast<std::size_t>(Code::kDeadlineExceeded)], 0);
  EXPECT_GT(outcomes[static_cast<std::size_t>(Code::kUnavailable)], 0);
  int all = 0;
  for (const auto& outcome : outcomes) all += outcome;
  EXPECT_EQ(all, 3 * kRequests) << "exactly one final response each";
}

TEST(Stress, ReplacedUnderLoadWithoutAFailure) {
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8, 2)).is_ok());
  std::atomic<bool> stop{false};
  std::atomic<int> served{0};
  std::vector<std::thread> threads;
  for (int p = 0; p < 2; ++p) {
    threads.emplace_back([&, p] {
      while (!stop) {
        Producer producer(engine, p, 32);
        producer.run(2'000 / kLess, kUnchanged);
        EXPECT_EQ(ok(producer), 2'000 / kLess);
        EXPECT_EQ(producer.refused, (std::array<int, 17>{}));
        EXPECT_EQ(producer.wrong, 0);
        served += producer.answered;
      }
    });
  }
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(engine.load(identity_spec(8, 1 + i % 3)).is_ok());
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(served, 0);
}

TEST(Stress, UnloadAndLoadUnderLoadAnswersOrRefusesEverything) {
  Engine engine;
  ASSERT_TRUE(engine.load(identity_spec(8, 2)).is_ok());
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int p = 0; p < 2; ++p) {
    threads.emplace_back([&, p] {
      Submitter submitter(engine);
      CompletionQueue completions(CompletionQueue::Wake::kFutex);
      RowRequest sample(&completions);
      while (!stop) {
        sample.fill(1, p);
        sample.request.completions = &completions;
        const auto response = submitter.infer(sample.request);
        if (response.is_ok()) {
          const Code code = response.value()->status.code();
          EXPECT_TRUE(code == Code::kOk ? sample.echoed() : code == Code::kUnavailable);
        } else {
          EXPECT_EQ(response.status().code(), Code::kNotFound);
        }
        sample.request.reset();
      }
    });
  }
  for (int i = 0; i < 60; ++i) {
    EXPECT_TRUE(engine.unload("echo", 1, i % 2 == 0 ? kNever : 0).is_ok());
    EXPECT_TRUE(engine.load(identity_spec(8, 2)).is_ok());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(Stress, TheEngineGoesDownWhileRequestsWait) {
  for (int round = 0; round < 10; ++round) {
    CompletionQueue completions(CompletionQueue::Wake::kFutex);
    std::deque<RowRequest> samples;
    std::thread owner;
    {
      Engine engine;
      LoadSpec spec = identity_spec(2, 1);
      spec.parameters["execute_delay_us"] = "300";
      ASSERT_TRUE(engine.load(spec).is_ok());
      Submitter submitter(engine);
      for (int i = 0; i < 40; ++i) {
        ASSERT_TRUE(submitter.submit(samples.emplace_back(&completions, 1, i).request).is_ok());
      }
      submitter.flush();
      owner = std::thread([&] {
        int echoed = 0;
        for (std::size_t taken = 0; taken < samples.size();) {
          for (Response* response = completions.wait(kNever); response != nullptr; ++taken) {
            Response* next = response->next_in_intake;
            response->request->reset();
            ++echoed;
            response = next;
          }
        }
        EXPECT_EQ(echoed, 40);
      });
    }
    owner.join();
  }
}

// With the order preserved, three instances, and three producers of two priorities. The order holds within a version.
void run_ordered(bool replace) {
  constexpr int kRequests = 10'000 / kLess;
  Engine engine;
  LoadSpec spec = identity_spec(8, 3);
  spec.queue.preserve_ordering = true;
  ASSERT_TRUE(engine.load(spec).is_ok());
  std::vector<std::thread> threads;
  std::atomic<int> running{3};
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&, p] {
      Producer producer(engine, p, 64);
      producer.run(kRequests, [p](Request& r) { r.priority = static_cast<std::uint32_t>(1 + p / 2); });
      EXPECT_TRUE(producer.in_order || replace);
      EXPECT_EQ(producer.wrong, 0);
      EXPECT_EQ(ok(producer), kRequests);
      --running;
    });
  }
  while (replace && running != 0) ASSERT_TRUE(engine.load(spec).is_ok());
  for (std::thread& thread : threads) thread.join();
}

TEST(Stress, PreservedOrderHoldsWithSeveralInstancesAndPriorities) { run_ordered(false); }

TEST(Stress, ModelsThatPreserveTheOrderAreReplacedUnderLoad) { run_ordered(true); }

// Two models that share one resource and a third that needs two of another: all make progress, and unloading under load ends.
TEST(Stress, ModelsThatShareResourcesUnderLoadAndUnload) {
  constexpr int kRequests = 10'000 / kLess;
  EngineOptions options;
  options.rate_limits = {true, {{"R2", 3}}};
  Engine engine(options);
  const auto spec_of = [](std::string model, std::vector<ResourceNeed> needs, std::uint32_t priority) {
    LoadSpec spec = identity_spec(8, 2);
    spec.model = std::move(model);
    spec.groups.resize(1);
    spec.groups[0].count = 2;
    spec.groups[0].resources = std::move(needs);
    spec.groups[0].rate_priority = priority;
    return spec;
  };
  const std::array<LoadSpec, 3> specs{spec_of("a", {{"R1", false, 1}}, 1),
                                      spec_of("b", {{"R1", false, 1}, {"R2", true, 2}}, 2),
                                      spec_of("c", {{"R2", true, 2}}, 0)};
  for (const LoadSpec& spec : specs) ASSERT_TRUE(engine.load(spec).is_ok());
  std::vector<std::thread> threads;
  std::atomic<int> running{3};
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&, p] {
      Producer producer(engine, p, 32);
      std::mt19937 random(static_cast<unsigned>(p));
      producer.run(kRequests, [&](Request& r) {
        r.model_name = specs[static_cast<std::size_t>(p)].model;
        if (random() % 16 == 0) r.cancel();
        if (random() % 16 == 0)
          r.deadline = monotonic_now() + static_cast<Nanos>(random() % 500) * kMicrosecond;
      });
      EXPECT_EQ(producer.answered, kRequests);
      EXPECT_EQ(producer.wrong, 0);
      EXPECT_GT(ok(producer), kRequests / 2);
      --running;
    });
  }
  for (std::size_t i = 0; running != 0; ++i) ASSERT_TRUE(engine.load(specs[i % 3]).is_ok());
  for (std::thread& thread : threads) thread.join();
  for (const LoadSpec& spec : specs) {
    EXPECT_EQ(engine.statistics(spec.model, 1).value().expired_executed, 0U);
    EXPECT_TRUE(engine.unload(spec.model, 1).is_ok());
  }
}

}  // namespace
}  // namespace fastserve
