// One inference call from Python: the request and the Python objects that it borrows memory from.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "base/status.h"
#include "batch/request.h"
#include "bind/numpy_tensor.h"
#include "engine/engine.h"

namespace fastserve::bind {

// The arguments of infer and submit, as Python gave them: model, inputs, version, outputs, request_id, priority, timeout.
// Borrowed for the length of the call into C++.
struct CallArguments {
  static constexpr Py_ssize_t kCount = 7;
  PyObject* const* given = nullptr;

  PyObject* model() const { return given[0]; }       // str
  PyObject* inputs() const { return given[1]; }      // mapping
  PyObject* version() const { return given[2]; }     // int, or None: by version policy
  PyObject* outputs() const { return given[3]; }     // sequence of str, or mapping to arrays
  PyObject* request_id() const { return given[4]; }  // str
  PyObject* priority() const { return given[5]; }    // int >= 0
  PyObject* timeout() const { return given[6]; }     // seconds, or None. Absolute deadline from now
};

struct Call {
  Request request;
  std::string version_text;        // the request's view points in here
  std::vector<GivenOutput> given;  // arrays that the caller wants the answer in
  Keep keep;                       // what the request's views point into
  pybind11::object tag;            // Port: what take() gives back

  // Interpreter lock held. INVALID_ARGUMENT names the argument. `engine`: for the signature, when there are `given` arrays.
  Status fill(const CallArguments& from, Engine& engine);
  // {name: array} of an answer that is OK. INVALID_ARGUMENT: it is not what a given array has room for.
  Result<pybind11::object> take_outputs();
  // Why there is no answer, in this API's words.
  Status failure() const;
  // Ready for the next call; drops every Python reference.
  void reset();

 private:
  Status set_texts(const CallArguments& from);
  Status set_outputs(PyObject* wanted, Engine& engine);
  Status set_numbers(PyObject* priority, PyObject* timeout);
  Status check_against_signature(Engine& engine) const;
};

}  // namespace fastserve::bind
