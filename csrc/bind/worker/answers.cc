// What the model answers -> the batch's room. (Channel)
#include <algorithm>
#include <cstring>
#include <utility>

#include "bind/worker/channel.h"

namespace py = pybind11;

namespace fastserve::bind::worker {

using fastserve::worker::aligned;
using fastserve::worker::Answered;
using fastserve::worker::Kind;
using fastserve::worker::kMostParameters;
using fastserve::worker::kMostParameterText;
using fastserve::worker::RecordWriter;

namespace {

constexpr int kInternal = 13;
constexpr int kResourceExhausted = 8;
constexpr std::size_t kMostMessage = 2048;  // room for which there is always (expected_room)

void put_output(const Output& output, std::size_t offset, RecordWriter& out) {
  out.put(static_cast<std::uint32_t>(output.index));
  out.put(static_cast<std::uint8_t>(output.dtype));
  out.put(static_cast<std::uint32_t>(output.shape.rank()));
  for (const std::int64_t dim : output.shape.dims()) out.put(dim);
  out.put(static_cast<std::uint64_t>(offset));
  out.put(static_cast<std::uint64_t>(output.bytes));
}

py::handle interned(const char* name) { return PyUnicode_InternFromString(name); }

py::object attribute(py::handle object, py::handle name) {
  PyObject* found = PyObject_GetAttr(object.ptr(), name.ptr());
  if (found == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(found);
}

// "" or what is wrong. The bool first: it is an int too.
std::string put_parameter(py::handle name, py::handle value, RecordWriter& out) {
  if (!PyUnicode_Check(name.ptr()))
    return std::string("parameters: got a name of type ") + Py_TYPE(name.ptr())->tp_name + ", want str";
  const auto text = name.cast<std::string>();
  const std::string title = "parameters[\"" + (text.size() > 100 ? "..." : text) + "\"]: ";
  if (text.empty() || text.size() > kMostParameterText) return title + "a name has 1 to 65536 bytes";
  out.put_text(text);
  if (PyBool_Check(value.ptr())) {
    out.put(Kind::kBool);
    out.put(static_cast<std::uint8_t>(value.ptr() == Py_True));
  } else if (PyLong_Check(value.ptr())) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    const unsigned long long large = overflow > 0 ? PyLong_AsUnsignedLongLong(value.ptr()) : 0;
    if (overflow < 0 || PyErr_Occurred() != nullptr) {
      PyErr_Clear();
      return title + "got an integer that is not within -2^63 to 2^64 - 1";
    }
    out.put(overflow == 0 ? Kind::kInt : Kind::kUint);
    overflow == 0 ? out.put(std::int64_t{number}) : out.put(std::uint64_t{large});
  } else if (PyFloat_Check(value.ptr())) {
    out.put(Kind::kDouble);
    out.put(PyFloat_AS_DOUBLE(value.ptr()));
  } else if (PyUnicode_Check(value.ptr())) {
    const auto given = value.cast<std::string>();
    if (given.size() > kMostParameterText) return title + "a text has at most 65536 bytes";
    out.put(Kind::kString);
    out.put_text(given);
  } else {
    return title + "got " + Py_TYPE(value.ptr())->tp_name + ", want bool, int, float or str";
  }
  return {};
}

// The count and each, as the record has them; "" or what is wrong.
std::string put_parameters(py::handle given, RecordWriter& out) {
  if (given.is_none() || (PyDict_Check(given.ptr()) && PyDict_GET_SIZE(given.ptr()) == 0)) return {};
  const auto parameters = py::cast<py::dict>(given);
  if (parameters.size() > kMostParameters) {
    return "parameters: got " + std::to_string(parameters.size()) + ", want " +
           std::to_string(kMostParameters) + " or fewer";
  }
  out.put(static_cast<std::uint32_t>(parameters.size()));
  for (const auto& [name, value] : parameters) {
    std::string wrong = put_parameter(name, value, out);
    if (!wrong.empty()) return wrong;
  }
  return {};
}

}  // namespace

// "" or what is wrong.
std::string Channel::read_outputs(const py::dict& given, std::vector<Output>& out) {
  for (const auto& [name, value] : given) {
    const auto same = [&](const Tensor& tensor) {
      return tensor.name.ptr() == name.ptr() ||
             PyObject_RichCompareBool(tensor.name.ptr(), name.ptr(), Py_EQ) == 1;
    };
    const auto found = std::ranges::find_if(outputs_, same);
    const auto title = [&] { return "outputs[\"" + py::str(name).cast<std::string>() + "\"]: "; };
    if (found == outputs_.end()) return title() + "the model has no such output";
    Output& output = out.emplace_back();
    output.index = static_cast<std::size_t>(found - outputs_.begin());
    const std::string wrong = read_output(value, found->dtype, output);
    if (!wrong.empty()) return title() + wrong;
  }
  return {};
}

void Channel::send_outputs(std::vector<std::vector<Output>>& slots,
                           std::vector<std::pair<int, std::string>>& errors,
                           const std::vector<RecordWriter>& parameters, bool whole) {
  RecordWriter record;
  record.put(static_cast<std::uint8_t>(whole ? Answered::kWhole : Answered::kBySlot));
  if (!whole) record.put(static_cast<std::uint32_t>(slots.size()));
  std::size_t at = 0;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    if (!whole) record.put(static_cast<std::uint8_t>(errors[s].first != 0));
    if (errors[s].first != 0) {
      record.put(static_cast<std::uint8_t>(errors[s].first));
      record.put_text(std::string_view(errors[s].second).substr(0, kMostMessage));
      continue;
    }
    record.put(static_cast<std::uint32_t>(slots[s].size()));
    for (const Output& output : slots[s]) {
      put_output(output, at, record);
      at += aligned(output.bytes);
    }
    if (whole) continue;
    if (parameters[s].size() == 0) record.put(std::uint32_t{0});
    record.put_bytes(parameters[s].bytes());
  }
  const std::size_t needed = at + record.size();
  if (needed > room_.size()) {
    ask_for_room(needed);
    if (needed > room_.size()) {
      return refuse(kResourceExhausted, "the outputs take " + std::to_string(needed) +
                                            " bytes, for which the server has no memory");
    }
  }
  std::size_t to = 0;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    if (errors[s].first != 0) continue;
    for (const Output& output : slots[s]) {
      if (output.bytes != 0) std::memcpy(room_.data() + to, output.data, output.bytes);
      to += aligned(output.bytes);
    }
  }
  send_record(record, at);
}

