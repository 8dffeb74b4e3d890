#include "engine/split_request.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "batch/kept_outputs.h"
#include "batch/place_outputs.h"

namespace fastserve {
namespace {

std::size_t parts_of(std::int64_t rows, std::int64_t most) {
  return static_cast<std::size_t>((rows + most - 1) / most);
}

// Bytes of the first `rows` rows of what is left of a valid input.
std::size_t bytes_of_rows(const TensorView& input, std::size_t begin, std::int64_t rows) {
  if (input.dtype != DType::kBytes) {
    return static_cast<std::size_t>(rows) * input.shape.byte_count_from(input.dtype, 1).value_or(0);
  }
  const std::int64_t elements = rows * Shape(input.shape.dims().subspan(1)).elements().value_or(0);
  return bytes_extent(input.data.subspan(begin), elements).value_or(0);
}

bool same_rows(const Shape& a, const Shape& b) {
  return a.rank() == b.rank() && std::ranges::equal(a.dims().subspan(1), b.dims().subspan(1));
}

Outcome outcome_of(const Request& failed) {
  const Status& status = failed.response.status;
  if (status.code() == Code::kDeadlineExceeded) return Outcome::kDeadline;
  if (failed.times.run_start != 0) return Outcome::kBackend;
  if (status.code() == Code::kCancelled) return Outcome::kCancelled;
  return failed.expires <= failed.times.delivered ? Outcome::kQueueTimeout : Outcome::kUnloading;
}

}  // namespace

SplitRequest::SplitRequest(ModelVersion& version, Request& whole)
    : version_(version),
      whole_(whole),
      count_(parts_of(whole.rows, version.signature.max_batch_rows)),
      parts_(std::make_unique<Request[]>(count_)),
      byte_offsets_(std::make_unique<std::size_t[]>(whole.inputs.size())),
      unanswered_(count_) {
  std::int64_t first_row = 0;
  for (Request& part : parts()) {
    part.rows = std::min(version.signature.max_batch_rows, whole.rows - first_row);
    fill(part);
    first_row += part.rows;
  }
}

void SplitRequest::fill(Request& part) {
  part.inputs.reserve(whole_.inputs.size());
  for (std::size_t i = 0; i < whole_.inputs.size(); ++i) {
    TensorView& input = part.inputs.emplace_back(whole_.inputs[i]);
    const std::size_t bytes = bytes_of_rows(input, byte_offsets_[i], part.rows);
    input.shape[0] = part.rows;
    input.data = input.data.subspan(byte_offsets_[i], bytes);
    byte_offsets_[i] += bytes;
  }
  part.model_name = whole_.model_name;
  part.model_version = whole_.model_version;
  part.id = whole_.id;
  part.parameters = whole_.parameters;
  part.priority = whole_.priority;
  part.deadline = whole_.deadline;
  part.queue_timeout_ns = whole_.queue_timeout_ns;
  part.expires = whole_.expires;
  part.completions = whole_.completions;
  part.input_order = whole_.input_order;
  part.output_order = whole_.output_order;
  part.times.enqueued = whole_.times.enqueued;
  part.cancelled.store(whole_.cancelled.load(std::memory_order_relaxed), std::memory_order_relaxed);
  part.is_part = true;
  part.tap = this;
}

void SplitRequest::cancel() {
  for (Request& part : parts()) part.cancelled.store(true, std::memory_order_release);
  version_.notice_cancel();
}

Request* SplitRequest::answered(Request& part) {
  if (!part.response.status.is_ok()) {
    const Request* none = nullptr;
    if (failed_.compare_exchange_strong(none, &part, std::memory_order_acq_rel) &&
        unanswered_.load(std::memory_order_relaxed) > 1) {
      cancel();
    }
  }
  // Not the last one: the whole, and this with it, may be gone from here on.
  if (unanswered_.fetch_sub(1, std::memory_order_acq_rel) != 1) return nullptr;
  join();
  return &whole_;
}

void SplitRequest::join() {
  StageTimes& times = whole_.times;
  const auto ran = [](const Request& part) { return part.times.run_start != 0; };
  for (const Request& part : parts()) {
    if (!ran(part)) continue;
    const StageTimes& own = part.times;
    times.dequeued = times.dequeued == 0 ? own.dequeued : std::min(times.dequeued, own.dequeued);
    times.run_start = times.run_start == 0 ? own.run_start : std::min(times.run_start, own.run_start);
    times.run_end = std::max(times.run_end, own.run_end);
  }
  Response& response = whole_.response;
  response.request = &whole_;
  response.final = true;
  response.outputs.clear();
  const Request* failed = failed_.load(std::memory_order_acquire);
  response.status = failed != nullptr ? failed->response.status : put_together();
  times.delivered = monotonic_now();
  if (response.status.is_ok() && whole_.deadline <= times.delivered) {
    response.release();
    response.status = {Code::kDeadlineExceeded, "Deadline Exceeded"};
  }
  place_outputs(whole_);
  count_whole();
  for (Request& part : parts()) part.response.release();
}

Status SplitRequest::put_together() {
  const std::vector<OutputTensor>& first = parts_[0].response.outputs;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    std::size_t of_output = 0;
    for (const Request& part : parts()) {
      const OutputTensor& output = part.response.outputs[i];
      of_output += output.data.size();
      if (same_rows(output.shape, first[i].shape)) continue;
      const std::string& name = version_.signature.outputs[static_cast<std::size_t>(output.index)].name;
      const std::string most = std::to_string(version_.signature.max_batch_rows);
      return invalid_argument(
          "outputs[\"" + name + "\"].shape: got " + output.shape.str() + " and " + first[i].shape.str() +
          " for parts of the request, which do not fit together; send " + most + " rows or fewer");
    }
    bytes += KeptOutputs::padded(of_output);
  }
  try {
    auto& joined = *new KeptOutputs(bytes);
    const BatchRef hold(&joined);
    std::byte* at = joined.memory();
    for (std::size_t i = 0; i < first.size(); ++i) {
      OutputTensor& out = joined.outputs.emplace_back(first[i]);
      std::byte* const begin = at;
      for (const Request& part : parts()) {
        const auto data = part.response.outputs[i].data;
        if (!data.empty()) std::memcpy(at, data.data(), data.size());
        at += data.size();
      }
      out.shape[0] = whole_.rows;
      out.data = {begin, at};
      at = begin + KeptOutputs::padded(out.data.size());
    }
    joined.parameters = parts_[0].response.parameters;
    joined.lend(whole_.response);
  } catch (const std::bad_alloc&) {
    whole_.response.release();
    return {Code::kResourceExhausted,
            "no memory for " + std::to_string(bytes) + " bytes of the answers of parts"};
  }
  return Status::ok();
}

