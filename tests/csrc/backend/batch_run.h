// Runs batches against a BackendInstance without an engine around it: makes requests for a signature, gathers them, starts
// the batch, waits for finish() and counts how often it came.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "batch/batch.h"
#include "batch/request.h"

namespace fastserve::test {

// A signature's shape with every free dimension set to `length` and `rows` in front when it batches.
inline Shape concrete(const Shape& shape, bool batches, std::int64_t rows, std::int64_t length = 1) {
  Shape made = shape;
  for (std::size_t i = 0; i < made.rank(); ++i) {
    if (made[i] < 0) made[i] = length;
  }
  if (batches) made[0] = rows;
  return made;
}

inline std::size_t bytes_of(const TensorSpec& spec, const Shape& shape) {
  if (spec.dtype == DType::kBytes)
    return static_cast<std::size_t>(shape.elements().value_or(0)) * sizeof(std::uint32_t);
  return shape.byte_count(spec.dtype).value_or(0);
}

class BatchRun {
 public:
  explicit BatchRun(const Signature& signature)
      : signature_(signature), batch_(std::make_unique<Batch>(signature, plain_host_allocator())) {
    batch_->on_finish = [](Batch& batch, Status status) {
      static_cast<BatchRun*>(batch.instance)->finished(std::move(status));
    };
    batch_->on_recycle = [](Batch&) {};
    batch_->instance = this;
  }
  BatchRun(const BatchRun&) = delete;
  BatchRun& operator=(const BatchRun&) = delete;

  // A request whose inputs are `views`, in signature order; whoever calls keeps the bytes.
  void add(std::int64_t rows, const std::vector<TensorView>& views) {
    auto request = std::make_unique<Request>();
    request->rows = rows;
    request->inputs = views;
    request->input_order.resize(views.size());
    std::iota(request->input_order.begin(), request->input_order.end(), 0);
    request->output_order.resize(signature_.outputs.size());
    std::iota(request->output_order.begin(), request->output_order.end(), 0);
    batch_->add(request.get());
    requests_.push_back(std::move(request));
  }

  // A request of zeros (and empty strings).
  void add_zeros(std::int64_t rows) {
    std::vector<TensorView> views;
    for (const TensorSpec& spec : signature_.inputs) {
      const Shape shape = concrete(spec.shape, signature_.batches(), rows);
      auto& bytes = *zeros_.emplace_back(std::make_unique<std::vector<std::byte>>(bytes_of(spec, shape)));
      views.push_back({spec.name, spec.dtype, shape, bytes});
    }
    add(rows, views);
  }

  Status gather(std::int64_t run_rows) { return batch_->gather(run_rows); }

  void start(BackendInstance& instance) { instance.start(*batch_); }

  // Blocks until finish() was called; then scatters.
  Status wait() {
    finishes_.wait(0);
    batch_->scatter(status_);
    return status_;
  }

  Status run(BackendInstance& instance, std::int64_t run_rows) {
    if (Status gathered = gather(run_rows); !gathered.is_ok()) return gathered;
    start(instance);
    return wait();
  }

  // As the arena does between two runs. Every response must have been let go.
  void clear() {
    for (auto& request : requests_) request->response.release();
    requests_.clear();
    zeros_.clear();
    batch_->clear();
    finishes_ = 0;
    status_ = Status::ok();
  }

  int finishes() const { return finishes_; }
  Batch& batch() { return *batch_; }
  const Response& response(std::size_t request) const { return requests_[request]->response; }

  template <class T>
  std::vector<T> output(std::size_t request, std::size_t index) const {
    const OutputTensor& tensor = response(request).outputs.at(index);
    std::vector<T> values(tensor.data.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(T));
    return values;
  }

  ~BatchRun() { clear(); }

 private:
  void finished(Status status) {
    status_ = std::move(status);
    finishes_.fetch_add(1, std::memory_order_release);  // partner: wait()
    finishes_.notify_all();
  }

  const Signature& signature_;
  std::unique_ptr<Batch> batch_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> zeros_;
  Status status_;
  std::atomic<int> finishes_{0};
};

inline std::span<const std::byte> bytes_of(std::span<const float> values) { return std::as_bytes(values); }

// The bucket for `rows`; `rows` itself when the model takes any number.
inline std::int64_t bucket_for(const LoadedModel& model, std::int64_t rows) {
  for (const std::int64_t bucket : model.buckets()) {
    if (bucket >= rows) return bucket;
  }
  return rows;
}

}  // namespace fastserve::test
