// Keeps shapes that a model cannot take away from the compiled model.
//
// A model with free dimensions may still refuse some of them (a reshape into pairs refuses an odd length), and its signature
// cannot say so. The CPU plug-in (2026.4) does not survive that well: after a refused shape it also refuses the last *good*
// one, from every infer request, until it has seen a third (`8 ok, 7 refused, 8 refused, 8 refused, 10 ok, 8 ok`). One client
// would spoil it for the others. So a shape that is new is first put through shape inference of a copy of the model without
// its weights, where a refusal costs nothing and is the client's fault, with the reason.
//
// Refusals that depend on values and not on shapes still reach the plug-in.
// Thread: one at a time (the instance's).
#pragma once

#include <cstdint>
#include <memory>
#include <openvino/openvino.hpp>
#include <set>
#include <span>
#include <vector>

#include "backend/openvino_signature.h"
#include "base/status.h"
#include "batch/batch.h"

namespace fastserve {

class OpenVinoShapes {
 public:
  // Whether a model with this signature needs it: a free dimension other than the rows.
  static bool needed(const Signature& signature);
  // `weightless` as made below; reshaped by check().
  OpenVinoShapes(const ov::Model& weightless, const OpenVinoSignature& resolved);

  // INVALID_ARGUMENT with OpenVINO's reason. Milliseconds for a new shape, a look-up for a known one.
  Status check(std::span<const BatchTensor> inputs);

 private:
  using Key = std::vector<std::int64_t>;
  static constexpr std::size_t kMostKnown = 4096;  // then it forgets all and learns anew

  const std::shared_ptr<ov::Model> model_;
  const std::vector<std::size_t> ports_;
  std::set<Key> good_;
  Key key_;
};

// A copy that infers shapes as `model` does but holds none of its large constants: they become inputs of the same shape.
std::shared_ptr<ov::Model> without_weights(const ov::Model& model);

}  // namespace fastserve
