#include "bind/worker/channel.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "local/shared_futex.h"
#include "local/unix_message.h"

namespace py = pybind11;

namespace fastserve::bind::worker {

using fastserve::worker::RecordReader;
using fastserve::worker::RecordWriter;
using fastserve::worker::ToServer;
using fastserve::worker::ToWorker;
using fastserve::worker::WorkCell;

namespace {

[[noreturn]] void broken(const std::string& what) {
  throw std::runtime_error("the server's channel: " + what);
}

// Out of the way of a model's own descriptors, and not for its children.
UniqueFd moved(int fd) {
  constexpr int kAbove = 200;
  UniqueFd old(fd);
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, kAbove));
  if (copy.valid()) return copy;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return old;
}

py::dict get_parameters(RecordReader& in) {
  py::dict out;
  for (auto left = in.get<std::uint32_t>(); left != 0 && in.ok(); --left) {
    const std::string name(in.get_text());
    out[py::str(name)] = py::str(std::string(in.get_text()));
  }
  return out;
}

py::list get_tensors(RecordReader& in) {
  py::list out;
  for (auto left = in.get<std::uint32_t>(); left != 0 && in.ok(); --left) {
    py::dict tensor;
    tensor["name"] = std::string(in.get_text());
    tensor["datatype"] = std::string(dtype_name(static_cast<DType>(in.get<std::uint8_t>())));
    py::list shape;
    for (auto rank = in.get<std::uint32_t>(); rank != 0 && in.ok(); --rank)
      shape.append(in.get<std::int64_t>());
    tensor["shape"] = shape;
    tensor["optional"] = in.get<std::uint8_t>() != 0;
    out.append(tensor);
  }
  return out;
}

}  // namespace

Channel::Channel(int socket, int bell) : socket_(moved(socket)), bell_(moved(bell)) {
  receive_segment();
  work_ = RingConsumer(rings_.data() + fastserve::worker::kWorkRingAt, fastserve::worker::kWorkRing);
  replies_ = RingProducer(rings_.data() + fastserve::worker::kReplyRingAt, fastserve::worker::kReplyRing);
}

void Channel::receive_segment() {
  fastserve::worker::SegmentMessage message;
  Result<UnixMessage> got = UnixMessage{};
  {
    const py::gil_scoped_release unlocked;
    got = receive_message(socket_.get(), std::as_writable_bytes(std::span(&message, 1)), 0);
  }
  if (!got.is_ok()) broken(got.status().message());
  if (got->bytes != sizeof message || got->fds.size() != 1) broken("closed");
  if (message.magic != fastserve::worker::kMagic) broken("of another version of fastserve");
  auto mapped = SealedMemory::adopt(std::move(got->fds[0]), SIZE_MAX);
  if (!mapped.is_ok()) broken(mapped.status().message());
  mapped->close_fd();
  if (message.segment == fastserve::worker::kRingSegment) {
    rings_ = std::move(*mapped);
  } else {
    segments_.push_back(std::move(*mapped));
  }
}

std::span<std::byte> Channel::memory(std::uint32_t segment, std::uint64_t offset, std::uint64_t bytes) {
  while (segments_.size() <= segment) receive_segment();
  const std::span<std::byte> whole = segments_[segment].bytes();
  if (offset > whole.size() || bytes > whole.size() - offset) broken("a place outside of its segment");
  return whole.subspan(offset, bytes);
}

