// One inference call from Python: the request and the Python objects that it borrows memory from.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "batch/request.h"

namespace fastserve::bind {

// The arguments of infer and submit, as Python gave them.
struct CallArguments {
  std::string model;
  pybind11::dict inputs;
  std::string version;
  std::vector<std::string> outputs;
  std::string request_id;
  std::uint32_t priority = 0;
  std::optional<double> timeout_seconds;  // absolute deadline from now: DEADLINE_EXCEEDED when it passes
};

struct Call {
  Request request;
  CallArguments arguments;             // the request's names point in here
  std::vector<pybind11::object> keep;  // arrays the request's inputs point into
  pybind11::object tag;                // AsyncPort: what take() gives back

  // Interpreter lock held. INVALID_ARGUMENT names the argument.
  Status fill(CallArguments from);
  // Ready for the next call; drops every Python reference.
  void reset();
};

}  // namespace fastserve::bind
