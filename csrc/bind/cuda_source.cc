#include "bind/cuda_source.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <tuple>
#include <utility>
#include <vector>

#include "bind/python_backend.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

using Addresses = std::vector<DeviceAddress>;

// Python's answers, as source.py makes them.
using Facts =
    std::tuple<std::vector<TensorSpec>, std::vector<TensorSpec>, std::int64_t, std::vector<std::int64_t>,
               std::size_t, bool, bool, std::size_t, std::string, std::map<std::string, std::string>>;
using CapturedTuple = std::tuple<GraphHandle, std::string, Addresses, Addresses>;
using TensorTuple = std::tuple<DeviceAddress, std::vector<std::int64_t>, std::size_t>;

// What native code makes of Python's call: never an exception.
template <class CallPython>
auto python(CallPython&& call) -> decltype(call()) {
  const Locked lock;
  try {
    return call();
  } catch (py::error_already_set& error) {
    return take_exception(error);
  } catch (const std::exception& error) {
    return internal_error(std::string("what the GPU model returned: ") + error.what());
  }
}

// The version's progress, which a model must not call once it is open.
struct ProgressLine {
  const Progress* progress = nullptr;
};

class PythonGraph final : public GraphModel {
 public:
  PythonGraph(py::object model, Facts facts)
      : model_(std::move(model)),
        signature_{std::move(std::get<0>(facts)), std::move(std::get<1>(facts)), std::get<2>(facts)},
        buckets_(std::move(std::get<3>(facts))),
        scratch_bytes_(std::get<4>(facts)),
        owns_inputs_(std::get<5>(facts)),
        owns_outputs_(std::get<6>(facts)),
        weights_bytes_(std::get<7>(facts)),
        platform_(std::move(std::get<8>(facts))),
        properties_(std::move(std::get<9>(facts))) {}

  const Signature& signature() const override { return signature_; }
  std::span<const std::int64_t> buckets() const override { return buckets_; }
  std::size_t lane_scratch_bytes() const override { return scratch_bytes_; }
  bool owns_inputs() const override { return owns_inputs_; }
  bool owns_outputs() const override { return owns_outputs_; }
  std::size_t weights_bytes() const override { return weights_bytes_; }
  std::string_view platform() const override { return platform_; }
  std::map<std::string, std::string> properties() const override { return properties_; }

  Result<Captured> capture(const LaneMemory& memory, std::int64_t rows) override {
    return python([&]() -> Result<Captured> {
      const py::object given = model_.get().attr("capture")(memory.lane, memory.stream, memory.inputs,
                                                            memory.outputs, memory.scratch, rows);
      auto [graph, why_not, inputs, outputs] = given.cast<CapturedTuple>();
      return Captured{graph, std::move(why_not), std::move(inputs), std::move(outputs)};
    });
  }

  Result<std::vector<DeviceTensor>> run(const LaneMemory& memory, std::int64_t rows,
                                        std::span<const DeviceTensor> inputs) override {
    return python([&]() -> Result<std::vector<DeviceTensor>> {
      const py::object given = model_.get().attr("run")(
          memory.lane, memory.stream, memory.inputs, memory.outputs, memory.scratch, rows, tuples_of(inputs));
      return tensors_of(given.cast<std::vector<TensorTuple>>());
    });
  }

  void close() override {
    if (interpreter_ended()) return;
    const Locked lock;
    try {
      model_.get().attr("close")();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("fastserve: close() of a GPU model");
    }
  }

 private:
  static py::list tuples_of(std::span<const DeviceTensor> tensors) {
    py::list out;
    for (const DeviceTensor& tensor : tensors) {
      const auto dims = tensor.shape.dims();
      const std::vector<std::int64_t> shape(dims.begin(), dims.end());
      out.append(py::make_tuple(tensor.address, py::tuple(py::cast(shape)), tensor.bytes));
    }
    return out;
  }

  static Result<std::vector<DeviceTensor>> tensors_of(const std::vector<TensorTuple>& given) {
    std::vector<DeviceTensor> out;
    for (const auto& [address, shape, bytes] : given) {
      if (shape.size() > kMaxRank)
        return internal_error("an output of rank " + std::to_string(shape.size()) + ", want " +
                              std::to_string(kMaxRank) + " or fewer");
      out.push_back({address, Shape(shape), bytes});
    }
    return out;
  }

  const KeptObject model_;
  const Signature signature_;
  const std::vector<std::int64_t> buckets_;
  const std::size_t scratch_bytes_;
  const bool owns_inputs_;
  const bool owns_outputs_;
  const std::size_t weights_bytes_;
  const std::string platform_;
  const std::map<std::string, std::string> properties_;
};

}  // namespace

Result<std::unique_ptr<GraphModel>> PythonGraphSource::open(const GraphLoad& load) {
  const auto line = std::make_shared<ProgressLine>();
  line->progress = &load.progress;
  auto opened = python([&]() -> Result<std::unique_ptr<GraphModel>> {
    const py::cpp_function progress([line](double fraction, const std::string& what) {
      if (line->progress != nullptr) (*line->progress)(fraction, what);
    });
    py::object model = calls_.get().attr("open")(load.spec, load.device, load.device_uuid, load.device_name,
                                                 load.lanes, load.graphs, progress);
    auto facts = model.attr("facts").cast<Facts>();
    return std::unique_ptr<GraphModel>(std::make_unique<PythonGraph>(std::move(model), std::move(facts)));
  });
  const Locked lock;  // `line` may be read by another thread of Python
  line->progress = nullptr;
  return opened;
}

}  // namespace fastserve::bind
