// The client's side of the local transport (local/local_handshake.h, local/local_frame.h): a connection, the models that it
// opened, and slots. A slot is the place of one request in memory that the server shares: its inputs to be filled in, its
// outputs to be read. It can be submitted again and again, one request at a time.
//
//   connect -> open -> make_slot -> (fill the inputs -> submit -> wait -> next -> read the outputs) -> release
//
// Errors: UNAVAILABLE when the server is gone (and from then on always: connect again); RESOURCE_EXHAUSTED when all cells are
// in flight; the server's own otherwise.
// Thread: one at a time, for the connection and all that came from it. A forked child must not use it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/status.h"
#include "local/local_frame.h"
#include "local/local_handshake.h"
#include "local/sealed_memory.h"
#include "local/shared_ring.h"
#include "tensor/signature.h"

namespace fastserve {

class LocalConnection;

struct LocalOptions {
  std::uint32_t cells = kDefaultCells;  // requests in flight; a power of two
  std::uint32_t cell_bytes = kDefaultCellBytes;
  Nanos timeout_ns = 5 * kSecond;  // of connecting and of every other control message
};

struct LocalModel {
  std::uint32_t number = 0;
  std::string name;
  std::int64_t version = 0;
  Signature signature;
};

// A parameter: of a request, which the model gets, or of its answer.
struct GivenParameter {
  std::string name;
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string> value;
};

// What a slot is to have room for. An output without a plan is not asked for.
struct InputPlan {
  std::size_t index = 0;  // in the signature
  Shape shape;
  std::uint64_t bytes = 0;  // 0: as the shape says; BYTES: the most that will be written
};
struct OutputPlan {
  std::size_t index = 0;
  std::uint64_t room = 0;  // bytes
};

class LocalSlot {
 public:
  const LocalModel& model() const { return *model_; }
  std::size_t inputs() const { return request_.inputs.size(); }
  std::size_t outputs() const { return request_.outputs.size(); }
  const LocalInput& input(std::size_t i) const { return request_.inputs[i]; }
  std::span<std::byte> input_memory(std::size_t i) const {
    return memory_.subspan(request_.inputs[i].offset - start_, capacities_[i]);
  }
  // Before it is submitted, as much as there is room for: another shape, or another length of strings.
  Status reshape(std::size_t input, const Shape& shape, std::uint64_t bytes);
  std::span<std::byte> output_memory(std::size_t i) const {
    return memory_.subspan(request_.outputs[i].offset - start_, request_.outputs[i].room);
  }
  std::size_t output_index(std::size_t i) const { return request_.outputs[i].index; }

  // For the next submit; kept until changed. 0 = none.
  void set_id(std::string_view id) { request_.id = id_ = id; }
  void set_priority(std::uint32_t priority) { request_.priority = priority; }
  void set_timeout_us(std::uint64_t us) { request_.timeout_us = us; }
  void set_queue_timeout_us(std::uint64_t us) { request_.queue_timeout_us = us; }

  // Instead of those that it had. INVALID_ARGUMENT: too many, or one without a name.
  Status set_parameters(std::vector<GivenParameter> parameters);

  bool in_flight() const { return in_flight_; }
  // Of the last request that was answered.
  const Status& status() const { return status_; }
  const LocalAnswerOutput& output(std::size_t i) const { return answered_[i]; }
  std::size_t answered() const { return answered_.size(); }
  const std::vector<GivenParameter>& answered_parameters() const { return answered_parameters_; }

  void* user = nullptr;

