// fastserve._worker: what a worker process needs of C++, and no more: it starts in milliseconds, without the engine.
#include <pybind11/pybind11.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bind/worker/channel.h"

namespace py = pybind11;

namespace {

// Ends with the server (the thread of it that started this process), however that ends. False: it is gone already.
bool end_with_parent(int parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  return ::getppid() == parent;
}

}  // namespace

PYBIND11_MODULE(_worker, module) {
  using fastserve::bind::worker::Channel;
  module.doc() = "A worker process's end of its channel to the server. Internal.";
  module.def("end_with_parent", &end_with_parent, py::arg("parent"));
  py::class_<Channel>(module, "Channel")
      .def(py::init<int, int>(), py::arg("socket"), py::arg("bell"))
      .def("open", &Channel::open)
      .def("describe", &Channel::describe, py::arg("description"))
      .def("refuse", &Channel::refuse, py::arg("code"), py::arg("message"))
      .def("next", &Channel::next, py::arg("request_type"))
      .def("next_whole", &Channel::next_whole)
      .def("answer", &Channel::answer, py::arg("answers"))
      .def("answer_whole", &Channel::answer_whole, py::arg("outputs"));
}
