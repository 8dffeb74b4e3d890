// A backend that is a Python callable in this process: the one place where an instance's thread takes the interpreter lock.
//
// Python gives `make(load)`, called by load once for every instance; it returns `execute(inputs, rows, requests)`, which gets
// {input: array} and answers {output: array}. Inputs are read-only views of the batch's own memory (gathered, so they are the
// model's to keep: a view that is kept keeps its batch); outputs are copied into the batch. Exceptions: those of fastserve.errors
// keep their code, all others are INTERNAL with type and text.
// Thread: load on the loader's, execute on the instance's or a caller's of infer; the lock is taken here, so callers must not wait
// for a backend while they hold it.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "bind/interpreter.h"

namespace fastserve::bind {

class PythonBackend final : public Backend {
 public:
  // What a model has that is loaded without saying it.
  struct Declared {
    std::vector<TensorSpec> inputs, outputs;
    std::int64_t max_batch_rows = 0;
  };

  PythonBackend(std::string name, Declared declared, pybind11::object make)
      : name_(std::move(name)),
        declared_(std::move(declared)),
        make_(std::make_shared<KeptObject>(std::move(make))) {}

  std::string_view name() const override { return name_; }
  // INVALID_ARGUMENT: no inputs or outputs, or shapes without rows in front of a model that batches.
  Result<std::unique_ptr<LoadedModel>> load(const LoadSpec& spec, const Progress& progress) override;

 private:
  const std::string name_;
  const Declared declared_;
  const std::shared_ptr<KeptObject> make_;
};

// The exception that is set, as a status; clears it. Interpreter lock held.
Status take_exception(pybind11::error_already_set& error);

}  // namespace fastserve::bind
