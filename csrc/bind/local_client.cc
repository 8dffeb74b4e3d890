// _core.LocalConnection: the client of the local transport (client/local_connection.h) for fastserve.client.local. It knows no
// engine.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bind/engine.h"
#include "bind/errors.h"
#include "client/local_connection.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

constexpr Nanos kLookForSignals = 100 * kMillisecond;
constexpr double kForeverSeconds = 1e9;

Nanos until(double seconds) {
  if (!(seconds < kForeverSeconds)) return kNever;
  return monotonic_now() + static_cast<Nanos>(std::max(0.0, seconds) * static_cast<double>(kSecond));
}

// Thread: one at a time, with the interpreter lock held; wait() lets go of it, and nobody else may come in meanwhile.
struct PyConnection {
  std::unique_ptr<LocalConnection> connection;
  bool waiting = false;

  LocalConnection& get() const {
    if (waiting) raise({Code::kFailedPrecondition, "another thread waits on this connection"});
    return *connection;
  }
};

struct PyModel {
  std::shared_ptr<PyConnection> connection;
  const LocalModel* model;
};

// Arrays on its memory keep it, it keeps the connection.
struct PySlot {
  PySlot(std::shared_ptr<PyConnection> connection_in, LocalSlot* slot_in)
      : connection(std::move(connection_in)), slot(slot_in) {
    slot->user = this;
  }
  ~PySlot() {
    slot->user = nullptr;
    connection->connection->release(slot);
  }
  PySlot(const PySlot&) = delete;
  PySlot& operator=(const PySlot&) = delete;

  std::shared_ptr<PyConnection> connection;
  LocalSlot* slot;
};

std::shared_ptr<PyConnection> made(Result<std::unique_ptr<LocalConnection>> result) {
  raise_if_error(result.status());
  return std::make_shared<PyConnection>(PyConnection{std::move(result).value()});
}

LocalOptions options(std::uint32_t cells, std::uint32_t cell_bytes, double timeout_s) {
  LocalOptions read;
  read.cells = cells;
  read.cell_bytes = cell_bytes;
  read.timeout_ns = static_cast<Nanos>(timeout_s * static_cast<double>(kSecond));
  return read;
}

std::shared_ptr<PyConnection> connect(const std::string& path, std::uint32_t cells, std::uint32_t cell_bytes,
                                      double timeout_s) {
  std::optional<Result<std::unique_ptr<LocalConnection>>> result;
  {
    const py::gil_scoped_release unlocked;
    result.emplace(LocalConnection::connect(path, options(cells, cell_bytes, timeout_s)));
  }
  return made(std::move(*result));
}

std::shared_ptr<PyConnection> over(int fd, std::uint32_t cells, std::uint32_t cell_bytes, double timeout_s) {
  UniqueFd socket(::dup(fd));
  std::optional<Result<std::unique_ptr<LocalConnection>>> result;
  {
    const py::gil_scoped_release unlocked;
    result.emplace(LocalConnection::over(std::move(socket), options(cells, cell_bytes, timeout_s)));
  }
  return made(std::move(*result));
}

PyModel open(const std::shared_ptr<PyConnection>& self, const std::string& name, const std::string& version) {
  LocalConnection& connection = self->get();
  self->waiting = true;
  std::optional<Result<const LocalModel*>> result;
  {
    const py::gil_scoped_release unlocked;
    result.emplace(connection.open(name, version));
  }
  self->waiting = false;
  raise_if_error(result->status());
  return {self, **result};
}

using GivenInput = std::tuple<std::size_t, std::vector<std::int64_t>, std::uint64_t>;  // index, shape, bytes
using GivenOutput = std::pair<std::size_t, std::uint64_t>;                             // index, room

std::unique_ptr<PySlot> make_slot(const PyModel& model, const std::vector<GivenInput>& inputs,
                                  const std::vector<GivenOutput>& outputs) {
  std::vector<InputPlan> in;
  std::vector<OutputPlan> out;
  for (const auto& [index, shape, bytes] : inputs) in.push_back({index, Shape(shape), bytes});
  for (const auto& [index, room] : outputs) out.push_back({index, room});
  auto slot = model.connection->get().make_slot(*model.model, in, out);
  raise_if_error(slot.status());
  return std::make_unique<PySlot>(model.connection, *slot);
}

