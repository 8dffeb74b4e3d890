// Models that Python gives to the GPU lane (python/fastserve/gpu/source.py), as backend/cuda_source.h wants them. None of this is
// called per batch, but for batches of models that cannot be captured.
//
// Objects of Python are kept until the lane has closed the model. Exceptions: those of fastserve.errors keep their code, all others are
// INTERNAL with type and text.
// Thread: as backend/cuda_source.h says; the interpreter lock is taken here, so callers must not wait for a load while they hold it.
#pragma once

#include <memory>
#include <string>

#include "backend/cuda_source.h"
#include "bind/interpreter.h"

namespace fastserve::bind {

class PythonGraphSource final : public GraphSource {
 public:
  // `calls`: fastserve.gpu.source._GraphCalls.
  PythonGraphSource(std::string name, pybind11::object calls)
      : name_(std::move(name)), calls_(std::move(calls)) {}

  std::string_view name() const override { return name_; }
  Result<std::unique_ptr<GraphModel>> open(const GraphLoad& load) override;

 private:
  const std::string name_;
  const KeptObject calls_;
};

}  // namespace fastserve::bind
