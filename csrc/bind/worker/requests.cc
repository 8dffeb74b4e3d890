// A batch's record -> what the model gets. (Channel)
#include <utility>

#include "bind/worker/channel.h"

namespace py = pybind11;

namespace fastserve::bind::worker {

using fastserve::worker::Kind;
using fastserve::worker::RecordReader;

namespace {

py::str text_of(std::string_view text) {
  PyObject* made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

py::object get_value(RecordReader& in) {
  switch (static_cast<Kind>(in.get<std::uint8_t>())) {
    case Kind::kBool:
      return py::bool_(in.get<std::uint8_t>() != 0);
    case Kind::kInt:
      return py::int_(in.get<std::int64_t>());
    case Kind::kUint:
      return py::int_(in.get<std::uint64_t>());
    case Kind::kDouble:
      return py::float_(in.get<double>());
    case Kind::kString:
      return text_of(in.get_text());
  }
  in.fail();
  return py::none();
}

struct Head {
  std::int64_t rows = 0;
  std::string_view id;
  std::uint32_t priority = 0;
  std::int64_t timeout_us = 0;
};

Head get_head(RecordReader& in) {
  Head head;
  head.rows = in.get<std::int64_t>();
  head.id = in.get_text();
  head.priority = in.get<std::uint32_t>();
  head.timeout_us = in.get<std::int64_t>();
  return head;
}

py::dict get_parameters(RecordReader& in) {
  py::dict out;
  for (auto left = in.get<std::uint32_t>(); left != 0 && in.ok(); --left) {
    const py::str name = text_of(in.get_text());
    out[name] = get_value(in);
  }
  return out;
}

// Made once: keyword names of a request, in the order of its arguments.
py::handle keywords() {
  static const auto* const held = new py::tuple(
      py::make_tuple(py::str("id"), py::str("inputs"), py::str("outputs"), py::str("parameters"),
                     py::str("priority"), py::str("timeout_us"), py::str("correlation_id")));
  return *held;
}

py::object correlation_id(const py::dict& parameters) {
  PyObject* found = PyDict_GetItemString(parameters.ptr(), "sequence_id");
  return found == nullptr ? py::object(py::int_(0)) : py::reinterpret_borrow<py::object>(found);
}

}  // namespace

Channel::SlotInput Channel::get_input(RecordReader& in) {
  SlotInput input;
  input.present = in.get<std::uint8_t>() != 0;
  if (!input.present) return input;
  for (auto rank = in.get<std::uint32_t>(); rank != 0 && in.ok(); --rank)
    input.shape.push_back(in.get<std::int64_t>());
  const auto segment = in.get<std::uint32_t>();
  const auto offset = in.get<std::uint64_t>();
  const auto bytes = in.get<std::uint64_t>();
  input.data = memory(segment, offset, bytes);
  return input;
}

py::object Channel::get_request(RecordReader& in, const py::object& request_type) {
  const Head head = get_head(in);
  const py::str id = text_of(head.id);
  const py::dict parameters = get_parameters(in);
  const auto wanted = in.get<std::uint32_t>();
  py::tuple outputs(wanted);
  for (std::uint32_t i = 0; i < wanted; ++i) {
    const auto index = in.get<std::uint32_t>();
    outputs[i] = index < outputs_.size() ? outputs_[index].name : py::str();
  }
  py::dict inputs;
  for (const Tensor& tensor : inputs_) {
    const SlotInput input = get_input(in);
    if (input.present) inputs[tensor.name] = array_of(tensor.dtype, input.shape, input.data, py::none());
  }
  const py::int_ priority(head.priority);
  const py::int_ timeout(head.timeout_us);
  const py::object correlation = correlation_id(parameters);
  PyObject* const arguments[] = {id.ptr(),       inputs.ptr(),  outputs.ptr(),    parameters.ptr(),
                                 priority.ptr(), timeout.ptr(), correlation.ptr()};
  PyObject* made = PyObject_Vectorcall(request_type.ptr(), arguments, 0, keywords().ptr());
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

py::object Channel::next(const py::object& request_type) {
  if (!take_batch()) return py::none();
  RecordReader in(record_);
  slots_ = in.get<std::uint32_t>();
  py::list requests;
  for (std::size_t i = 0; i < slots_; ++i) requests.append(get_request(in, request_type));
  if (!in.at_end()) throw std::runtime_error("the server's channel: a batch's record is cut off");
  return requests;
}

// The slots' rows lie one behind the other, so the first slot's place and all rows are the whole.
py::object Channel::next_whole() {
  if (!take_batch()) return py::none();
  RecordReader in(record_);
  slots_ = in.get<std::uint32_t>();
  std::int64_t rows = 0;
  std::vector<SlotInput> whole(inputs_.size());
  for (std::size_t s = 0; s < slots_; ++s) {
    rows += get_head(in).rows;
    get_parameters(in);
    for (auto wanted = in.get<std::uint32_t>(); wanted != 0 && in.ok(); --wanted) in.get<std::uint32_t>();
    for (SlotInput& input : whole) {
      const SlotInput part = get_input(in);
      if (s == 0) {
        input = part;
      } else if (part.present) {
        input.data = {input.data.data(), input.data.size() + part.data.size()};
      }
    }
  }
  if (!in.at_end()) throw std::runtime_error("the server's channel: a batch's record is cut off");
  py::dict inputs;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    if (!whole[i].present) continue;
    if (slots_ > 1) whole[i].shape[0] = rows;
    inputs[inputs_[i].name] = array_of(inputs_[i].dtype, whole[i].shape, whole[i].data, py::none());
  }
  return py::make_tuple(rows, inputs);
}

}  // namespace fastserve::bind::worker
