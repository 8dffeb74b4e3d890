#include "backend/openvino_measure.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace fastserve {
namespace {

// `rows` in front; 0: as the model has it.
ov::Shape concrete(const ov::PartialShape& partial, std::int64_t rows) {
  ov::Shape shape;
  for (const ov::Dimension& dim : partial) {
    shape.push_back(dim.is_static()
                        ? static_cast<std::size_t>(dim.get_length())
                        : static_cast<std::size_t>(std::max<std::int64_t>(dim.get_min_length(), 1)));
  }
  if (rows > 0 && !shape.empty()) shape[0] = static_cast<std::size_t>(rows);
  return shape;
}

ov::InferRequest zeros(ov::CompiledModel& compiled, std::int64_t rows) {
  ov::InferRequest request = compiled.create_infer_request();
  for (std::size_t i = 0; i < compiled.inputs().size(); ++i) {
    ov::Tensor tensor(compiled.input(i).get_element_type(),
                      concrete(compiled.input(i).get_partial_shape(), rows));
    if (tensor.get_byte_size() != 0) std::memset(tensor.data(), 0, tensor.get_byte_size());
    request.set_input_tensor(i, tensor);
  }
  return request;
}

Nanos timed(ov::InferRequest& request) {
  const Nanos begin = monotonic_now();
  request.start_async();
  request.wait();
  return monotonic_now() - begin;
}

Nanos median(std::vector<Nanos> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace

std::optional<Nanos> measure_lone(ov::CompiledModel& compiled, bool here) {
  constexpr int kRuns = 5;
  constexpr Nanos kEnough = 300 * kMillisecond;
  try {
    ov::InferRequest request = zeros(compiled, 0);
    const auto run = [&] {
      if (here) return request.infer();
      request.start_async();
      request.wait();
    };
    run();  // the first one allocates and generates code
    Nanos best = kNever;
    const Nanos began = monotonic_now();
    for (int i = 0; i < kRuns; ++i) {
      const Nanos begin = monotonic_now();
      run();
      const Nanos end = monotonic_now();
      best = std::min(best, end - begin);
      if (end - began > kEnough) break;
    }
    return best;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

std::optional<TurnsMeasured> measure_in_turns(ov::CompiledModel& first, ov::CompiledModel& second,
                                              Nanos most_ns, const std::function<bool()>& disturbed) {
  constexpr std::size_t kLeastFours = 2;
  constexpr std::size_t kMostFours = 16;
  try {
    ov::InferRequest a = zeros(first, 1);
    ov::InferRequest b = zeros(second, 1);
    timed(a);  // the first runs allocate and generate code
    timed(b);
    std::vector<Nanos> runs;
    std::vector<Nanos> saved;
    const Nanos began = monotonic_now();
    while (saved.size() < kMostFours) {
      if (saved.size() >= kLeastFours && monotonic_now() - began > most_ns) break;
      if (disturbed()) return std::nullopt;
      const Nanos a_before = timed(a);
      const Nanos b_both = timed(b) + timed(b);
      const Nanos a_after = timed(a);
      runs.insert(runs.end(), {a_before, a_after});
      saved.push_back((a_before + a_after - b_both) / 2);
    }
    return TurnsMeasured{median(std::move(runs)), median(std::move(saved))};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

std::optional<double> measure_rate(ov::CompiledModel& compiled, const RateTask& task) {
  constexpr int kRunsOfEach = 2;
  try {
    std::vector<ov::InferRequest> requests;
    for (int i = 0; i < 2 * task.streams; ++i) {
      requests.push_back(zeros(compiled, task.rows));
      requests.back().start_async();  // a run before the clock starts: allocates and generates code
    }
    for (ov::InferRequest& request : requests) request.wait();
    const int least = kRunsOfEach * task.streams;
    int started = 0;
    const Nanos began = monotonic_now();
    for (ov::InferRequest& request : requests) {
      request.start_async();
      ++started;
    }
    bool given_up = false;
    // In turn: they were started in this order, and a stream takes the oldest.
    for (std::size_t i = 0;; i = (i + 1) % requests.size()) {
      requests[i].wait();
      given_up = task.disturbed && task.disturbed();
      if (given_up || (started >= least && monotonic_now() - began >= task.window)) break;
      requests[i].start_async();
      ++started;
    }
    for (ov::InferRequest& request : requests) request.wait();
    if (given_up) return std::nullopt;
    const double seconds = static_cast<double>(std::max<Nanos>(monotonic_now() - began, 1)) / 1e9;
    return static_cast<double>(started * std::max<std::int64_t>(task.rows, 1)) / seconds;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace fastserve
