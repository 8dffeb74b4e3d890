// The records of a worker's conversation (backend/worker_wire.h), the server's side: what is asked is written, what comes back is
// read from a private copy and believed in nothing.
//
// Thread: any; pure.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "backend/backend.h"
#include "backend/worker_memory.h"
#include "backend/worker_record.h"
#include "base/status.h"
#include "batch/batch.h"

namespace fastserve {

// What a process is told before anything else.
struct WorkerSpec {
  int instance = 0;
  std::string instance_name;
  int threads = 1;
};
void write_worker_spec(const LoadSpec& spec, const WorkerSpec& worker, worker::RecordWriter& out);

struct WorkerDescription {
  Signature signature;
  std::map<std::string, std::string> properties;
  std::string platform;
};
// The model's own refusal (an exception of its initialize), or INTERNAL for a record that makes no sense.
Result<WorkerDescription> read_worker_description(std::span<const std::byte> record);

// Rows, ids, parameters, outputs that are wanted and where each slot's inputs are. INTERNAL when an input is not in `memory`.
Status write_batch(Batch& batch, const WorkerMemory& memory, worker::RecordWriter& out);
// Room that the answers take, as far as the signature tells; `dynamic_row_bytes` for what it does not, for each row.
std::size_t expected_room(const Batch& batch, std::size_t dynamic_row_bytes);

// Sets the batch's outputs or faults from a reply; outputs are views into `room`, strings are copied to `block.copies`. An
// error is of the whole batch; INTERNAL with "malformed" in it: the record made no sense, nothing of it was used.
struct BatchReply {
  Status status;
  bool malformed = false;
};
BatchReply read_reply(std::span<const std::byte> record, std::span<const std::byte> room, WorkerBlock& block,
                      Batch& batch);

}  // namespace fastserve
