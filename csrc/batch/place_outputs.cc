#include "batch/place_outputs.h"

#include <cstring>
#include <string>

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
}

// In every output's place, as far as it goes.
std::uint64_t place(Request& request) {
  Response& response = request.response;
  std::uint64_t copied = 0;
  // Outputs stand in the order of requested_outputs, where there are any.
  for (std::size_t i = 0; i < request.requested_outputs.size() && i < response.outputs.size(); ++i) {
    const RequestedOutput& wanted = request.requested_outputs[i];
    OutputTensor& output = response.outputs[i];
    if (wanted.destination.data() == nullptr || output.placed) continue;
    if (output.data.size() > wanted.destination.size()) {
      refuse(response, does_not_fit(wanted, output.data.size()));
      return copied;
    }
    if (output.data.data() != wanted.destination.data() && !output.data.empty()) {
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

std::uint64_t place_outputs(Request& request) {
  Response& response = request.response;
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
