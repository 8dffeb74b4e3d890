#include "bind/call.h"

#include <cmath>

#include "bind/numpy_tensor.h"

namespace fastserve::bind {
namespace {

constexpr double kLongestTimeoutSeconds = 1e9;  // beyond: no deadline; keeps the nanoseconds in range

Status set_deadline(std::optional<double> seconds, Request& request) {
  if (!seconds) return Status::ok();
  if (std::isnan(*seconds) || *seconds < 0) {
    return invalid_argument("timeout: got " + std::to_string(*seconds) + ", want 0 or more seconds");
  }
  if (*seconds < kLongestTimeoutSeconds) {
    request.deadline = monotonic_now() + static_cast<Nanos>(*seconds * static_cast<double>(kSecond));
  }
  return Status::ok();
}

}  // namespace

Status Call::fill(CallArguments from) {
  arguments = std::move(from);
  request.model_name = arguments.model;
  request.model_version = arguments.version;
  request.id = arguments.request_id;
  request.priority = arguments.priority;
  for (const std::string& name : arguments.outputs) request.requested_outputs.push_back({name, 0, false});
  request.times.received = monotonic_now();
  FS_RETURN_IF_ERROR(set_deadline(arguments.timeout_seconds, request));
  return bind_inputs(arguments.inputs, request, keep);
}

void Call::reset() {
  request.response.release();
  request.reset();
  arguments = {};
  keep.clear();
  tag = pybind11::object();
}

}  // namespace fastserve::bind
