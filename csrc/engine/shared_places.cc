#include "engine/shared_places.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "base/checked.h"

namespace fastserve {
namespace {

std::string field_of(std::string_view list, std::string_view name, std::string_view parameter) {
  return std::string(list) + "[\"" + shown(name) + "\"].parameters[\"" + std::string(parameter) + "\"]";
}

class Finder {
 public:
  Finder(const RegionTable& table, Request& request) : table_(table), request_(request) {}

  Status input(const SharedInput& shared) {
    TensorView& input = request_.inputs[shared.input];
    Region* region = nullptr;
    FS_ASSIGN_OR_RETURN(const std::span<std::byte> at, find(shared.place, "inputs", input.name, region));
    input.data = at;
    if (input.dtype == DType::kBytes) return copy(input, *region);
    input.on_device = region->on_device();
    request_.inputs_may_change = true;
    return Status::ok();
  }

  Status output(RequestedOutput& output) {
    Region* region = nullptr;
    FS_ASSIGN_OR_RETURN(output.destination, find(output.shared, "outputs", output.name, region));
    output.on_device = region->on_device();
    return Status::ok();
  }

 private:
  Result<std::span<std::byte>> find(const SharedPlace& place, std::string_view list, std::string_view name,
                                    Region*& region) {
    if (!table_.allowed()) {
      return unimplemented(field_of(list, name, "shared_memory_region") +
                           ": shared memory is not enabled on this server");
    }
    FS_ASSIGN_OR_RETURN(region, hold(place.region, list, name));
    if (region->broken()) return region->refusal();
    auto at = region->at(place.offset, place.bytes);
    if (at.is_ok()) return at;
    const bool offset = place.offset >= region->spec().bytes;
    return invalid_argument(
        at.status().message() + ". " +
        field_of(list, name, offset ? "shared_memory_offset" : "shared_memory_byte_size") + ": got " +
        std::to_string(offset ? place.offset : place.bytes));
  }

  // Once, however many of its tensors are there.
  Result<Region*> hold(std::string_view region_name, std::string_view list, std::string_view name) {
    for (const std::shared_ptr<Region>& region : request_.regions) {
      if (region->spec().name == region_name) return region.get();
    }
    std::shared_ptr<Region> found = table_.find(region_name);
    if (found == nullptr) {
      return not_found("Unable to find shared memory region: '" + shown(region_name) + "'. " +
                       field_of(list, name, "shared_memory_region") + ": it is not registered");
    }
    request_.regions.push_back(std::move(found));
    return request_.regions.back().get();
  }

  Status copy(TensorView& input, const Region& region) {
    const std::uint64_t most = table_.limits().most_copied_bytes;
    if (!checked_add(copied_, std::uint64_t{input.data.size()}, copied_) || copied_ > most) {
      return {Code::kResourceExhausted, field_of("inputs", input.name, "shared_memory_byte_size") + ": got " +
                                            std::to_string(input.data.size()) + ", want BYTES inputs of " +
                                            std::to_string(most) + " bytes or fewer together"};
    }
    if (input.data.empty()) return Status::ok();
    try {
      const std::span<std::byte> own = request_.scratch.allocate(input.data.size());
      if (region.on_device() != nullptr) {
        FS_RETURN_IF_ERROR(region.on_device()->read(own.data(), input.data.data(), own.size()));
      } else {
        std::memcpy(own.data(), input.data.data(), own.size());
      }
      input.data = own;
    } catch (const std::bad_alloc&) {
      return {Code::kResourceExhausted, "no memory for a copy of " + std::to_string(input.data.size()) +
                                            " bytes of input '" + shown(input.name) + "'"};
    }
    return region.broken() ? region.refusal() : Status::ok();
  }

  const RegionTable& table_;
  Request& request_;
  std::uint64_t copied_ = 0;
};

}  // namespace

Status find_shared_places(const RegionTable& table, Request& request) {
  Finder finder(table, request);
  for (const SharedInput& shared : request.shared_inputs) FS_RETURN_IF_ERROR(finder.input(shared));
  for (RequestedOutput& output : request.requested_outputs) {
    if (!output.shared.region.empty()) FS_RETURN_IF_ERROR(finder.output(output));
  }
  return Status::ok();
}

}  // namespace fastserve
