// The engine on the CUDA lane with a KernelModel, and a closed loop of requests to it from this thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gpu/kernel_model.h"

namespace fastserve::gpu_rows {

LoadSpec load_spec(const KernelModelSpec& spec, int lanes);

// A request of so many rows of 1.0 (or `value`), used again and again.
class RowRequest {
 public:
  RowRequest(const KernelModelSpec& spec, std::int64_t rows, CompletionQueue& completions, float value = 1);
  Request& request() { return request_; }
  bool doubled() const;  // the answer is 2 x in every element
  void again();          // ready to be submitted once more

 private:
  void fill();
  const std::int64_t rows_;
  const KernelModelSpec spec_;
  CompletionQueue& completions_;
  std::vector<float> values_;
  Request request_;
};

class Serving {
 public:
  Serving(const KernelModelSpec& spec, int lanes);  // throws: it does not load
  Engine& engine() { return engine_; }
  Submitter& submitter() { return submitter_; }

  double infer_us(std::int64_t rows, int times);  // one at a time, median
  // Answers a second with `in_flight` requests of `rows` rows under way; counts wrong ones.
  double requests_per_second(std::int64_t rows, int in_flight, int times);
  std::int64_t wrong() const { return wrong_; }
  const std::string& first_wrong() const { return first_wrong_; }

 private:
  void judge(RowRequest& answered);

  const KernelModelSpec spec_;
  Engine engine_;
  Submitter submitter_;
  std::int64_t wrong_ = 0;
  std::string first_wrong_;
};

}  // namespace fastserve::gpu_rows