// As an instance counts the request of a batch, but on the shard that several may write.
void SplitRequest::count_whole() const {
  const StageTimes& times = whole_.times;
  Statistics& statistics = version_.queue().statistics;
  const Nanos took = times.delivered - (times.received != 0 ? times.received : times.enqueued);
  if (!whole_.response.status.is_ok()) {
    const Request* failed = failed_.load(std::memory_order_acquire);
    const bool late = whole_.response.status.code() == Code::kDeadlineExceeded;
    statistics.add(whole_.response.misplaced ? Outcome::kClientMemory
                   : failed != nullptr       ? outcome_of(*failed)
                   : late                    ? Outcome::kDeadline
                                             : Outcome::kBackend,
                   took);
    return;
  }
  StatisticsShard& shard = statistics.common();
  shard.queue.count<Writers::kAny>(times.dequeued - times.enqueued);
  shard.gather.count<Writers::kAny>(times.run_start - times.dequeued);
  shard.execute.count<Writers::kAny>(times.run_end - times.run_start);
  shard.total.count<Writers::kAny>(took);
  count<Writers::kAny>(shard.scatter_ns, static_cast<std::uint64_t>(times.delivered - times.run_end));
  count<Writers::kAny>(shard.rows_served, static_cast<std::uint64_t>(whole_.rows));
}

}  // namespace fastserve
