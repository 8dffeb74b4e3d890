// What OpenVINO says, made fit for one line; and the seam that turns its exceptions into Status.
// Thread: any.
#pragma once

#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace fastserve {

// OpenVINO's what() opens with "Exception from src/...cpp:123:" and "Check '...' failed at ..." lines that say where in its
// sources it gave up; the first line behind them says what is wrong. That line, without trailing white space.
std::string openvino_reason(std::string_view what);

// `call` returns a Status or a Result; what it throws becomes one of `code` whose message opens with `what`.
template <class Call>
auto openvino_guarded(Code code, const std::string& what, Call&& call) -> decltype(call()) {
  try {
    return std::forward<Call>(call)();
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, what + ": out of memory");
  } catch (const std::exception& e) {
    return Status(code, what + ": " + openvino_reason(e.what()));
  } catch (...) {
    return Status(code, what + ": OpenVINO threw something that is not a std::exception");
  }
}

}  // namespace fastserve
