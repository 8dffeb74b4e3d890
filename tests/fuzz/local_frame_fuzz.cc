// libFuzzer: a cell of the local transport as a hostile peer writes it. The invariants: nothing beyond the bytes is read, an accepted
// request is within the limits, and what is accepted encodes again.
// fuzz-sources: csrc/local/local_frame.cc csrc/tensor/*.cc csrc/base/status.cc
#include <cstdlib>
#include <vector>

#include "local/local_frame.h"

using namespace fastserve;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const std::size_t used = used_bytes(bytes);
  if (used > size) std::abort();
  LocalRequest request;
  if (decode_request(bytes, request).is_ok() && request.kind == CellKind::kRequest) {
    if (request.inputs.size() > kMostLocalInputs || request.outputs.size() > kMostLocalOutputs) std::abort();
    std::vector<std::byte> again(kMostCellBytes * 2);
    if (!encode_request(again, request).is_ok()) std::abort();
  }
  LocalAnswer answer;
  if (decode_answer(bytes, answer).is_ok()) {
    std::vector<std::byte> again(kMostCellBytes * 2);
    if (!encode_answer(again, answer).is_ok()) std::abort();
  }
  return 0;
}
