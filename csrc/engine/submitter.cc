// The hot path: resolve -> validate -> admit -> queue.
#include <algorithm>
#include <utility>
#include <vector>

#include "engine/engine_impl.h"
#include "engine/shared_places.h"
#include "engine/split_request.h"

namespace fastserve {
namespace {

// What the client wants back, as positions in the signature; all of them when it names none.
Status order_outputs(const ModelVersion& version, Request& request) {
  request.output_order.clear();
  if (request.requested_outputs.empty()) {
    for (std::size_t i = 0; i < version.signature.outputs.size(); ++i) {
      request.output_order.push_back(static_cast<int>(i));
    }
    return Status::ok();
  }
  for (const RequestedOutput& wanted : request.requested_outputs) {
    const int at = version.signature.output_index(wanted.name);
    const auto field = [&] { return "outputs[\"" + std::string(wanted.name.substr(0, 128)) + "\"]"; };
    if (at < 0) {
      return invalid_argument("unexpected inference output '" + std::string(wanted.name.substr(0, 128)) +
                              "' for model '" + version.name + "'. " + field() +
                              ": the model has no such output");
    }
    if (std::ranges::find(request.output_order, at) != request.output_order.end()) {
      return invalid_argument("output '" + std::string(wanted.name) + "' already exists in request. " +
                              field() + ": given twice");
    }
    request.output_order.push_back(at);
  }
  return Status::ok();
}

}  // namespace

struct Submitter::Impl {
  explicit Impl(Engine::Impl& engine_in)
      : engine(engine_in), number(engine_in.submitters.fetch_add(1, std::memory_order_relaxed)) {
    refresh();
  }

  Engine::Impl& engine;
  const unsigned number;
  std::uint64_t generation = 0;
  std::shared_ptr<const VersionTable> table;  // keeps the versions in owed_rings alive (as shells)
  std::vector<ModelVersion*> owed_rings;
  bool refusal_counted = false;
  struct Begun {
    ModelVersion* version = nullptr;
    Instance* instance = nullptr;  // claimed
  };
  Begun begun;

  void refresh() {
    flush();
    table = engine.snapshot(generation);
  }

  void flush() {
    for (ModelVersion* version : owed_rings) {
      if (!start_here(*version)) version->queue().ring();
    }
    owed_rings.clear();
  }

  // Spares what takes no time the way over an instance's thread: about 10 us, on a virtual machine up to 100.
  static bool start_here(ModelVersion& version) {
    if (!version.try_begin_request()) return false;  // a handle: without it the instances may go
    const bool started = version.start_here();
    version.abandon_request();
    return started;
  }

  // With a handle on success.
  Result<ModelVersion*> begin(const Request& request) {
    if (engine.generation.load(std::memory_order_acquire) != generation) refresh();  // partner: publish
    for (;;) {
      const Result<VersionTable::Chosen> found = table->choose(request, number);
      if (!found.is_ok()) return found.status();
      const VersionTable::Chosen& chosen = found.value();
      if (chosen.version->try_begin_request()) {
        if (chosen.requests != nullptr) chosen.requests->fetch_add(1, std::memory_order_relaxed);
        return chosen.version;
      }
      refresh();  // it drains, so it left the published table before
    }
  }

  // As begin; nullptr: its model sleeps, and the request is held until it is loaded.
  Result<ModelVersion*> begin_or_park(Request& request) {
    for (;;) {
      Result<ModelVersion*> found = begin(request);
      if (found.is_ok()) return found;
      Status status;
      switch (engine.rooms.take(request, status)) {
        case WaitingRooms::Taken::kParked:
          return static_cast<ModelVersion*>(nullptr);
        case WaitingRooms::Taken::kRefused:
          return status;
        case WaitingRooms::Taken::kAwake:  // since a moment ago: then a version was published meanwhile
          if (engine.generation.load(std::memory_order_acquire) == generation) return found;
      }
    }
  }

  Status prepare(ModelVersion& version, Request& request) const {
    if (const auto complete = std::exchange(request.complete, nullptr)) {
      FS_RETURN_IF_ERROR(complete(version, request));
    }
    FS_RETURN_IF_ERROR(find_shared_places(engine.regions, request));
    request.input_order.resize(version.signature.inputs.size());
    FS_ASSIGN_OR_RETURN(request.rows,
                        validate(version.signature, version.name, request.inputs, request.input_order));
    FS_RETURN_IF_ERROR(order_outputs(version, request));
    request.times.enqueued = monotonic_now();
    request.expires = version.queue().expiry_of(request, request.times.enqueued);
    if (request.deadline <= request.times.enqueued) return {Code::kDeadlineExceeded, "Deadline Exceeded"};
    return Status::ok();
  }

