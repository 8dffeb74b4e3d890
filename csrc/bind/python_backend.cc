#include "bind/python_backend.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "backend/allowed_rows.h"
#include "bind/dtypes.h"
#include "bind/numpy_tensor.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// What native code makes of Python's call: never an exception.
template <class CallPython>
auto python(CallPython&& call) -> decltype(call()) {
  try {
    return call();
  } catch (py::error_already_set& error) {
    return take_exception(error);
  } catch (const std::exception& error) {
    return internal_error(error.what());
  }
}

std::string output_field(const TensorSpec& spec) { return "outputs[\"" + spec.name + "\"]"; }

class PythonInstance final : public BackendInstance {
 public:
  PythonInstance(Signature signature, py::object execute)
      : signature_(std::move(signature)), execute_(std::move(execute)) {}

  // Loader thread, without the interpreter lock. A class's close() is called.
  ~PythonInstance() override {
    if (interpreter_ended()) return;
    const Locked lock;
    try {
      if (py::hasattr(execute_.get(), "close")) execute_.get().attr("close")();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("fastserve: close() of a Python backend");
    }
  }

  int depth() const override { return 1; }
  bool binds_inputs() const override { return false; }  // Python code keeps what it likes

  void start(Batch& batch) override {
    BatchRef hold(&batch);  // views of it may end before and after the batch does
    Status status;
    {
      const Locked lock;
      status = python([&] { return run(batch); });
    }
    batch.finish(std::move(status));
  }

 private:
  Status run(Batch& batch) {
    const py::object inputs = views(batch);
    const py::object answer =
        execute_.get()(inputs, batch.run_rows(), static_cast<std::int64_t>(batch.slots().size()));
    if (PyDict_Check(answer.ptr()) == 0) {
      return internal_error(std::string("execute returned ") + Py_TYPE(answer.ptr())->tp_name +
                            ", want a dict of outputs");
    }
    for (std::size_t i = 0; i < signature_.outputs.size(); ++i) {
      PyObject* value = PyDict_GetItemString(answer.ptr(), signature_.outputs[i].name.c_str());
      if (value == nullptr)
        return internal_error(output_field(signature_.outputs[i]) + ": execute did not return it");
      FS_RETURN_IF_ERROR(set_output(batch, i, value));
    }
    return Status::ok();
  }

  py::object views(Batch& batch) const {
    py::dict inputs;
    for (std::size_t i = 0; i < signature_.inputs.size(); ++i) {
      const BatchTensor& tensor = batch.inputs()[i];
      if (!tensor.present) continue;
      inputs[py::str(signature_.inputs[i].name)] = view(batch, tensor);
    }
    return inputs;
  }

  static py::object view(Batch& batch, const BatchTensor& tensor) {
    if (tensor.dtype == DType::kBytes) return strings_of(tensor.shape, {tensor.data, tensor.bytes});
    if (tensor.dtype != DType::kBf16) {
      return view_of(tensor.dtype, tensor.shape, tensor.data, batch_owner(&batch), false);
    }
    const OutputTensor as_output{0, tensor.dtype, tensor.shape, {tensor.data, tensor.bytes}};
    return take_output(Response(), as_output);  // float32, a copy
  }

  Status set_output(Batch& batch, std::size_t i, PyObject* value) const {
    const TensorSpec& spec = signature_.outputs[i];
    py::array array = py::array::ensure(value, py::array::c_style);
    if (!array) {
      PyErr_Clear();
      return internal_error(output_field(spec) + ": got " + Py_TYPE(value)->tp_name + ", want an array");
    }
    const auto dtype = dtype_of(array.dtype().ptr());
    if (!dtype || *dtype != spec.dtype || array.dtype().byteorder() == '>') {
      return internal_error(output_field(spec) + ".dtype: execute returned " +
                            py::str(array.dtype()).cast<std::string>() + ", want " + numpy_name(spec.dtype));
    }
    if (static_cast<std::size_t>(array.ndim()) > kMaxRank)
      return internal_error(output_field(spec) + ".shape: too many dimensions");
    Shape shape;
    for (py::ssize_t d = 0; d < array.ndim(); ++d) shape.push_back(array.shape(d));
    FS_RETURN_IF_ERROR(check_shape(spec, shape));
    if (spec.dtype != DType::kBytes) {
      return copy_output(
          batch, i, shape,
          {static_cast<const std::byte*>(array.data()), static_cast<std::size_t>(array.nbytes())});
    }
    ByteBuffer bytes;
    const Status written = append_strings(output_field(spec), array, bytes);
    if (!written.is_ok()) return internal_error(written.message());
    return copy_output(batch, i, shape, {bytes.data(), bytes.size()});
  }

