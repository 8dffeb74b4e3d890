// What every backend must do, as a typed suite. A backend's test has a subject and one line:
//
//   struct IdentitySubject {
//     static Backend& backend();
//     static LoadSpec good();                // loads; batches when `max_batch_rows` > 0
//     static std::vector<LoadSpec> wrong();  // do not load, by the author's fault
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Identity, BackendConformance, IdentitySubject);
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "backend/batch_run.h"

namespace fastserve::test {

template <class Subject>
class BackendConformance : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded = Subject::backend().load(Subject::good(), {});
    ASSERT_TRUE(loaded.is_ok()) << loaded.status().message();
    model_ = std::move(loaded).value();
  }

  std::unique_ptr<BackendInstance> instance(int index) {
    auto made = model_->make_instance(index);
    EXPECT_TRUE(made.is_ok()) << made.status().message();
    return made.is_ok() ? std::move(made).value() : nullptr;
  }

  std::int64_t most_rows() const { return std::max<std::int64_t>(model_->signature().max_batch_rows, 1); }

  // One, a few, and all that fit.
  std::vector<std::int64_t> row_counts() const {
    std::vector<std::int64_t> rows = {1};
    if (most_rows() >= 3) rows.push_back(3);
    if (most_rows() > 1) rows.push_back(most_rows());
    return rows;
  }

  void run_zeros(BackendInstance& on, std::int64_t rows) {
    BatchRun run(model_->signature());
    run.add_zeros(rows);
    const Status status = run.run(on, bucket_for(*model_, rows));
    ASSERT_TRUE(status.is_ok()) << status.message();
    ASSERT_TRUE(run.response(0).status.is_ok()) << run.response(0).status.message();
    EXPECT_EQ(run.finishes(), 1);
    check_outputs(run, 0, rows);
  }

  void check_outputs(const BatchRun& run, std::size_t request, std::int64_t rows) {
    const Signature& signature = model_->signature();
    const auto& outputs = run.response(request).outputs;
    ASSERT_EQ(outputs.size(), signature.outputs.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const TensorSpec& spec = signature.outputs[i];
      EXPECT_EQ(outputs[i].dtype, spec.dtype) << spec.name;
      ASSERT_EQ(outputs[i].shape.rank(), spec.shape.rank()) << spec.name;
      if (signature.batches()) {
        EXPECT_EQ(outputs[i].shape[0], rows) << spec.name;
      }
      for (std::size_t d = signature.batches() ? 1 : 0; d < spec.shape.rank(); ++d) {
        if (spec.shape[d] < 0) continue;
        EXPECT_EQ(outputs[i].shape[d], spec.shape[d]) << spec.name;
      }
      if (spec.dtype != DType::kBytes) {
        EXPECT_EQ(outputs[i].data.size(), outputs[i].shape.byte_count(spec.dtype).value_or(0)) << spec.name;
      }
    }
  }

  std::unique_ptr<LoadedModel> model_;
};
TYPED_TEST_SUITE_P(BackendConformance);

TYPED_TEST_P(BackendConformance, SaysWhatItIs) {
  EXPECT_FALSE(TypeParam::backend().name().empty());
  EXPECT_FALSE(this->model_->platform().empty());
  EXPECT_FALSE(this->model_->signature().inputs.empty());
  EXPECT_FALSE(this->model_->signature().outputs.empty());
  EXPECT_GE(this->model_->instance_count(), 1);
  EXPECT_TRUE(this->model_->properties().contains("device"));
}

TYPED_TEST_P(BackendConformance, BucketsAscendToTheMost) {
  const auto buckets = this->model_->buckets();
  if (buckets.empty()) return;
  EXPECT_TRUE(std::ranges::is_sorted(buckets, std::less_equal<>()));
  EXPECT_GE(buckets.front(), 1);
  EXPECT_EQ(buckets.back(), this->most_rows());
}

TYPED_TEST_P(BackendConformance, EveryRowCountIsAnsweredOnce) {
  const auto instance = this->instance(0);
  ASSERT_GE(instance->depth(), 1);
  for (const std::int64_t rows : this->row_counts()) {
    SCOPED_TRACE(rows);
    this->run_zeros(*instance, rows);
  }
}

TYPED_TEST_P(BackendConformance, ABatchIsUsedAgain) {
  const auto instance = this->instance(0);
  BatchRun run(this->model_->signature());
  for (const std::int64_t rows : {std::int64_t{1}, this->most_rows(), std::int64_t{1}}) {
    run.clear();
    run.add_zeros(rows);
    const Status status = run.run(*instance, bucket_for(*this->model_, rows));
    ASSERT_TRUE(status.is_ok()) << status.message();
    EXPECT_EQ(run.finishes(), 1);
    this->check_outputs(run, 0, rows);
  }
}

TYPED_TEST_P(BackendConformance, EveryRequestOfABatchGetsItsRows) {
  if (this->most_rows() < 3) GTEST_SKIP() << "the model does not batch";
  const auto instance = this->instance(0);
  BatchRun run(this->model_->signature());
  run.add_zeros(1);
  run.add_zeros(2);
  const Status status = run.run(*instance, bucket_for(*this->model_, 3));
  ASSERT_TRUE(status.is_ok()) << status.message();
  this->check_outputs(run, 0, 1);
  this->check_outputs(run, 1, 2);
}

TYPED_TEST_P(BackendConformance, TakesItsDepthAtOnce) {
  const auto instance = this->instance(0);
  std::vector<std::unique_ptr<BatchRun>> runs;
  for (int round = 0; round < 3; ++round) {
    runs.clear();
    for (int i = 0; i < instance->depth(); ++i) {
      runs.push_back(std::make_unique<BatchRun>(this->model_->signature()));
      runs.back()->add_zeros(1);
      ASSERT_TRUE(runs.back()->gather(bucket_for(*this->model_, 1)).is_ok());
      runs.back()->start(*instance);
    }
    for (auto& run : runs) {
      EXPECT_TRUE(run->wait().is_ok());
      EXPECT_EQ(run->finishes(), 1);
    }
  }
}

TYPED_TEST_P(BackendConformance, InstancesRunSideBySide) {
  constexpr int kRuns = 20;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([this, i] {
      const auto instance = this->instance(i);
      for (int n = 0; n < kRuns; ++n) this->run_zeros(*instance, n % 2 == 0 ? 1 : this->most_rows());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TYPED_TEST_P(BackendConformance, WrongSpecsAreTheAuthorsFault) {
  const auto wrong = TypeParam::wrong();
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    SCOPED_TRACE(i);
    const auto loaded = TypeParam::backend().load(wrong[i], {});
    ASSERT_FALSE(loaded.is_ok());
    const Code code = loaded.status().code();
    EXPECT_TRUE(code == Code::kInvalidArgument || code == Code::kNotFound || code == Code::kUnimplemented)
        << code_name(code) << ": " << loaded.status().message();
    EXPECT_FALSE(loaded.status().message().empty());
  }
}

REGISTER_TYPED_TEST_SUITE_P(BackendConformance, SaysWhatItIs, BucketsAscendToTheMost,
                            EveryRowCountIsAnsweredOnce, ABatchIsUsedAgain, EveryRequestOfABatchGetsItsRows,
                            TakesItsDepthAtOnce, InstancesRunSideBySide, WrongSpecsAreTheAuthorsFault);

}  // namespace fastserve::test