py::list plan(const PyModel& model, std::int64_t rows) {
  std::vector<InputPlan> inputs;
  std::vector<OutputPlan> outputs;
  raise_if_error(LocalConnection::plan(*model.model, rows, inputs, outputs));
  std::vector<GivenInput> in;
  std::vector<GivenOutput> out;
  for (const InputPlan& each : inputs) {
    const auto dims = each.shape.dims();
    in.emplace_back(each.index, std::vector<std::int64_t>(dims.begin(), dims.end()), each.bytes);
  }
  for (const OutputPlan& each : outputs) out.emplace_back(each.index, each.room);
  py::list both;
  both.append(in);
  both.append(out);
  return both;
}

// The bytes themselves; Python gives them dtype and shape.
py::array_t<std::uint8_t> memory_of(const py::object& owner, std::span<std::byte> bytes) {
  return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(bytes.size()),
                                   reinterpret_cast<std::uint8_t*>(bytes.data()), owner);
}

py::object slot_output(const py::object& self, std::size_t i) {
  const LocalSlot& slot = *self.cast<PySlot&>().slot;
  if (i >= slot.answered()) throw py::index_error("no such output");
  const LocalAnswerOutput& output = slot.output(i);
  const auto dims = output.shape.dims();
  return py::make_tuple(std::string(dtype_name(output.dtype)),
                        py::tuple(py::cast(std::vector<std::int64_t>(dims.begin(), dims.end()))),
                        memory_of(self, slot.output_memory(i).first(output.bytes)));
}

void wait(const std::shared_ptr<PyConnection>& self, double seconds) {
  LocalConnection& connection = self->get();
  const Nanos end = until(seconds);
  for (;;) {
    Status status;
    self->waiting = true;
    {
      const py::gil_scoped_release unlocked;
      status = connection.wait(std::min(end, monotonic_now() + kLookForSignals));
    }
    self->waiting = false;
    if (status.is_ok()) return;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    const bool goes_on = status.code() == Code::kAborted || status.code() == Code::kDeadlineExceeded;
    if (!goes_on || monotonic_now() >= end) raise(status);
  }
}

// The next slot that was answered, or None.
py::object next(const std::shared_ptr<PyConnection>& self) {
  auto slot = self->get().next();
  raise_if_error(slot.status());
  if (*slot == nullptr) return py::none();
  return py::cast(static_cast<PySlot*>((*slot)->user), py::return_value_policy::reference);
}

template <class Value>
auto of_slot(void (LocalSlot::*set)(Value)) {
  return [set](PySlot& self, Value value) { (self.slot->*set)(value); };
}

// bool before int: it is one.
GivenParameter parameter_of(py::handle name, py::handle value) {
  GivenParameter made{py::cast<std::string>(name), false};
  const auto wrong = [&](const std::string& got, const char* want) {
    raise({Code::kInvalidArgument, "parameters[\"" + made.name + "\"]: got " + got + ", want " + want});
  };
  if (PyBool_Check(value.ptr())) {
    made.value = value.ptr() == Py_True;
  } else if (PyLong_Check(value.ptr())) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    made.value = std::int64_t{number};
    if (overflow != 0) {
      const unsigned long long large = overflow > 0 ? PyLong_AsUnsignedLongLong(value.ptr()) : 0;
      if (overflow < 0 || PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        wrong(py::str(value).cast<std::string>(), "an integer from -2^63 to 2^64 - 1");
      }
      made.value = std::uint64_t{large};
    }
  } else if (PyFloat_Check(value.ptr())) {
    made.value = PyFloat_AS_DOUBLE(value.ptr());
  } else if (PyUnicode_Check(value.ptr())) {
    made.value = py::cast<std::string>(value);
  } else {
    wrong(Py_TYPE(value.ptr())->tp_name, "bool, int, float or str");
  }
  return made;
}

void set_parameters(PySlot& self, const py::dict& parameters) {
  std::vector<GivenParameter> made;
  made.reserve(parameters.size());
  for (const auto& [name, value] : parameters) made.push_back(parameter_of(name, value));
  raise_if_error(self.slot->set_parameters(std::move(made)));
}

