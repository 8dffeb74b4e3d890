#include "codec/json_tensor.h"

#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

namespace fastserve {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are little-endian; a big-endian host must swap");

constexpr std::size_t kEchoBytes = 128;

std::string_view describe(JsonReader::Kind kind) {
  switch (kind) {
    case JsonReader::Kind::kObject:
      return "an object";
    case JsonReader::Kind::kArray:
      return "an array";
    case JsonReader::Kind::kString:
      return "a string";
    case JsonReader::Kind::kNumber:
      return "a number";
    case JsonReader::Kind::kTrue:
      return "true";
    case JsonReader::Kind::kFalse:
      return "false";
    case JsonReader::Kind::kNull:
      return "null";
    case JsonReader::Kind::kInvalid:
      break;
  }
  return "no value";
}

// What stands at the cursor is no element of this datatype.
bool wrong_kind(JsonReader& reader, std::string_view want, std::string& fault) {
  const auto kind = reader.peek();
  if (kind == JsonReader::Kind::kInvalid) return reader.fail("expected a value");
  fault = "got " + std::string(describe(kind)) + ", want " + std::string(want);
  return false;
}

// One element: reads it at the cursor and writes it at `to`, which moves on. False: a syntax error (the reader has it) or
// `fault`, worded "got 300, want 0..255".
template <class T>
struct NumberElement {
  // The next elements, up to `most`, as far as they are plain; returns how many.
  static std::int64_t read_run(JsonReader& reader, std::byte*& to, std::int64_t most) {
    std::byte* at = to;
    const std::int64_t count = reader.read_numbers(most, [&at](const JsonNumber& number) {
      if (!convert(number, at)) return false;
      at += sizeof(T);
      return true;
    });
    to = at;
    return count;
  }
  static bool read(JsonReader& reader, std::byte*& to, std::string& fault) {
    if (!reader.at_number()) return wrong_kind(reader, "a number", fault);
    JsonNumber number;
    if (!reader.read_number(number)) return false;
    if (!convert(number, to)) {
      fault = "got " + std::string(number.text) + ", want " + wanted();
      return false;
    }
    to += sizeof(T);
    return true;
  }

 private:
  static bool convert(const JsonNumber& number, std::byte* to) {
    if constexpr (std::is_same_v<T, float>) {
      return store(number.as_float(), to);
    } else if constexpr (std::is_same_v<T, double>) {
      return store(number.as_double(), to);
    } else if constexpr (std::is_signed_v<T>) {
      return store(number.as_int64(), to);
    } else {
      return store(number.as_uint64(), to);
    }
  }
  template <class Wide>
  static bool store(std::optional<Wide> wide, std::byte* to) {
    if (!wide) return false;
    if constexpr (std::is_integral_v<T>) {
      if (*wide < Wide{std::numeric_limits<T>::min()} || *wide > Wide{std::numeric_limits<T>::max()})
        return false;
    }
    const T value = static_cast<T>(*wide);
    std::memcpy(to, &value, sizeof(T));
    return true;
  }
  static std::string wanted() {
    if constexpr (std::is_floating_point_v<T>) return "a finite number";
    return std::to_string(std::numeric_limits<T>::min()) + ".." +
           std::to_string(std::numeric_limits<T>::max());
  }
};

struct BoolElement {
  static std::int64_t read_run(JsonReader&, std::byte*&, std::int64_t) { return 0; }
  static bool read(JsonReader& reader, std::byte*& to, std::string& fault) {
    bool value = false;
    JsonNumber number;
    switch (reader.peek()) {
      case JsonReader::Kind::kTrue:
      case JsonReader::Kind::kFalse:
        if (!reader.read_bool(value)) return false;
        break;
      case JsonReader::Kind::kNumber: {
        if (!reader.read_number(number)) return false;
        const auto bit = number.as_uint64();
        if (!bit || *bit > 1) {
          fault = "got " + std::string(number.text) + ", want true, false, 0 or 1";
          return false;
        }
        value = *bit == 1;
        break;
      }
      default:
        return wrong_kind(reader, "true, false, 0 or 1", fault);
    }
    *to++ = static_cast<std::byte>(value);
    return true;
  }
};

struct BytesElement {
  static std::int64_t read_run(JsonReader&, std::byte*&, std::int64_t) { return 0; }
  static bool read(JsonReader& reader, std::byte*& to, std::string& fault) {
    JsonString string;
    if (reader.peek() != JsonReader::Kind::kString) return wrong_kind(reader, "a string", fault);
    if (!reader.read_string(string)) return false;
    const auto size =
        static_cast<std::uint32_t>(JsonReader::decode_to(string, reinterpret_cast<char*>(to + 4)));
    std::memcpy(to, &size, 4);
    to += 4 + size;
    return true;
  }
};

// Walks the array, flat or nested, and leaves `to_` behind the last element.
template <class Element>
class ArrayWalk {
 public:
  ArrayWalk(JsonReader& reader, const TensorView& input, std::int64_t elements, std::byte* to)
      : reader_(reader), input_(input), elements_(elements), to_(to) {}

  Status run() {
    if (reader_.peek() != JsonReader::Kind::kArray) return fault_at("", "got " + got() + ", want an array");
    const std::size_t start = reader_.position();
    reader_.enter_array();
    if (reader_.peek() != JsonReader::Kind::kArray || input_.shape.rank() < 2) return flat();
    reader_.rewind(start);
    reader_.leave();
    return nested(0);
  }
  std::byte* end() const { return to_; }

