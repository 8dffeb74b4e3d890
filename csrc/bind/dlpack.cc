#include "bind/dlpack.h"

#include <cstring>
#include <optional>
#include <string>

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// dlpack.h. Only what is read here is named; the layouts are its ABI.
struct DlDevice {
  std::int32_t type;
  std::int32_t id;
};
struct DlType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  std::int32_t rank;
  DlType type;
  std::int64_t* shape;
  std::int64_t* strides;  // nullptr: row-major
  std::uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* manager;
  void (*free)(DlManaged*);
};
struct DlManagedVersioned {
  std::uint32_t major;
  std::uint32_t minor;
  void* manager;
  void (*free)(DlManagedVersioned*);
  std::uint64_t flags;
  DlTensor tensor;
};
constexpr std::uint64_t kReadOnly = 1;
constexpr std::int32_t kCpu = 1;
constexpr std::int32_t kCudaHost = 3;  // page-locked memory that the CPU reads as well
enum TypeCode : std::uint8_t { kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

Status bad(std::string_view field, const std::string& what) {
  return invalid_argument(std::string(field) + ": " + what);
}

std::optional<DType> dtype_of(const DlType& type) {
  if (type.lanes != 1) return std::nullopt;
  const auto pick = [&type](DType of8, DType of16, DType of32, DType of64) -> std::optional<DType> {
    return type.bits == 8    ? std::optional(of8)
           : type.bits == 16 ? of16
           : type.bits == 32 ? of32
           : type.bits == 64 ? std::optional(of64)
                             : std::nullopt;
  };
  switch (type.code) {
    case kInt:
      return pick(DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64);
    case kUint:
      return pick(DType::kUint8, DType::kUint16, DType::kUint32, DType::kUint64);
    case kFloat:
      return type.bits == 8 ? std::nullopt : pick(DType::kFp16, DType::kFp16, DType::kFp32, DType::kFp64);
    case kBfloat:
      return type.bits == 16 ? std::optional(DType::kBf16) : std::nullopt;
    case kBool:
      return type.bits == 8 ? std::optional(DType::kBool) : std::nullopt;
    default:
      return std::nullopt;
  }
}

// The library's own exception as a message: "BufferError: Can't export tensors that require gradient".
Status in_its_words(std::string_view field, py::error_already_set& error) {
  const std::string type = py::str(error.type().attr("__name__")).cast<std::string>();
  const std::string text = py::str(error.value()).cast<std::string>();
  return bad(field, type + ": " + text);
}

bool is_row_major(const LentTensor& lent) {
  std::int64_t expected = 1;
  for (std::size_t i = lent.shape.rank(); i-- > 0;) {
    if (lent.shape[i] == 0) return true;
    if (lent.shape[i] != 1 && lent.strides[i] != expected) return false;
    expected *= lent.shape[i];
  }
  return true;
}

Result<LentTensor> read(std::string_view field, py::object capsule) {
  const char* name = PyCapsule_GetName(capsule.ptr());
  PyErr_Clear();
  const DlTensor* tensor = nullptr;
  LentTensor lent;
  // The capsule keeps its name, and with it the tensor: its destructor gives the tensor back.
  if (name != nullptr && std::strcmp(name, "dltensor") == 0) {
    tensor = &static_cast<DlManaged*>(PyCapsule_GetPointer(capsule.ptr(), name))->tensor;
  } else if (name != nullptr && std::strcmp(name, "dltensor_versioned") == 0) {
    const auto* managed = static_cast<DlManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), name));
    if (managed->major != 1)
      return bad(field, "got DLPack version " + std::to_string(managed->major) + ", want 1");
    tensor = &managed->tensor;
    lent.is_read_only = (managed->flags & kReadOnly) != 0;
  } else {
    return bad(field, "__dlpack__ gave something that is not a DLPack capsule");
  }
  if (tensor->device.type != kCpu && tensor->device.type != kCudaHost) {
    return bad(field, "got a tensor on a device of DLPack type " + std::to_string(tensor->device.type) +
                          ", want one in CPU memory");
  }
  const auto dtype = dtype_of(tensor->type);
  if (!dtype) {
    return invalid_argument(std::string(field) + ".dtype: got DLPack code " +
                            std::to_string(tensor->type.code) + " with " + std::to_string(tensor->type.bits) +
                            " bits, which no OIP datatype matches");
  }
  if (tensor->rank < 0 || static_cast<std::size_t>(tensor->rank) > kMaxRank) {
    return invalid_argument(std::string(field) + ".shape: got rank " + std::to_string(tensor->rank) +
                            ", want " + std::to_string(kMaxRank) + " or fewer");
  }
  lent.dtype = *dtype;
  lent.shape = Shape(std::span(tensor->shape, static_cast<std::size_t>(tensor->rank)));
  if (tensor->strides != nullptr) {
    lent.strides = Shape(std::span(tensor->strides, static_cast<std::size_t>(tensor->rank)));
    lent.is_contiguous = is_row_major(lent);
  }
  lent.data = static_cast<std::byte*>(tensor->data) + tensor->byte_offset;
  lent.keep = std::move(capsule);
  return lent;
}

void copy_dimension(const LentTensor& lent, std::size_t dim, const std::byte* from, std::byte*& to) {
  const std::size_t size = dtype_size(lent.dtype);
  if (dim == lent.shape.rank()) {
    std::memcpy(to, from, size);
    to += size;
    return;
  }
  const auto step = lent.strides[dim] * static_cast<std::int64_t>(size);
  for (std::int64_t i = 0; i < lent.shape[dim]; ++i) copy_dimension(lent, dim + 1, from + i * step, to);
}

}  // namespace

bool has_dlpack(py::handle object) { return py::hasattr(object, "__dlpack__"); }

Result<LentTensor> borrow_dlpack(std::string_view field, py::handle object) {
  try {
    if (py::hasattr(object, "__dlpack_device__")) {
      const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
      if (device.first != kCpu && device.first != kCudaHost) {
        return bad(field, "got a tensor on a device of DLPack type " + std::to_string(device.first) +
                              ", want one in CPU memory");
      }
    }
    return read(field, object.attr("__dlpack__")());
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;  // KeyboardInterrupt
    return in_its_words(field, error);
  } catch (const py::cast_error&) {
    return bad(field, "__dlpack_device__ gave something that is not a pair of numbers");
  }
}

void copy_strided(const LentTensor& lent, std::byte* to) { copy_dimension(lent, 0, lent.data, to); }

}  // namespace fastserve::bind