// {name: value} of the last answer.
py::dict answered_parameters(const PySlot& self) {
  py::dict out;
  for (const GivenParameter& each : self.slot->answered_parameters()) {
    const py::object value =
        std::visit([](const auto& held) -> py::object { return py::cast(held); }, each.value);
    out[py::str(each.name)] = value;
  }
  return out;
}

void register_slot(py::module_& module) {
  py::class_<PySlot>(module, "LocalSlot")
      .def(
          "input_memory",
          [](const py::object& self, std::size_t i) {
            const LocalSlot& slot = *self.cast<PySlot&>().slot;
            if (i >= slot.inputs()) throw py::index_error("no such input");
            return memory_of(self, slot.input_memory(i));
          },
          py::arg("input"))
      .def(
          "reshape",
          [](PySlot& self, std::size_t input, const std::vector<std::int64_t>& shape, std::uint64_t bytes) {
            raise_if_error(self.slot->reshape(input, Shape(shape), bytes));
          },
          py::arg("input"), py::arg("shape"), py::arg("bytes"))
      .def("output", &slot_output, py::arg("output"))
      .def("raise_if_failed", [](PySlot& self) { raise_if_error(self.slot->status()); })
      .def_property_readonly("in_flight", [](const PySlot& self) { return self.slot->in_flight(); })
      .def_property_readonly("parameters", &answered_parameters)
      .def("set_id", [](PySlot& self, const std::string& id) { self.slot->set_id(id); })
      .def("set_parameters", &set_parameters, py::arg("parameters"))
      .def("set_priority", of_slot(&LocalSlot::set_priority))
      .def("set_timeout_us", of_slot(&LocalSlot::set_timeout_us))
      .def("set_queue_timeout_us", of_slot(&LocalSlot::set_queue_timeout_us));
}

void register_model(py::module_& module) {
  py::class_<PyModel>(module, "LocalModel")
      .def_property_readonly("number", [](const PyModel& self) { return self.model->number; })
      .def_property_readonly("name", [](const PyModel& self) { return self.model->name; })
      .def_property_readonly("version", [](const PyModel& self) { return self.model->version; })
      .def_property_readonly("max_batch_rows",
                             [](const PyModel& self) { return self.model->signature.max_batch_rows; })
      .def_property_readonly("inputs", [](const PyModel& self) { return self.model->signature.inputs; })
      .def_property_readonly("outputs", [](const PyModel& self) { return self.model->signature.outputs; })
      .def("plan", &plan, py::arg("rows"))
      .def("make_slot", &make_slot, py::arg("inputs"), py::arg("outputs"));
}

}  // namespace

void register_local_client(py::module_& module) {
  register_slot(module);
  register_model(module);
  py::class_<PyConnection, std::shared_ptr<PyConnection>>(module, "LocalConnection")
      .def_static("connect", &connect, py::arg("path"), py::kw_only(), py::arg("cells") = kDefaultCells,
                  py::arg("cell_bytes") = kDefaultCellBytes, py::arg("timeout_s") = 5.0)
      .def_static("over", &over, py::arg("fd"), py::kw_only(), py::arg("cells") = kDefaultCells,
                  py::arg("cell_bytes") = kDefaultCellBytes, py::arg("timeout_s") = 5.0)
      .def("open", &open, py::arg("name"), py::arg("version") = "")
      .def("submit", [](PyConnection& self, PySlot& slot) { raise_if_error(self.get().submit(*slot.slot)); })
      .def("flush", [](PyConnection& self) { self.get().flush(); })
      .def("cancel", [](PyConnection& self, PySlot& slot) { self.get().cancel(*slot.slot); })
      .def("next", &next)
      .def("wait", &wait, py::arg("seconds"))
      .def("arm", [](PyConnection& self) { return self.get().arm(); })
      .def("woken", [](PyConnection& self) { self.get().woken(); })
      .def("close", [](PyConnection& self) { self.get().close(); })
      .def_property_readonly("descriptor",
                             [](const PyConnection& self) { return self.connection->descriptor(); })
      .def_property_readonly("gone", [](const PyConnection& self) { return self.connection->gone(); })
      .def_property_readonly("in_flight",
                             [](const PyConnection& self) { return self.connection->in_flight(); });
}

}  // namespace fastserve::bind
