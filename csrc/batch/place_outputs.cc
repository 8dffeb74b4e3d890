#include "batch/place_outputs.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "memory/device_memory.h"
#include "memory/region.h"

namespace fastserve {
namespace {

Status does_not_fit(const RequestedOutput& wanted, std::size_t bytes) {
  return {Code::kInvalidArgument,
          "shared memory size specified with the request for output '" + std::string(wanted.name) + "' (" +
              std::to_string(wanted.destination.size()) + " bytes) should be at least " +
              std::to_string(bytes) + " bytes to hold the results"};
}

void refuse(Response& response, Status refusal) {
  response.release();
  response.status = std::move(refusal);
  response.misplaced = true;
}

// Outputs stand in the order of requested_outputs, where there are any.
std::size_t outputs_with_places(const Request& request) {
  return std::min(request.requested_outputs.size(), request.response.outputs.size());
}

bool waits_for_its_place(const RequestedOutput& wanted, const OutputTensor& output) {
  return wanted.destination.data() != nullptr && !output.placed;
}

std::uint64_t place(Request& request) {
  Response& response = request.response;
  std::uint64_t copied = 0;
  for (std::size_t i = 0; i < outputs_with_places(request); ++i) {
    const RequestedOutput& wanted = request.requested_outputs[i];
    OutputTensor& output = response.outputs[i];
    if (!waits_for_its_place(wanted, output)) continue;
    const bool is_there = output.data.data() == wanted.destination.data();
    if (wanted.on_device != nullptr && !is_there) {
      const Status written =
          wanted.on_device->write(wanted.destination.data(), output.data.data(), output.data.size());
      if (!written.is_ok()) {
        refuse(response, written);
        return copied;
      }
      copied += output.data.size();
    } else if (!is_there && !output.data.empty()) {
      // The place may overlap with an input, which an output may be a view of.
      std::memmove(wanted.destination.data(), output.data.data(), output.data.size());
      copied += output.data.size();
    }
    output.data = wanted.destination.first(output.data.size());
    output.placed = true;
  }
  return copied;
}

}  // namespace

void check_places(Request& request) {
  Response& response = request.response;
  for (std::size_t i = 0; i < outputs_with_places(request); ++i) {
    const RequestedOutput& wanted = request.requested_outputs[i];
    const OutputTensor& output = response.outputs[i];
    if (!waits_for_its_place(wanted, output) || output.data.size() <= wanted.destination.size()) continue;
    return refuse(response, does_not_fit(wanted, output.data.size()));
  }
}

std::uint64_t place_outputs(Request& request) {
  Response& response = request.response;
  check_places(request);
  const std::uint64_t copied = response.status.is_ok() ? place(request) : 0;
  if (!response.status.is_ok() && response.status.code() != Code::kInternal) return copied;
  for (const std::shared_ptr<Region>& region : request.regions) {
    if (!region->broken()) continue;
    refuse(response, region->refusal());
    break;
  }
  return copied;
}

}  // namespace fastserve
