#include "bind/call.h"

#include <cmath>
#include <limits>

namespace py = pybind11;

namespace fastserve::bind {
namespace {

constexpr double kLongestTimeoutSeconds = 1e9;  // beyond: no deadline; keeps the nanoseconds in range

Status wrong_type(const char* argument, PyObject* got, const char* want) {
  PyErr_Clear();
  return invalid_argument(std::string(argument) + ": got " + Py_TYPE(got)->tp_name + ", want " + want);
}

Status view_text(const char* argument, PyObject* text, std::string_view& out, Keep& keep) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &size) : nullptr;
  if (data == nullptr) return wrong_type(argument, text, "a str");
  out = {data, static_cast<std::size_t>(size)};
  if (size != 0) keep.push_back(py::reinterpret_borrow<py::object>(text));
  return Status::ok();
}

Status not_enough_room(const Status& status, const std::vector<GivenOutput>& given, const Request& request) {
  for (const GivenOutput& output : given) {
    if (status.message().find("'" + std::string(output.name) + "'") == std::string::npos) continue;
    for (const RequestedOutput& wanted : request.requested_outputs) {
      if (wanted.name != output.name) continue;
      return invalid_argument("outputs[\"" + std::string(output.name) + "\"]: got an array of " +
                              std::to_string(wanted.destination.size()) + " bytes, and the answer is larger");
    }
  }
  return status;
}

}  // namespace

Status Call::fill(const CallArguments& from, Engine& engine) {
  request.times.received = monotonic_now();
  FS_RETURN_IF_ERROR(set_texts(from));
  FS_RETURN_IF_ERROR(set_numbers(from.priority(), from.timeout()));
  FS_RETURN_IF_ERROR(bind_inputs(from.inputs(), request, keep));
  return set_outputs(from.outputs(), engine);
}

Status Call::set_texts(const CallArguments& from) {
  FS_RETURN_IF_ERROR(view_text("model", from.model(), request.model_name, keep));
  FS_RETURN_IF_ERROR(view_text("request_id", from.request_id(), request.id, keep));
  PyObject* version = from.version();
  if (version == Py_None) return Status::ok();
  if (PyUnicode_Check(version)) return view_text("version", version, request.model_version, keep);
  const long long number = PyLong_Check(version) ? PyLong_AsLongLong(version) : -1;
  if (number < 0) return wrong_type("version", version, "a whole number of 0 or more, a label, or None");
  version_text = std::to_string(number);
  request.model_version = version_text;
  return Status::ok();
}

Status Call::set_numbers(PyObject* priority, PyObject* timeout) {
  const long long level = PyLong_Check(priority) ? PyLong_AsLongLong(priority) : -1;
  if (level < 0 || level > std::numeric_limits<std::uint32_t>::max()) {
    return wrong_type("priority", priority, "a whole number from 0 to 4294967295");
  }
  request.priority = static_cast<std::uint32_t>(level);
  if (timeout == Py_None) return Status::ok();
  const double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1 && PyErr_Occurred() != nullptr) return wrong_type("timeout", timeout, "seconds, or None");
  if (std::isnan(seconds) || seconds < 0) {
    return invalid_argument("timeout: got " + std::to_string(seconds) + ", want 0 or more seconds");
  }
  if (seconds < kLongestTimeoutSeconds) {
    request.deadline = monotonic_now() + static_cast<Nanos>(seconds * static_cast<double>(kSecond));
  }
  return Status::ok();
}

Status Call::set_outputs(PyObject* wanted, Engine& engine) {
  if (wanted == Py_None || (PyTuple_CheckExact(wanted) && PyTuple_GET_SIZE(wanted) == 0)) return Status::ok();
  if (PyDict_Check(wanted) || py::hasattr(wanted, "items")) {
    FS_RETURN_IF_ERROR(bind_outputs(wanted, request, given, keep));
    return check_against_signature(engine);
  }
  if (PyUnicode_Check(wanted))
    return wrong_type("outputs", wanted, "a sequence of names, or a mapping to arrays");
  PyObject* names = PySequence_Fast(wanted, "");
  if (names == nullptr) return wrong_type("outputs", wanted, "a sequence of names, or a mapping to arrays");
  const auto held = py::reinterpret_steal<py::object>(names);
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(names); ++i) {
    RequestedOutput output;
    FS_RETURN_IF_ERROR(view_text("outputs", PySequence_Fast_GET_ITEM(names, i), output.name, keep));
    request.requested_outputs.push_back(output);
  }
  return Status::ok();
}

// Before anything is written to the caller's arrays. The version may be replaced by another one until submit: see take_outputs.
Status Call::check_against_signature(Engine& engine) const {
  FS_ASSIGN_OR_RETURN(ServedVersion * version, engine.ask(request.model_name, request.model_version));
  const bool has_rows = !request.inputs.empty() && !request.inputs.front().shape.empty();
  Status status = check_given(given, version->signature, has_rows ? request.inputs.front().shape[0] : -1);
  version->release();
  return status;
}

Result<py::object> Call::take_outputs() {
  const Response& response = request.response;
  auto result = py::reinterpret_steal<py::object>(PyDict_New());
  for (std::size_t i = 0; i < response.outputs.size(); ++i) {
    const OutputTensor& output = response.outputs[i];
    const std::string& name = request.version->signature.outputs[static_cast<std::size_t>(output.index)].name;
    const auto key = py::reinterpret_steal<py::object>(
        PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size())));
    py::object array;
    if (i < given.size()) {  // in the order in which they were asked for
      if (output.dtype != given[i].dtype || !(output.shape == given[i].shape)) {
        return invalid_argument("outputs[\"" + name + "\"].shape: got " + given[i].shape.str() +
                                ", and the answer is " + output.shape.str());
      }
      array = given[i].array;
    } else {
      array = take_output(response, output);
    }
    if (PyDict_SetItem(result.ptr(), key.ptr(), array.ptr()) != 0) throw py::error_already_set();
  }
  return result;
}

Status Call::failure() const {
  const Status& status = request.response.status;
  return status.code() == Code::kInvalidArgument && !given.empty() ? not_enough_room(status, given, request)
                                                                   : status;
}

void Call::reset() {
  request.response.release();
  request.reset();
  version_text.clear();
  given.clear();
  keep.clear();
  tag = py::object();
}

}  // namespace fastserve::bind