WorkCell Channel::wait_cell() {
  for (;;) {
    if (const std::span<std::byte> front = work_.front(); !front.empty()) {
      WorkCell cell;
      std::memcpy(&cell, front.data(), sizeof cell);
      work_.pop();
      return cell;
    }
    if (!work_.fall_asleep(Asleep::kFutex)) continue;
    bool signalled = false;
    {
      const py::gil_scoped_release unlocked;
      signalled = !shared_futex_wait(work_.asleep(), static_cast<std::uint32_t>(Asleep::kFutex), kNever);
    }
    work_.wake_up();
    if (signalled && PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

WorkCell Channel::take() {
  if (ahead_.empty()) return wait_cell();
  const WorkCell cell = ahead_.front();
  ahead_.pop_front();
  return cell;
}

void Channel::use_room(const WorkCell& cell) {
  room_ = memory(cell.segment, cell.offset + cell.room_offset, cell.room_bytes);
}

// Next batch; false: it is to end.
bool Channel::take_batch() {
  if (owes_) broken("the next batch was asked for before the last one was answered");
  const WorkCell cell = take();
  if (cell.kind == ToWorker::kStop) return false;
  if (cell.kind != ToWorker::kBatch) broken("an unexpected message");
  tag_ = cell.tag;
  record_ = memory(cell.segment, cell.offset, cell.record_bytes);
  use_room(cell);
  owes_ = true;
  return true;
}

void Channel::ask_for_room(std::size_t bytes) {
  send(ToServer::kRoom, 0, bytes);
  for (;;) {
    const WorkCell cell = wait_cell();
    if (cell.kind == ToWorker::kRoom && cell.tag == tag_) return use_room(cell);
    ahead_.push_back(cell);
  }
}

void Channel::send(ToServer kind, std::uint64_t offset, std::uint64_t bytes) {
  const std::span<std::byte> free = replies_.claim();
  if (free.empty()) broken("the ring of replies is full");
  const fastserve::worker::ReplyCell cell{tag_, kind, 0, offset, bytes};
  std::memcpy(free.data(), &cell, sizeof cell);
  replies_.publish();
  if (replies_.take_sleeper() != Asleep::kNo) ::eventfd_write(bell_.get(), 1);
}

void Channel::send_record(const RecordWriter& record, std::size_t offset) {
  if (record.size() > room_.size() - offset) broken("a record larger than its room");
  std::memcpy(room_.data() + offset, record.bytes().data(), record.size());
  owes_ = false;
  send(ToServer::kDone, offset, record.size());
}

void Channel::refuse(int code, const std::string& message) {
  constexpr std::size_t kMostMessage = 2048;
  const bool of_batch = tag_ != 0;
  RecordWriter out;
  out.put(static_cast<std::uint8_t>(of_batch ? static_cast<int>(fastserve::worker::Answered::kFailed) : 1));
  out.put(static_cast<std::uint8_t>(code));
  out.put_text(std::string_view(message).substr(0, kMostMessage));
  send_record(out, 0);
}

py::dict Channel::open() {
  const WorkCell cell = take();
  if (cell.kind != ToWorker::kOpen) broken("an unexpected message");
  RecordReader in(memory(cell.segment, cell.offset, cell.record_bytes));
  use_room(cell);
  tag_ = cell.tag;
  py::dict out;
  out["model"] = std::string(in.get_text());
  out["version"] = in.get<std::int64_t>();
  out["path"] = std::string(in.get_text());
  out["folder"] = std::string(in.get_text());
  out["repository"] = std::string(in.get_text());
  out["kind"] = std::string(in.get_text());
  out["instance"] = in.get<std::int64_t>();
  out["instance_name"] = std::string(in.get_text());
  out["threads"] = in.get<std::int64_t>();
  out["max_batch_rows"] = in.get<std::int64_t>();
  out["parameters"] = get_parameters(in);
  out["inputs"] = get_tensors(in);
  out["outputs"] = get_tensors(in);
  if (!in.at_end()) broken("a record that is cut off");
  return out;
}

std::vector<Channel::Tensor> Channel::put_tensors(const py::object& specs, RecordWriter& out) {
  const py::sequence list(specs);
  std::vector<Tensor> tensors;
  out.put(static_cast<std::uint32_t>(list.size()));
  for (const py::handle spec : list) {
    const auto name = spec.attr("name").cast<std::string>();
    const auto datatype = spec.attr("datatype").cast<std::string>();
    const auto dtype = parse_dtype(datatype);
    if (!dtype)
      throw py::value_error("'" + name + "'.datatype: got \"" + datatype + "\", want one of OIP's, as FP32");
    const auto shape = py::sequence(spec.attr("shape"));
    if (shape.size() > kMaxRank) throw py::value_error("'" + name + "'.shape: has too many dimensions");
    out.put_text(name);
    out.put(static_cast<std::uint8_t>(*dtype));
    out.put(static_cast<std::uint32_t>(shape.size()));
    for (const py::handle dim : shape) out.put(dim.cast<std::int64_t>());
    out.put(static_cast<std::uint8_t>(spec.attr("optional").cast<bool>()));
    PyObject* interned = PyUnicode_InternFromString(name.c_str());
    tensors.push_back({py::reinterpret_steal<py::str>(interned), *dtype});
  }
  return tensors;
}

void Channel::describe(const py::object& description) {
  RecordWriter out;
  out.put(std::uint8_t{0});
  out.put(description.attr("max_batch_rows").cast<std::int64_t>());
  inputs_ = put_tensors(description.attr("inputs"), out);
  outputs_ = put_tensors(description.attr("outputs"), out);
  const py::dict properties(description.attr("properties"));
  out.put(static_cast<std::uint32_t>(properties.size()));
  for (const auto& [name, value] : properties) {
    out.put_text(py::str(name).cast<std::string>());
    out.put_text(py::str(value).cast<std::string>());
  }
  out.put_text(description.attr("platform").cast<std::string>());
  send_record(out, 0);
}

}  // namespace fastserve::bind::worker
