// _core.Engine's calls for models that sleep (engine/waiting_rooms.h).
#include <pybind11/stl.h>

#include "bind/engine.h"
#include "bind/interpreter.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

void set_awake(PyEngine& self, const std::string& model, const std::string& reason) {
  const std::shared_ptr<Engine> engine = self.shared();
  const Unlocked unlocked;
  engine->set_awake(model, reason);
}

}  // namespace

void register_sleep(py::module_& module, py::class_<PyEngine>& engine) {
  py::class_<ParkingTotals>(module, "ParkingTotals")
      .def_readonly("requests", &ParkingTotals::requests)
      .def_readonly("bytes", &ParkingTotals::bytes)
      .def_readonly("parked", &ParkingTotals::parked)
      .def_readonly("refused", &ParkingTotals::refused);
  engine
      .def(
          "set_asleep",
          [](PyEngine& self, const std::string& model, bool holds, std::uint16_t load_s) {
            self.engine().set_asleep(model, Sleep{holds, load_s});
          },
          py::arg("model"), py::arg("holds") = true, py::arg("load_s") = 1)
      .def("set_awake", &set_awake, py::arg("model"), py::arg("reason") = "")
      .def("take_asked", [](PyEngine& self) { return self.engine().take_asked(); })
      .def("asked_fd", [](PyEngine& self) { return self.engine().asked_fd(); })
      .def("parking", [](PyEngine& self) { return self.engine().parking(); });
}

}  // namespace fastserve::bind
