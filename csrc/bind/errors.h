// Status -> Python exception, through the factory that fastserve.errors installs. Interpreter lock held.
#pragma once

#include <pybind11/pybind11.h>

#include "base/status.h"

namespace fastserve::bind {

// The exception object for a status that is not OK.
pybind11::object make_exception(const Status& status);
// Raises it (throws pybind11::error_already_set).
[[noreturn]] void raise(const Status& status);
inline void raise_if_error(const Status& status) {
  if (!status.is_ok()) raise(status);
}

void register_errors(pybind11::module_& module);

}  // namespace fastserve::bind