  static void withdraw(ModelVersion& version, Request& request) {
    request.tap = nullptr;
    request.parts.reset();
    version.abandon_request();
  }

  static Status split(ModelVersion& version, Request& request) {
    if (request.rows <= version.signature.max_batch_rows) return Status::ok();
    try {
      request.parts = std::make_unique<SplitRequest>(version, request);
      return Status::ok();
    } catch (const std::bad_alloc&) {
      withdraw(version, request);
      return {Code::kResourceExhausted,
              "no memory for the parts of a request of " + std::to_string(request.rows) + " rows"};
    }
  }

  // Whether one of them found the queue empty.
  static bool push_parts(ModelVersion& version, Request& request) {
    const std::span<Request> parts = static_cast<SplitRequest&>(*request.parts).parts();
    version.begin_parts(static_cast<std::int64_t>(parts.size()) - 1);
    version.queue().admit_parts(request, parts);
    bool owes_ring = false;
    for (Request& part : parts) owes_ring = version.queue().push(part) || owes_ring;
    return owes_ring;
  }

  // `owes_ring`: the queue was empty, so somebody has to look at it. No version: it is answered already.
  Status submit(Request& request, ModelVersion*& version, bool& owes_ring) {
    refusal_counted = false;
    if (request.completions == nullptr) return invalid_argument("completions: got none");
    FS_ASSIGN_OR_RETURN(version, begin_or_park(request));
    if (version == nullptr) return Status::ok();
    if (Status status = prepare(*version, request); !status.is_ok()) {
      version->abandon_request();
      return status;
    }
    // One that was parked has a tap already: served uncached.
    if (version->cached != nullptr && request.tap == nullptr && engine.cache->answer(*version, request)) {
      version = nullptr;
      return Status::ok();
    }
    if (version->signature.max_request_rows != 0) FS_RETURN_IF_ERROR(split(*version, request));
    if (Status status = version->queue().admit(request); !status.is_ok()) {
      refusal_counted = true;
      withdraw(*version, request);
      return status;
    }
    request.version = version;
    const Nanos expires = request.expires;
    const bool cancelled = request.cancelled.load(std::memory_order_relaxed);
    owes_ring = request.parts == nullptr ? version->queue().push(request) : push_parts(*version, request);
    // From here on the request may be answered, and recycled by the owner of its completion queue.
    if (expires != kNever) version->queue().announce_expiry(expires);
    if (cancelled) version->queue().notice_cancel();
    return Status::ok();
  }
};

Submitter::Submitter(Engine& engine) : impl_(std::make_unique<Impl>(engine.impl())) {}

Submitter::~Submitter() {
  if (impl_ != nullptr) impl_->flush();
}

Submitter::Submitter(Submitter&&) noexcept = default;

Status Submitter::submit(Request& request) {
  ModelVersion* version = nullptr;
  bool owes_ring = false;
  Status status = impl_->submit(request, version, owes_ring);
  if (owes_ring) impl_->owed_rings.push_back(version);
  return status;
}

bool Submitter::refusal_counted() const { return impl_->refusal_counted; }

void Submitter::flush() { impl_->flush(); }

Result<Response*> Submitter::infer(Request& request) {
  if (request.completions == nullptr || request.completions->wake() != CompletionQueue::Wake::kFutex) {
    return invalid_argument("completions: infer wants a queue of kind kFutex");
  }
  FS_ASSIGN_OR_RETURN(const Nanos expected, begin_infer(request));
  if (expected != kNever) run_begun();
  for (;;) {
    for (Response* response = request.completions->wait(kNever); response != nullptr;
         response = response->next_in_intake) {
      if (!response->final || response->request != &request) continue;
      impl_->engine.tracer.record(request);
      return response;
    }
  }
}

Result<Nanos> Submitter::begin_infer(Request& request) {
  ModelVersion* version = nullptr;
  bool owes_ring = false;
  FS_RETURN_IF_ERROR(impl_->submit(request, version, owes_ring));
  Instance* const instance = version == nullptr ? nullptr : version->claim_idle();
  if (instance == nullptr && owes_ring) version->queue().ring();
  impl_->flush();  // of earlier submits
  if (instance == nullptr) return kNever;
  impl_->begun = {version, instance};
  return instance->cost().expected_ns(instance->run_rows(request.rows));
}

void Submitter::run_begun() { std::exchange(impl_->begun, {}).instance->run_claimed(); }

void Submitter::leave_to_instance() {
  const auto begun = std::exchange(impl_->begun, {});
  begun.instance->unclaim();
  begun.version->queue().ring();
}

}  // namespace fastserve
