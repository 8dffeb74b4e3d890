// The inference half of LocalSession: cells of the request ring -> Request -> cells of the answer ring.
#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>
#include <variant>

#include "base/checked.h"
#include "frontend/local_session.h"
#include "local/shared_futex.h"

namespace fastserve {
namespace {

std::string field(const char* list, std::size_t at, const char* member) {
  return std::string(list) + "[" + std::to_string(at) + "]" + member;
}

// `us` microseconds from now on, or never.
Nanos after(Nanos now, std::uint64_t us) {
  constexpr auto kMost = static_cast<std::uint64_t>(kNever / kMicrosecond) / 2;
  return us == 0 || us > kMost ? kNever : now + static_cast<Nanos>(us) * kMicrosecond;
}

// Views, which end with the response.
void copy_parameters(const ResponseParameters& from, std::vector<LocalParameter>& out) {
  for (const ResponseParameter& each : from) {
    LocalParameter& made = out.emplace_back(LocalParameter{each.name, false});
    std::visit(
        [&made](const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>) {
            made.value = std::string_view(value);
          } else {
            made.value = value;
          }
        },
        each.value);
  }
}

}  // namespace

bool LocalSession::take_requests() {
  if (ended_ || !greeted()) return false;
  bool took = false;
  Nanos now = 0;
  for (std::uint32_t i = 0; i < layout_.cells && !ended_; ++i) {
    if (answers_.room() <= calls_.size()) {
      static_cast<void>(answers_.claim());  // looks whether that can be
      break;
    }
    const std::span<const std::byte> cell = requests_.front();
    if (cell.empty()) break;
    if (now == 0) now = monotonic_now();
    took = take_one(cell, now);
  }
  if (requests_.corrupt() || answers_.corrupt()) end("the counters of its rings are impossible");
  return took;
}

bool LocalSession::take_one(std::span<const std::byte> cell, Nanos now) {
  const std::size_t bytes = used_bytes(cell);
  if (bytes == 0) {
    end("a cell that cannot be read: its length");
    return false;
  }
  LocalCall& call = loop_.new_call();
  call.request.message.append(cell.first(bytes));  // once: what is checked is what is used
  requests_.pop();
  const Status status = decode_request(call.request.message.span(), loop_.request);
  if (status.code() == Code::kDataLoss) {
    loop_.recycle(call);
    end(status.message());
    return false;
  }
  if (loop_.request.kind == CellKind::kCancel) {
    loop_.recycle(call);
    cancel(loop_.request.tag);
    return true;
  }
  call.session = this;
  call.at = calls_.size();
  calls_.push_back(&call);
  call.request.owner_tag = loop_.request.tag;
  loop_.counters.requests.add(1);
  loop_.counters.open_calls.add(1);
  if (status.is_ok()) {
    take_request(call, now);
  } else {
    refuse(call, status);
  }
  return true;
}

void LocalSession::take_request(LocalCall& call, Nanos now) {
  Status status;
  bool counted = false;
  try {
    status = fill(loop_.request, call, now);
    if (status.is_ok()) {
      status = loop_.submitter.submit(call.request);
      counted = loop_.submitter.refusal_counted();
    }
  } catch (const std::bad_alloc&) {
    status = {Code::kResourceExhausted, "no memory for the request"};
  }
  if (status.is_ok()) {
    ++loop_.in_engine;
  } else if (counted) {
    answer(call, status);
  } else {
    refuse(call, status);
  }
}

Status LocalSession::fill(const LocalRequest& from, LocalCall& call, Nanos now) {
  Request& request = call.request;
  const Model* model = nullptr;
  if (from.model != 0) {
    if (from.model > models_.size()) {
      return invalid_argument("model: got number " + std::to_string(from.model) + ", which was not opened");
    }
    model = &models_[from.model - 1];
    request.model_name = model->name;
    request.model_version = model->version;
  } else {
    request.model_name = from.model_name;
    request.model_version = from.model_version;
  }
  request.id = from.id;
  request.priority = from.priority;
  request.deadline = after(now, from.timeout_us);
  const Nanos queue_until = after(0, from.queue_timeout_us);
  request.queue_timeout_ns = queue_until == kNever ? 0 : queue_until;
  request.times.received = request.times.complete = now;
  request.inputs_may_change = true;
  for (const LocalParameter& parameter : from.parameters)
    request.parameters.push_back({parameter.name, parameter.value});
  for (std::size_t i = 0; i < from.inputs.size(); ++i) {
    FS_RETURN_IF_ERROR(fill_input(from.inputs[i], i, model, call));
  }
  for (std::size_t i = 0; i < from.outputs.size(); ++i) {
    FS_RETURN_IF_ERROR(fill_output(from.outputs[i], i, model, call));
  }
  return Status::ok();
}

Status LocalSession::fill_input(const LocalInput& from, std::size_t at, const Model* model, LocalCall& call) {
  TensorView& input = call.request.inputs.emplace_back();
  input.name = from.name;
  if (from.name.empty()) {
    if (model == nullptr || from.index >= model->signature.inputs.size()) {
      return invalid_argument(field("inputs", at, ".index") + ": got " + std::to_string(from.index) +
                              ", want the place of an input in the opened model's signature");
    }
    input.name = model->signature.inputs[from.index].name;
  }
  input.dtype = from.dtype;
  input.shape = from.shape;
  FS_ASSIGN_OR_RETURN(const std::span<std::byte> there,
                      place("inputs", at, from.region, from.offset, from.bytes, call));
  input.data = there;
  if (from.dtype != DType::kBytes) return Status::ok();
  // Strings have lengths in them, which must not change between the check and the use.
  if (there.size() > loop_.limits.max_string_bytes) {
    return {Code::kResourceExhausted, field("inputs", at, "") + ": got " + std::to_string(there.size()) +
                                          " bytes of strings, want " +
                                          std::to_string(loop_.limits.max_string_bytes) + " or fewer"};
  }
  const std::span<std::byte> copy = call.request.scratch.allocate(there.size());
  if (!there.empty()) std::memcpy(copy.data(), there.data(), there.size());
  input.data = copy;
  return Status::ok();
}