void Channel::answer(const py::sequence& answers) {
  static const py::handle kError = interned("error");
  static const py::handle kOutputs = interned("outputs");
  static const py::handle kParameters = interned("parameters");
  if (answers.size() != slots_) {
    return refuse(kInternal, "execute returned " + std::to_string(answers.size()) + " answers for " +
                                 std::to_string(slots_) + " requests");
  }
  std::vector<std::vector<Output>> slots(slots_);
  std::vector<std::pair<int, std::string>> errors(slots_);
  std::vector<RecordWriter> parameters(slots_);
  for (std::size_t s = 0; s < slots_; ++s) {
    const py::object answer = answers[s];
    const py::object error = attribute(answer, kError);
    if (!error.is_none()) {
      const py::sequence pair(error);
      const int code = py::cast<int>(pair[0]);
      errors[s] = {code >= 1 && code <= 16 ? code : kInternal, py::str(pair[1]).cast<std::string>()};
      continue;
    }
    std::string wrong = read_outputs(attribute(answer, kOutputs), slots[s]);
    if (wrong.empty()) wrong = put_parameters(attribute(answer, kParameters), parameters[s]);
    if (!wrong.empty()) errors[s] = {kInternal, std::move(wrong)};
  }
  send_outputs(slots, errors, parameters, false);
}

void Channel::answer_whole(const py::dict& outputs) {
  std::vector<std::vector<Output>> slots(1);
  std::vector<std::pair<int, std::string>> errors(1);
  const std::string wrong = read_outputs(outputs, slots[0]);
  if (!wrong.empty()) return refuse(kInternal, wrong);
  send_outputs(slots, errors, {}, true);
}

}  // namespace fastserve::bind::worker
