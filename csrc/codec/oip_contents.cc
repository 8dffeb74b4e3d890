#include "codec/oip_contents.h"

#include <protozero/varint.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

namespace fastserve {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensor bytes are little-endian on the wire and in memory");

using protozero::pbf_wire_type;

constexpr const char* kFieldNames[] = {"",
                                       "contents.bool_contents",
                                       "contents.int_contents",
                                       "contents.int64_contents",
                                       "contents.uint_contents",
                                       "contents.uint64_contents",
                                       "contents.fp32_contents",
                                       "contents.fp64_contents",
                                       "contents.bytes_contents"};
constexpr unsigned kBytesField = 8;

// Field number of InferTensorContents that carries a dtype; 0: none does.
unsigned field_of(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return 1;
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
      return 2;
    case DType::kInt64:
      return 3;
    case DType::kUint8:
    case DType::kUint16:
    case DType::kUint32:
      return 4;
    case DType::kUint64:
      return 5;
    case DType::kFp32:
      return 6;
    case DType::kFp64:
      return 7;
    case DType::kBytes:
      return kBytesField;
    case DType::kFp16:
    case DType::kBf16:
      return 0;
  }
  return 0;
}

pbf_wire_type element_type(unsigned field) {
  switch (field) {
    case 6:
      return pbf_wire_type::fixed32;
    case 7:
      return pbf_wire_type::fixed64;
    case kBytesField:
      return pbf_wire_type::length_delimited;
    default:
      return pbf_wire_type::varint;
  }
}

// Values in a packed field.
Status count_packed(std::string_view packed, unsigned field, const FieldPath& path, std::size_t& count) {
  const pbf_wire_type type = element_type(field);
  if (type == pbf_wire_type::varint) {
    if (!packed.empty() && (static_cast<unsigned char>(packed.back()) & 0x80U) != 0) {
      return bad_field(path, "truncated number");
    }
    count += static_cast<std::size_t>(
        std::count_if(packed.begin(), packed.end(), [](char c) { return (c & 0x80) == 0; }));
    return Status::ok();
  }
  const std::size_t width = type == pbf_wire_type::fixed32 ? 4 : 8;
  if (packed.size() % width != 0) {
    return bad_field(
        path, "got " + std::to_string(packed.size()) + " bytes, want a multiple of " + std::to_string(width));
  }
  count += packed.size() / width;
  return Status::ok();
}

// First pass: how many bytes the tensor takes, and that no other field holds values.
Status measure(std::string_view contents, DType dtype, FieldPath path, std::size_t& bytes) {
  const unsigned want = field_of(dtype);
  std::size_t count = 0;
  std::size_t text_bytes = 0;
  protozero::pbf_reader reader(contents.data(), contents.size());
  while (reader.next()) {
    const unsigned field = reader.tag();
    if (field == 0 || field > kBytesField) {
      reader.skip();
      continue;
    }
    path.at(kFieldNames[field]);
    if (field != want) {
      return bad_field(path, "datatype " + std::string(dtype_name(dtype)) + " takes " + kFieldNames[want]);
    }
    if (field != kBytesField && reader.wire_type() == pbf_wire_type::length_delimited) {
      FS_RETURN_IF_ERROR(count_packed(text_of(reader.get_view()), field, path, count));
      continue;
    }
    FS_EXPECT_TYPE(reader, element_type(field), path);
    if (field == kBytesField)
      text_bytes += reader.get_view().size();
    else
      reader.skip();
    ++count;
  }
  bytes = dtype == DType::kBytes ? text_bytes + 4 * count : count * dtype_size(dtype);
  return Status::ok();
}

// Second pass, one per element width; measure() has checked types and made the room.
template <class T>
void write_varints(protozero::pbf_reader& reader, bool is_bool, std::byte*& at) {
  const auto put = [&](std::uint64_t value) {
    const T narrow = is_bool ? static_cast<T>(value != 0) : static_cast<T>(value);
    std::memcpy(at, &narrow, sizeof narrow);
    at += sizeof narrow;
  };
  if (reader.wire_type() == pbf_wire_type::varint) return put(reader.get_uint64());
  const auto view = reader.get_view();
  const char* p = view.data();
  for (const char* const end = p + view.size(); p != end;) put(protozero::decode_varint(&p, end));
}

void write_fixed(protozero::pbf_reader& reader, std::byte*& at) {
  const auto put = [&](const void* from, std::size_t size) {
    if (size != 0) std::memcpy(at, from, size);
    at += size;
  };
  if (reader.wire_type() == pbf_wire_type::length_delimited) {
    const auto view = reader.get_view();
    put(view.data(), view.size());
  } else if (reader.wire_type() == pbf_wire_type::fixed32) {
    const std::uint32_t value = reader.get_fixed32();
    put(&value, sizeof value);
  } else {
    const std::uint64_t value = reader.get_fixed64();
    put(&value, sizeof value);
  }
}

void write_text(protozero::pbf_reader& reader, std::byte*& at) {
  const auto view = reader.get_view();
  const auto size = static_cast<std::uint32_t>(view.size());  // a message is smaller than 4 GiB
  std::memcpy(at, &size, sizeof size);
  if (size != 0) std::memcpy(at + sizeof size, view.data(), size);
  at += sizeof size + size;
}

void write_field(protozero::pbf_reader& reader, DType dtype, std::byte*& at) {
  switch (dtype) {
    case DType::kBytes:
      return write_text(reader, at);
    case DType::kFp32:
    case DType::kFp64:
      return write_fixed(reader, at);
    default:
      break;
  }
  switch (dtype_size(dtype)) {
    case 1:
      return write_varints<std::uint8_t>(reader, dtype == DType::kBool, at);
    case 2:
      return write_varints<std::uint16_t>(reader, false, at);
    case 4:
      return write_varints<std::uint32_t>(reader, false, at);
    default:
      return write_varints<std::uint64_t>(reader, false, at);
  }
}

}  // namespace

Status read_contents(std::string_view contents, DType dtype, const FieldPath& path, Scratch& scratch,
                     std::span<const std::byte>& data) {
  const unsigned want = field_of(dtype);
  if (want == 0) {
    return bad_field(
        path, "datatype " + std::string(dtype_name(dtype)) + " is only accepted in raw_input_contents");
  }
  std::size_t bytes = 0;
  FS_RETURN_IF_ERROR(measure(contents, dtype, path, bytes));
  if (bytes == 0) {
    data = {};
    return Status::ok();
  }
  const std::span<std::byte> room = scratch.allocate(bytes);
  std::byte* at = room.data();
  protozero::pbf_reader reader(contents.data(), contents.size());
  while (reader.next()) {
    if (reader.tag() == want)
      write_field(reader, dtype, at);
    else
      reader.skip();
  }
  data = room;
  return Status::ok();
}

}  // namespace fastserve