 private:
  Status flat() {
    std::int64_t count = Element::read_run(reader_, to_, elements_);
    while (reader_.next_element()) {
      if (count++ >= elements_) {
        reader_.skip_value();
      } else if (!Element::read(reader_, to_, fault_)) {
        return fault_at("[" + std::to_string(count - 1) + "]", fault_);
      }
    }
    return reader_.ok() && count != elements_ ? count_mismatch("", count, elements_) : reader_.status();
  }

  // Recursion is bounded by the rank, and by the reader's depth before that.
  Status nested(std::size_t level) {
    if (reader_.peek() != JsonReader::Kind::kArray) {
      return fault_at(path(level),
                      "got " + got() + ", want an array of " + std::to_string(input_.shape[level]));
    }
    reader_.enter_array();
    std::int64_t& at = index_[level];
    const bool innermost = level + 1 == input_.shape.rank();
    at = innermost ? Element::read_run(reader_, to_, input_.shape[level]) : 0;
    for (; reader_.next_element(); ++at) {
      if (at >= input_.shape[level]) {
        reader_.skip_value();
      } else if (!innermost) {
        FS_RETURN_IF_ERROR(nested(level + 1));
      } else if (!Element::read(reader_, to_, fault_)) {
        return fault_at(path(level + 1), fault_);
      }
    }
    return reader_.ok() && at != input_.shape[level] ? count_mismatch(path(level), at, input_.shape[level])
                                                     : reader_.status();
  }

  std::string path(std::size_t levels) const {
    std::string out;
    for (std::size_t i = 0; i < levels; ++i) out += "[" + std::to_string(index_[i]) + "]";
    return out;
  }
  std::string got() { return std::string(describe(reader_.peek())); }

  Status fault_at(const std::string& where, const std::string& what) {
    if (!reader_.ok()) return reader_.status();
    return invalid_argument(input_field(input_.name) + ".data" + where + ": " + what + " for " +
                            std::string(dtype_name(input_.dtype)));
  }
  // Triton's words first: clients match on them.
  Status count_mismatch(const std::string& where, std::int64_t count, std::int64_t want) {
    return invalid_argument("Unable to parse 'data': Shape does not match true shape of 'data' field. " +
                            input_field(input_.name) + ".data" + where + ": got " + std::to_string(count) +
                            " elements, want " + std::to_string(want) + " (shape " + input_.shape.str() +
                            ")");
  }

  JsonReader& reader_;
  const TensorView& input_;
  const std::int64_t elements_;
  std::byte* to_;
  std::array<std::int64_t, kMaxRank> index_{};
  std::string fault_;
};

template <class Element>
Status read_elements(JsonReader& reader, Scratch& scratch, std::int64_t elements, std::size_t room,
                     TensorView& input) {
  const std::span<std::byte> memory = scratch.allocate(room);
  ArrayWalk<Element> walk(reader, input, elements, memory.data());
  FS_RETURN_IF_ERROR(walk.run());
  input.data = memory.first(static_cast<std::size_t>(walk.end() - memory.data()));
  return Status::ok();
}

}  // namespace

std::string_view excerpt(std::string_view text) {
  if (text.size() <= kEchoBytes) return text;
  std::size_t size = kEchoBytes;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
  return text.substr(0, size);
}

std::string input_field(std::string_view name) { return "inputs[\"" + std::string(excerpt(name)) + "\"]"; }

Status read_json_tensor(JsonReader& reader, Scratch& scratch, TensorView& input) {
  const auto elements = input.shape.elements();
  if (!elements) {
    return invalid_argument(input_field(input.name) + ".shape: got " + input.shape.str() +
                            ", want dimensions of 0 or more and fewer than 2^40 elements");
  }
  // n elements take 2n + 1 bytes of text at least: a shape that lies is refused before memory is asked for.
  const std::size_t text = reader.remaining();
  const auto count = static_cast<std::size_t>(*elements);
  if (count > text / 2) {
    return invalid_argument("Unable to parse 'data': Shape does not match true shape of 'data' field. " +
                            input_field(input.name) + ".data: got fewer elements than shape " +
                            input.shape.str() + " has");
  }
  const std::size_t fixed = count * dtype_size(input.dtype);
  const auto read = [&]<class Element>(Element) {
    return read_elements<Element>(reader, scratch, *elements, fixed, input);
  };
  switch (input.dtype) {
    case DType::kBool:
      return read(BoolElement{});
    case DType::kUint8:
      return read(NumberElement<std::uint8_t>{});
    case DType::kUint16:
      return read(NumberElement<std::uint16_t>{});
    case DType::kUint32:
      return read(NumberElement<std::uint32_t>{});
    case DType::kUint64:
      return read(NumberElement<std::uint64_t>{});
    case DType::kInt8:
      return read(NumberElement<std::int8_t>{});
    case DType::kInt16:
      return read(NumberElement<std::int16_t>{});
    case DType::kInt32:
      return read(NumberElement<std::int32_t>{});
    case DType::kInt64:
      return read(NumberElement<std::int64_t>{});
    case DType::kFp32:
      return read(NumberElement<float>{});
    case DType::kFp64:
      return read(NumberElement<double>{});
    case DType::kBytes: {
      // A string of n characters takes n + 2 bytes of text and n + 4 here. Only what the array spans counts.
      const std::size_t start = reader.position();
      reader.skip_value();
      const std::size_t room = reader.position() - start + 2 * count;
      if (!reader.ok()) return reader.status();
      reader.rewind(start);
      return read_elements<BytesElement>(reader, scratch, *elements, room, input);
    }
    case DType::kFp16:
    case DType::kBf16:
      break;
  }
  return invalid_argument(input_field(input.name) + ".data: datatype " +
                          std::string(dtype_name(input.dtype)) +
                          " has no JSON form; send it as binary data (parameters.binary_data_size)");
}

}  // namespace fastserve