  // The rows are looked at by the batch (Batch::scatter).
  Status check_shape(const TensorSpec& spec, const Shape& shape) const {
    bool fits = shape.rank() == spec.shape.rank();
    for (std::size_t d = 0; fits && d < shape.rank(); ++d)
      fits = spec.shape[d] < 0 || shape[d] == spec.shape[d];
    if (fits) return Status::ok();
    return internal_error(output_field(spec) + ".shape: execute returned " + shape.str() + ", want " +
                          spec.shape.str());
  }

  static Status copy_output(Batch& batch, std::size_t i, const Shape& shape,
                            std::span<const std::byte> data) {
    std::byte* memory = batch.output_memory(i, data.size());
    if (memory == nullptr) return {Code::kResourceExhausted, "no memory for output " + std::to_string(i)};
    if (!data.empty()) std::memcpy(memory, data.data(), data.size());
    batch.copied_bytes += data.size();
    batch.set_output(i, batch.signature().outputs[i].dtype, shape, memory, data.size());
    return Status::ok();
  }

  const Signature signature_;
  const KeptObject execute_;
};

class PythonModel final : public LoadedModel {
 public:
  PythonModel(std::string name, Signature signature, const LoadSpec& spec, std::shared_ptr<KeptObject> make)
      : name_(std::move(name)), signature_(std::move(signature)), spec_(spec), make_(std::move(make)) {}

  const Signature& signature() const override { return signature_; }
  int instance_count() const override { return spec_.instance_count == 0 ? 1 : spec_.instance_count; }
  std::span<const std::int64_t> buckets() const override { return spec_.allowed_rows; }
  Result<std::unique_ptr<BackendInstance>> make_instance(int index) override {
    const Locked lock;
    return python([&]() -> Result<std::unique_ptr<BackendInstance>> {
      py::object execute = make_->get()(spec_, signature_.max_batch_rows, tensors(signature_.inputs),
                                        tensors(signature_.outputs), index);
      return std::unique_ptr<BackendInstance>(
          std::make_unique<PythonInstance>(signature_, std::move(execute)));
    });
  }
  std::map<std::string, std::string> properties() const override { return {{"device", "CPU"}}; }
  std::string_view platform() const override { return name_; }
  bool takes_made_up_requests() const override { return false; }

 private:
  static py::list tensors(const std::vector<TensorSpec>& specs) {
    py::list out;
    for (const TensorSpec& spec : specs) out.append(py::cast(spec));
    return out;
  }

  const std::string name_;
  const Signature signature_;
  const LoadSpec spec_;
  const std::shared_ptr<KeptObject> make_;
};

Status check_tensors(const std::vector<TensorSpec>& specs, const char* what, bool batches) {
  if (specs.empty()) {
    return invalid_argument(std::string(what) +
                            ": got none; register_backend, load or the class has to name them");
  }
  for (const TensorSpec& spec : specs) {
    if (!batches || (!spec.shape.empty() && spec.shape[0] == -1)) continue;
    return invalid_argument(std::string(what) + "[\"" + spec.name + "\"].shape: got " + spec.shape.str() +
                            ", want -1 (rows) in front, because the model batches");
  }
  return Status::ok();
}

}  // namespace

Status take_exception(py::error_already_set& error) {
  const std::string type = py::str(error.type().attr("__name__")).cast<std::string>();
  std::string text;
  std::optional<int> code;
  try {
    text = py::str(error.value()).cast<std::string>();
    const py::object base = py::module_::import("fastserve.errors").attr("FastserveError");
    if (py::isinstance(error.value(), base)) code = error.value().attr("code").cast<int>();
  } catch (py::error_already_set&) {
    text += " (and str() of it failed)";
  }
  if (code && *code > 0 && *code <= static_cast<int>(Code::kUnauthenticated))
    return {static_cast<Code>(*code), text};
  return internal_error(text.empty() ? type : type + ": " + text);
}

Result<std::unique_ptr<LoadedModel>> PythonBackend::load(const LoadSpec& spec, const Progress& /*progress*/) {
  const std::int64_t asked = wanted_batch_rows(spec);
  Signature signature{spec.inputs.empty() ? declared_.inputs : spec.inputs,
                      spec.outputs.empty() ? declared_.outputs : spec.outputs,
                      asked < 0 ? declared_.max_batch_rows : asked};
  FS_RETURN_IF_ERROR(check_tensors(signature.inputs, "inputs", signature.batches()));
  FS_RETURN_IF_ERROR(check_tensors(signature.outputs, "outputs", signature.batches()));
  FS_RETURN_IF_ERROR(check_allowed_rows(spec, signature.max_batch_rows));
  if (spec.instance_count < 0) {
    return invalid_argument("instance_count: got " + std::to_string(spec.instance_count) +
                            ", want 0 or more");
  }
  return std::unique_ptr<LoadedModel>(
      std::make_unique<PythonModel>(name_, std::move(signature), spec, make_));
}

}  // namespace fastserve::bind
