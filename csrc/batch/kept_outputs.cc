#include "batch/kept_outputs.h"

#include <new>

namespace fastserve {
namespace {

const Signature& no_signature() {
  static const Signature* const none = new Signature;  // a kept response may outlive static objects
  return *none;
}

}  // namespace

KeptOutputs::KeptOutputs(std::size_t bytes) : Batch(no_signature(), plain_host_allocator()) {
  if (bytes != 0) memory_.reset(plain_host_allocator().allocate(bytes));
  if (bytes != 0 && memory_ == nullptr) throw std::bad_alloc();
  on_recycle = [](Batch& batch) { delete static_cast<KeptOutputs*>(&batch); };
}

void KeptOutputs::Free::operator()(std::byte* memory) const { plain_host_allocator().free(memory, 0); }

void KeptOutputs::lend(Response& response) {
  response.outputs.assign(outputs.begin(), outputs.end());
  response.parameters = parameters;
  response.batch = BatchRef(this);
}

}  // namespace fastserve