Status LocalSession::fill_output(const LocalOutput& from, std::size_t at, const Model* model,
                                 LocalCall& call) {
  RequestedOutput& output = call.request.requested_outputs.emplace_back();
  output.name = from.name;
  if (from.name.empty()) {
    if (model == nullptr || from.index >= model->signature.outputs.size()) {
      return invalid_argument(field("outputs", at, ".index") + ": got " + std::to_string(from.index) +
                              ", want the place of an output in the opened model's signature");
    }
    output.name = model->signature.outputs[from.index].name;
  }
  FS_ASSIGN_OR_RETURN(output.destination, place("outputs", at, from.region, from.offset, from.room, call));
  return Status::ok();
}

Result<std::span<std::byte>> LocalSession::place(const char* list, std::size_t at, std::uint32_t number,
                                                 std::uint64_t offset, std::uint64_t bytes, LocalCall& call) {
  if (number == 0 || number > regions_.size() || regions_[number - 1] == nullptr) {
    return invalid_argument(field(list, at, ".region") + ": got " + std::to_string(number) +
                            ", which is not registered");
  }
  LocalRegion* const region = regions_[number - 1].get();
  std::uint64_t end = 0;
  if (!checked_add(offset, bytes, end) || end > region->memory.size()) {
    return invalid_argument(field(list, at, ".offset") + ": got " + std::to_string(offset) + " and " +
                            std::to_string(bytes) + " bytes, beyond the region's " +
                            std::to_string(region->memory.size()));
  }
  if (call.regions.empty() || call.regions.back() != region) {
    call.regions.push_back(region);
    ++region->uses;
  }
  return region->memory.bytes().subspan(offset, bytes);
}

void LocalSession::cancel(std::uint64_t tag) {
  for (LocalCall* call : calls_) {
    if (call->request.owner_tag == tag) call->request.cancel();
  }
}

// --- answers -----------------------------------------------------------------------------------------------------------

void LocalSession::deliver(LocalCall& call) {
  if (!ended_) loop_.answers.add(call.request, TraceSource::kEmbedded, call.request.times.delivered);
  answer(call, call.request.response.status);
}

void LocalSession::refuse(LocalCall& call, const Status& status) {
  loop_.counters.refused_by_code[static_cast<std::size_t>(status.code())].add(1);
  answer(call, status);
}

void LocalSession::answer(LocalCall& call, const Status& status) {
  if (ended_) return forget(call);
  const std::span<std::byte> cell = answers_.claim();
  if (cell.empty()) {
    forget(call);
    return end("the counters of its rings are impossible");
  }
  LocalAnswer& out = loop_.answer;
  out.tag = call.request.owner_tag;
  out.code = status.code();
  out.message = status.message();
  out.outputs.clear();
  out.parameters.clear();
  if (status.is_ok()) {
    const Response& response = call.request.response;
    for (const OutputTensor& output : response.outputs)
      out.outputs.push_back({output.dtype, output.shape, output.data.size()});
    if (response.parameters != nullptr) copy_parameters(*response.parameters, out.parameters);
  }
  if (const Status encoded = encode_answer(cell, out); !encoded.is_ok()) {
    out.outputs.clear();
    out.parameters.clear();
    out.code = encoded.code();
    const std::string text = "the answer: " + encoded.message();
    out.message = text;
    static_cast<void>(encode_answer(cell, out));
    out.message = {};
  }
  forget(call);  // before the client hears of it: its regions are its own again
  answers_.publish();
  owes_wake_ = true;
  if (!leaving_.empty()) send_gone_regions();
}

void LocalSession::forget(LocalCall& call) {
  calls_[call.at] = calls_.back();
  calls_[call.at]->at = call.at;
  calls_.pop_back();
  loop_.counters.open_calls.subtract(1);
  loop_.recycle(call);
}

void LocalSession::wake_peer() {
  if (!owes_wake_ || ended_) return;
  owes_wake_ = false;
  switch (answers_.take_sleeper()) {
    case Asleep::kFutex:
      loop_.counters.wakes.add(1);
      return shared_futex_wake(reinterpret_cast<RingHead*>(memory_.data() + layout_.bytes())->asleep);
    case Asleep::kSocket: {
      loop_.counters.wakes.add(1);
      // No room: the client has something to read anyway.
      static const std::vector<std::byte> wake = *encode(ServerMessage{});
      static_cast<void>(send_message(socket_.get(), wake));
      return;
    }
    default:
      return;
  }
}

bool LocalSession::fall_asleep() {
  if (ended_ || !greeted()) return true;
  if (requests_.fall_asleep(Asleep::kSocket)) return true;
  if (answers_.room() > calls_.size()) return false;
  // Only a client that publishes more than its answers have room for comes here: it rings with its next request.
  reinterpret_cast<RingHead*>(memory_.data())->asleep.exchange(static_cast<std::uint32_t>(Asleep::kSocket));
  return true;
}

}  // namespace fastserve