 private:
  friend class LocalConnection;
  const LocalModel* model_ = nullptr;
  LocalRequest request_;
  std::string id_;
  std::vector<GivenParameter> parameters_;
  std::span<std::byte> memory_;  // its block
  std::uint64_t start_ = 0;      // of the block in its region
  std::uint32_t region_ = 0;
  std::size_t size_class_ = 0;
  std::vector<std::uint64_t> capacities_;  // of inputs, bytes
  Status status_;
  std::vector<LocalAnswerOutput> answered_;
  std::vector<GivenParameter> answered_parameters_;
  bool in_flight_ = false;
  bool released_ = false;
};

class LocalConnection {
 public:
  // UNAVAILABLE: nobody listens there. PERMISSION_DENIED: the server does not take this user.
  static Result<std::unique_ptr<LocalConnection>> connect(const std::string& path,
                                                          const LocalOptions& options = {});
  // Over a connected SOCK_SEQPACKET socket.
  static Result<std::unique_ptr<LocalConnection>> over(UniqueFd socket, const LocalOptions& options = {});
  ~LocalConnection();  // cancels what is in flight
  LocalConnection(const LocalConnection&) = delete;
  LocalConnection& operator=(const LocalConnection&) = delete;

  // Valid as long as the connection. "": by the server's version policy. Asks the server each time.
  Result<const LocalModel*> open(std::string_view name, std::string_view version = "");

  // For so many rows; a model without a batch dimension takes 1. INVALID_ARGUMENT when the signature leaves a dimension or the
  // length of strings open: then plan by hand.
  static Status plan(const LocalModel& model, std::int64_t rows, std::vector<InputPlan>& inputs,
                     std::vector<OutputPlan>& outputs);
  Result<LocalSlot*> make_slot(const LocalModel& model, std::span<const InputPlan> inputs,
                               std::span<const OutputPlan> outputs);
  void release(LocalSlot* slot);  // its memory is used again once no request of it is in flight

  Status submit(LocalSlot& slot);  // FAILED_PRECONDITION: it is in flight already
  void flush();                    // rings, if the server sleeps; wait() does it too
  void cancel(LocalSlot& slot);    // it is answered all the same, with CANCELLED when it had not started
  std::size_t in_flight() const { return in_flight_; }

  // The slot of the next answer, nullptr when there is none yet. UNAVAILABLE: the server is gone or broken.
  Result<LocalSlot*> next();
  // Until there is an answer: DEADLINE_EXCEEDED at `until`; ABORTED when a signal came.
  Status wait(Nanos until);

  // For pollers: true = sleep until the descriptor is readable, then call woken(). False: there are answers.
  bool arm();
  void woken();
  int descriptor() const { return socket_.get(); }
  bool gone() const { return gone_; }
  // Ends the connection; the memory of slots stays until the destructor.
  void close();

 private:
  explicit LocalConnection(UniqueFd socket, const LocalOptions& options);
  Status greet();
  Result<ServerMessage> ask(ClientMessage message, ControlKind want, std::span<const int> fds = {});
  Result<ServerMessage> receive(std::uint32_t sequence, ControlKind want, Nanos until);
  Status fail(const std::string& what);
  bool alive();
  Status take_block(std::size_t bytes, LocalSlot& slot);
  Status add_region(std::size_t least_bytes);

  struct Region {
    SealedMemory memory;
    std::uint32_t number = 0;
    std::size_t used = 0;
  };
  struct Block {
    std::size_t region = 0;
    std::uint64_t offset = 0;
  };

  UniqueFd socket_;
  LocalOptions options_;
  std::uint32_t sequence_ = 0;
  UniqueFd doorbell_;
  SealedMemory rings_;
  RingLayout layout_;
  RingProducer requests_;
  RingConsumer answers_;
  std::vector<UniqueFd> received_;  // descriptors of the last message
  std::vector<std::byte> buffer_;
  std::vector<std::byte> cell_;  // copy of an answer's
  LocalAnswer answer_;
  std::vector<Region> regions_;
  static constexpr std::size_t kClasses = 48;
  std::array<std::vector<Block>, kClasses> free_;  // blocks of 2^class bytes
  std::deque<LocalModel> models_;
  std::deque<LocalSlot> slots_;  // the tag of a request is its slot's place here
  std::vector<LocalSlot*> unused_;
  std::size_t in_flight_ = 0;
  bool owes_ring_ = false;
  bool gone_ = false;
  std::string why_gone_;
};

}  // namespace fastserve
