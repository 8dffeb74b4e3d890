// What the model answers -> the batch's room. (Channel)
#include <algorithm>
#include <cstring>
#include <utility>

#include "bind/worker/channel.h"

namespace py = pybind11;

namespace fastserve::bind::worker {

using fastserve::worker::aligned;
using fastserve::worker::Answered;
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
                           std::vector<std::pair<int, std::string>>& errors, bool whole) {
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
  if (answers.size() != slots_) {
    return refuse(kInternal, "execute returned " + std::to_string(answers.size()) + " answers for " +
                                 std::to_string(slots_) + " requests");
  }
  std::vector<std::vector<Output>> slots(slots_);
  std::vector<std::pair<int, std::string>> errors(slots_);
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
    if (!wrong.empty()) errors[s] = {kInternal, std::move(wrong)};
  }
  send_outputs(slots, errors, false);
}

void Channel::answer_whole(const py::dict& outputs) {
  std::vector<std::vector<Output>> slots(1);
  std::vector<std::pair<int, std::string>> errors(1);
  const std::string wrong = read_outputs(outputs, slots[0]);
  if (!wrong.empty()) return refuse(kInternal, wrong);
  send_outputs(slots, errors, true);
}

}  // namespace fastserve::bind::worker
