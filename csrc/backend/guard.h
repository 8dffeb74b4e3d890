// The seam behind which exceptions end: everything that calls into a backend's loading code goes through guarded().
#pragma once

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "base/status.h"

namespace fastserve {

// `call` returns a Status or a Result; what it throws becomes one. `what` opens the message: "backend 'openvino'".
template <class Call>
auto guarded(const std::string& what, Call&& call) -> decltype(call()) {
  try {
    return std::forward<Call>(call)();
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, what + ": out of memory");
  } catch (const std::exception& e) {
    return internal_error(what + ": " + e.what());
  } catch (...) {
    return internal_error(what + ": threw something that is not a std::exception");
  }
}

}  // namespace fastserve
