#include "codec/classification.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

namespace fastserve {
namespace {

constexpr std::size_t kValueChars = 400;  // "%f" of the largest double has 317

// FP16 and BF16 are computed with as float.
struct Half {
  std::uint16_t bits;
};
struct Brain {
  std::uint16_t bits;
};

template <class T>
T widen(T value) {
  return value;
}
float widen(Brain value) {
  const auto bits = static_cast<std::uint32_t>(value.bits) << 16;
  float out = 0;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}
float widen(Half value) {
  const int exponent = value.bits >> 10 & 0x1F;
  const auto mantissa = static_cast<float>(value.bits & 0x3FF);
  float size = 0;
  if (exponent == 0x1F) {
    size = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    size = std::ldexp(mantissa, -24);
  } else {
    size = std::ldexp(mantissa + 1024, exponent - 25);
  }
  return (value.bits & 0x8000) != 0 ? -size : size;
}

template <class T>
bool is_nan(T value) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(value);
  return false;
}

template <class T>
std::size_t write_value(T value, char* out) {
  char* const end = out + kValueChars;
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value)) value = std::numeric_limits<T>::quiet_NaN();  // no "-nan"
    return static_cast<std::size_t>(std::to_chars(out, end, value, std::chars_format::fixed, 6).ptr - out);
  } else {
    return static_cast<std::size_t>(std::to_chars(out, end, +value).ptr - out);
  }
}

void append_element(std::string_view value, std::uint32_t index, std::string_view label, ByteBuffer& out) {
  char digits[16];
  const std::string_view at(
      digits, static_cast<std::size_t>(std::to_chars(digits, std::end(digits), index).ptr - digits));
  const auto size =
      static_cast<std::uint32_t>(value.size() + 1 + at.size() + (label.empty() ? 0 : 1 + label.size()));
  out.append(&size, sizeof(size));
  out.append(value);
  out.push_back(':');
  out.append(at);
  if (label.empty()) return;
  out.push_back(':');
  out.append(label);
}

template <class T>
std::int64_t top(std::span<const std::byte> row, std::int64_t wanted, std::span<const std::string> labels,
                 ByteBuffer& out) {
  using Value = decltype(widen(std::declval<T>()));
  const std::size_t elements = row.size() / sizeof(T);
  const auto value_at = [&](std::uint32_t i) {
    T value;
    std::memcpy(&value, row.data() + i * sizeof(T), sizeof(T));  // outputs are not aligned for their type
    return widen(value);
  };
  const auto before = [&](std::uint32_t a, std::uint32_t b) {
    const Value x = value_at(a);
    const Value y = value_at(b);
    if (is_nan(x) != is_nan(y)) return is_nan(y);
    return x > y || (!(y > x) && a < b);
  };
  std::vector<std::uint32_t> order(elements);
  std::iota(order.begin(), order.end(), 0U);
  const std::int64_t count = std::min(wanted, static_cast<std::int64_t>(elements));
  std::partial_sort(order.begin(), order.begin() + count, order.end(), before);
  char text[kValueChars];
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t index = order[static_cast<std::size_t>(i)];
    const std::size_t size = write_value(value_at(index), text);
    append_element({text, size}, index, index < labels.size() ? labels[index] : std::string_view(), out);
  }
  return count;
}

Status classify(const std::string& name, bool batches, std::int64_t wanted,
                std::span<const std::string> labels, Scratch& scratch, OutputTensor& output) {
  if (output.dtype == DType::kBytes) {
    return invalid_argument(
        "outputs[\"" + name.substr(0, 128) +
        "\"].parameters[\"classification\"]: got an output of datatype BYTES, want numbers");
  }
  const std::int64_t rows = batches && !output.shape.empty() ? output.shape[0] : 1;
  const std::size_t row_bytes = rows == 0 ? 0 : output.data.size() / static_cast<std::size_t>(rows);
  ByteBuffer texts;
  std::int64_t count = 0;
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    count = append_top_classes(output.dtype, output.data.subspan(row * row_bytes, row_bytes), wanted, labels,
                               texts);
  }
  const std::span<std::byte> kept = scratch.allocate(texts.size());
  if (!texts.empty()) std::memcpy(kept.data(), texts.data(), texts.size());
  output.dtype = DType::kBytes;
  output.shape = batches ? Shape{rows, count} : Shape{count};
  output.data = kept;
  return Status::ok();
}

}  // namespace

std::int64_t append_top_classes(DType dtype, std::span<const std::byte> row, std::int64_t count,
                                std::span<const std::string> labels, ByteBuffer& out) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUint8:
      return top<std::uint8_t>(row, count, labels, out);
    case DType::kUint16:
      return top<std::uint16_t>(row, count, labels, out);
    case DType::kUint32:
      return top<std::uint32_t>(row, count, labels, out);
    case DType::kUint64:
      return top<std::uint64_t>(row, count, labels, out);
    case DType::kInt8:
      return top<std::int8_t>(row, count, labels, out);
    case DType::kInt16:
      return top<std::int16_t>(row, count, labels, out);
    case DType::kInt32:
      return top<std::int32_t>(row, count, labels, out);
    case DType::kInt64:
      return top<std::int64_t>(row, count, labels, out);
    case DType::kFp16:
      return top<Half>(row, count, labels, out);
    case DType::kBf16:
      return top<Brain>(row, count, labels, out);
    case DType::kFp32:
      return top<float>(row, count, labels, out);
    case DType::kFp64:
      return top<double>(row, count, labels, out);
    case DType::kBytes:
      break;
  }
  return 0;
}

Status classify_outputs(const ServedVersion& version, Request& request) {
  auto& outputs = request.response.outputs;
  const std::size_t count = std::min(outputs.size(), request.requested_outputs.size());
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t wanted = request.requested_outputs[i].classification;
    if (wanted <= 0) continue;
    const std::string& name = version.signature.outputs[static_cast<std::size_t>(outputs[i].index)].name;
    const auto labels = version.labels.find(name);
    FS_RETURN_IF_ERROR(
        classify(name, version.signature.batches(), wanted,
                 labels == version.labels.end() ? std::span<const std::string>() : std::span(labels->second),
                 request.scratch, outputs[i]));
  }
  return Status::ok();
}

}  // namespace fastserve
