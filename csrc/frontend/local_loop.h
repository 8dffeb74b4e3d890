// What the sessions of the local transport's thread share: limits, counters, the way into the engine, calls that are idle.
// Thread: the loop's; counters may be read by any.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/tally.h"
#include "engine/engine.h"
#include "frontend/answer_clock.h"
#include "local/local_frame.h"
#include "local/local_handshake.h"
#include "local/sealed_memory.h"
#include "memory/pinned_ranges.h"
#include "queue/completion_queue.h"

namespace fastserve {

class LocalSession;

struct LocalLimits {
  std::size_t max_connections = 256;
  std::uint32_t max_cells = 1024;                       // of one ring, so requests in flight of a connection
  std::size_t max_regions = 64;                         // of a connection
  std::size_t max_region_bytes = std::size_t{1} << 30;  // of a connection
  std::size_t max_total_region_bytes = std::size_t{4} << 30;  // of all connections
  std::size_t max_models = 256;                               // that a connection opened
  std::size_t max_string_bytes = std::size_t{64} << 20;       // BYTES inputs of a request: they are copied
  Nanos handshake_timeout_ns = 5 * kSecond;
  std::vector<uid_t> uids;  // that may connect beside our own and root
};

struct LocalCounters {
  Tally connections;  // open now
  Tally accepted;
  Tally connections_refused;  // wrong uid, or too many
  Tally connections_broken;   // ended by us, because what came could not be read
  Tally regions;              // registered now, until the last request that uses them is done
  Tally region_bytes;
  Tally open_calls;
  Tally requests;
  Tally doorbells;                                // that a client rang
  Tally wakes;                                    // of sleeping clients
  std::array<Tally, 17> refused_by_code;          // answered without having reached a model's queue
  std::array<Tally, 17> control_refused_by_code;  // handshakes, registrations, openings
};

// Memory of a client, mapped. It goes when its session let go of it and no request uses it any more.
struct LocalRegion {
  LocalRegion(SealedMemory memory_in, LocalCounters& counters_in);
  ~LocalRegion();
  SealedMemory memory;
  PinnedRange pinned;  // page-locked as long as it lives, where a GPU is in use
  LocalCounters& counters;
  std::uint32_t uses = 0;  // by requests; only this thread counts
};

// One request on its way through the engine.
struct LocalCall {
  Request request;  // `message`: the copy of its cell
  LocalSession* session = nullptr;
  std::size_t at = 0;                 // among its session's calls
  std::vector<LocalRegion*> regions;  // that it counts as a use of
};

struct LocalLoop {
  LocalLoop(Engine& engine_in, LocalLimits limits_in)
      : engine(engine_in),
        limits(std::move(limits_in)),
        completions(CompletionQueue::Wake::kEventFd),
        submitter(engine_in),
        answers(engine_in.tracer()) {}

  Engine& engine;
  const LocalLimits limits;
  CompletionQueue completions;
  Submitter submitter;
  AnswerClock answers;
  LocalCounters counters;
  std::size_t in_engine = 0;
  LocalRequest request;  // scratch: keep their capacity
  LocalAnswer answer;
  std::vector<std::byte> control{kMostControlBytes};

  LocalCall& new_call() {
    if (idle.empty()) {
      all.push_back(std::make_unique<LocalCall>());
      idle.push_back(all.back().get());
    }
    LocalCall& call = *idle.back();
    idle.pop_back();
    call.request.completions = &completions;
    call.request.owner = &call;
    return call;
  }
  void recycle(LocalCall& call) {
    call.session = nullptr;
    for (LocalRegion* region : call.regions) --region->uses;
    call.regions.clear();
    call.request.response.release();
    call.request.reset();
    idle.push_back(&call);
  }

 private:
  std::vector<std::unique_ptr<LocalCall>> all;
  std::vector<LocalCall*> idle;
};

}  // namespace fastserve
