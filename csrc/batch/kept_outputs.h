// Outputs that no device wrote: a cached answer, or one that was put together from the answers of parts. A response refers to
// them as to a device's (Response::batch), so front ends see no difference.
//
// Life: made with one reference, freed by whoever releases the last one; needs no model, no cache and no engine.
// Thread: filled by its maker before anybody else has a reference; read by any thread afterwards.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "batch/batch.h"

namespace fastserve {

class KeptOutputs : public Batch {
 public:
  static constexpr std::size_t kAlign = 64;

  // One block for all outputs. Throws std::bad_alloc.
  explicit KeptOutputs(std::size_t bytes);
  virtual ~KeptOutputs() = default;

  // What one output takes of the block, so that the next one is aligned as well.
  static std::size_t padded(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
  std::byte* memory() const { return memory_.get(); }

  // Makes it the answer: outputs and a reference. `outputs` point into memory().
  void lend(Response& response);

  std::vector<OutputTensor> outputs;
  std::shared_ptr<const ResponseParameters> parameters;

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte[], Free> memory_;
};

}  // namespace fastserve
