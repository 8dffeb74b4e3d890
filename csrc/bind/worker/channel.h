// fastserve._worker.Channel: a worker process's end of backend/worker_wire.h. It trusts the server.
// Thread: the process's main one. Waiting releases the interpreter lock.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <span>
#include <string>
#include <vector>

#include "backend/worker_record.h"
#include "backend/worker_wire.h"
#include "base/fd.h"
#include "bind/worker/tensors.h"
#include "local/sealed_memory.h"
#include "local/shared_ring.h"
#include "tensor/dtype.h"

namespace fastserve::bind::worker {

class Channel {
 public:
  // Takes the descriptors over.
  Channel(int socket, int bell);

  pybind11::dict open();  // what is to be loaded; the keys are ModelSpec's
  void describe(const pybind11::object& description);
  void refuse(int code,
              const std::string& message);  // instead of describe(), or of an answer: one error for all

  // The next batch, None when the process is to end: [request_type(...)] or (rows, {input: array}).
  pybind11::object next(const pybind11::object& request_type);
  pybind11::object next_whole();
  void answer(const pybind11::sequence& answers);
  void answer_whole(const pybind11::dict& outputs);

 private:
  struct Tensor {
    pybind11::str name;
    DType dtype = DType::kFp32;
  };
  struct SlotInput {
    bool present = false;
    Shape shape;
    std::span<std::byte> data;
  };

  // --- channel.cc
  fastserve::worker::WorkCell take();
  fastserve::worker::WorkCell wait_cell();
  bool take_batch();
  void receive_segment();
  std::span<std::byte> memory(std::uint32_t segment, std::uint64_t offset, std::uint64_t bytes);
  void use_room(const fastserve::worker::WorkCell& cell);
  void send(fastserve::worker::ToServer kind, std::uint64_t offset, std::uint64_t bytes);
  void send_record(const fastserve::worker::RecordWriter& record, std::size_t offset);
  std::vector<Tensor> put_tensors(const pybind11::object& specs, fastserve::worker::RecordWriter& out);

  // --- requests.cc
  SlotInput get_input(fastserve::worker::RecordReader& in);
  pybind11::object get_request(fastserve::worker::RecordReader& in, const pybind11::object& request_type);

  // --- answers.cc
  std::string read_outputs(const pybind11::dict& given, std::vector<Output>& out);
  void send_outputs(std::vector<std::vector<Output>>& slots, std::vector<std::pair<int, std::string>>& errors,
                    const std::vector<fastserve::worker::RecordWriter>& parameters, bool whole);
  void ask_for_room(std::size_t bytes);

  UniqueFd socket_;
  UniqueFd bell_;
  SealedMemory rings_;
  RingConsumer work_;
  RingProducer replies_;
  std::vector<SealedMemory> segments_;
  std::deque<fastserve::worker::WorkCell> ahead_;  // came before the room that was waited for
  std::vector<Tensor> inputs_, outputs_;
  std::uint64_t tag_ = 0;        // of what is worked on
  std::span<std::byte> record_;  // its record
  std::span<std::byte> room_;    // and where its answer goes
  std::size_t slots_ = 0;
  bool owes_ = false;  // an answer
};

}  // namespace fastserve::bind::worker
