#include <simdjson.h>
#include <protozero/pbf_reader.hpp>

#include <array>
#include <string>

#include "codec/oip_contents.h"
#include "codec/oip_infer.h"
#include "codec/oip_parameters.h"
#include "codec/oip_wire.h"

namespace fastserve {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

// Field numbers: protos/oip_grpc_service.proto.
namespace request_field {
enum : unsigned { kModelName = 1, kModelVersion, kId, kParameters, kInputs, kOutputs, kRawInputContents };
}
namespace input_field {
enum : unsigned { kName = 1, kDatatype, kShape, kParameters, kContents };
}
namespace output_field {
enum : unsigned { kName = 1, kParameters };
}

constexpr auto kLengthDelimited = pbf_wire_type::length_delimited;

// One walk over a ModelInferRequest. Malformed protobuf throws protozero::exception; `path` then says where.
class InferWalk {
 public:
  explicit InferWalk(Request& out) : out_(out) {}
  Status run(std::span<const std::byte> message);
  FieldPath path;

 private:
  Status walk_input(std::string_view bytes);
  Status walk_output(std::string_view bytes);
  Status add_shared(std::size_t index, const SharedPlaceDraft& shared, bool has_contents);
  Status add_dim(TensorView& input, std::int64_t dim);
  Status read_shape(pbf_reader& reader, TensorView& input);
  Status assign_raw();

  Request& out_;
  // raw_input_contents come last in what clients write, but any order is legal: they are given to the inputs at the end.
  std::array<std::string_view, kMaxInputs> raw_;
  std::size_t raw_count_ = 0;
  std::size_t typed_input_ = FieldPath::kNone;  // the first input with `contents`
};

Status InferWalk::run(std::span<const std::byte> message) {
  pbf_reader reader(reinterpret_cast<const char*>(message.data()), message.size());
  while (reader.next()) {
    const unsigned field = reader.tag();
    if (field < request_field::kModelName || field > request_field::kRawInputContents) {
      reader.skip();
      continue;
    }
    constexpr const char* kNames[] = {"",           "model_name", "model_version", "id",
                                      "parameters", "inputs",     "outputs",       "raw_input_contents"};
    path.at(kNames[field]);
    FS_EXPECT_TYPE(reader, kLengthDelimited, path);
    const std::string_view bytes = text_of(reader.get_view());
    switch (field) {
      case request_field::kModelName:
        out_.model_name = bytes;
        break;
      case request_field::kModelVersion:
        out_.model_version = bytes;
        break;
      case request_field::kId:
        if (!simdjson::validate_utf8(bytes.data(), bytes.size())) return bad_field(path, "not valid UTF-8");
        out_.id = bytes;
        break;
      case request_field::kParameters: {
        Parameter parameter;
        FS_RETURN_IF_ERROR(read_parameter(bytes, path, parameter));
        FS_RETURN_IF_ERROR(set_request_parameter(parameter, out_));
        break;
      }
      case request_field::kInputs:
        FS_RETURN_IF_ERROR(walk_input(bytes));
        break;
      case request_field::kOutputs:
        FS_RETURN_IF_ERROR(walk_output(bytes));
        break;
      default:  // kRawInputContents
        if (raw_count_ == kMaxInputs) return bad_field(path, "got more than 64 entries, want 64 or fewer");
        raw_[raw_count_++] = bytes;
    }
    path.leave();
  }
  return assign_raw();
}

Status InferWalk::walk_input(std::string_view bytes) {
  const std::size_t index = out_.inputs.size();
  if (index == kMaxInputs) return bad_field(path, "got more than 64 inputs, want 64 or fewer");
  path.enter("inputs", index);
  TensorView& input = out_.inputs.emplace_back();
  std::string_view datatype;
  std::string_view contents;
  bool has_contents = false;
  SharedPlaceDraft shared;
  pbf_reader reader(bytes.data(), bytes.size());
  for (; reader.next(); path.at(nullptr)) {
    switch (reader.tag()) {
      case input_field::kName:
        path.at("name");
        FS_EXPECT_TYPE(reader, kLengthDelimited, path);
        input.name = text_of(reader.get_view());
        break;
      case input_field::kDatatype:
        path.at("datatype");
        FS_EXPECT_TYPE(reader, kLengthDelimited, path);
        datatype = text_of(reader.get_view());
        break;
      case input_field::kShape:
        FS_RETURN_IF_ERROR(read_shape(reader, input));
        break;
      case input_field::kParameters: {
        path.at("parameters");
        FS_EXPECT_TYPE(reader, kLengthDelimited, path);
        Parameter parameter;
        FS_RETURN_IF_ERROR(read_parameter(text_of(reader.get_view()), path, parameter));
        FS_RETURN_IF_ERROR(read_shared_memory(parameter, path, shared));
        break;
      }
      case input_field::kContents:
        path.at("contents");
        FS_EXPECT_TYPE(reader, kLengthDelimited, path);
        if (has_contents)
          return bad_field(path, "given twice");  // merging, as protobuf has it, is open to abuse
        contents = text_of(reader.get_view());
        has_contents = true;
        break;
      default:
        reader.skip();
    }
  }
  path.at("datatype");
  const auto dtype = parse_dtype(datatype);
  if (!dtype)
    return bad_field(path, "got \"" + echo(datatype) + "\", want a name such as FP32, INT64 or BYTES");
  input.dtype = *dtype;
  path.at(nullptr);
  if (shared.given()) return add_shared(index, shared, has_contents);
  if (!has_contents) return Status::ok();
  if (typed_input_ == FieldPath::kNone) typed_input_ = index;
  path.at("contents");
  return read_contents(contents, *dtype, path, out_.scratch, input.data);
}

Status InferWalk::add_shared(std::size_t index, const SharedPlaceDraft& shared, bool has_contents) {
  SharedInput& input = out_.shared_inputs.emplace_back(SharedInput{index, {}});
  FS_RETURN_IF_ERROR(shared.complete([&] { return path.str(); }, input.place));
  if (!has_contents) return Status::ok();
  path.at("contents");
  return bad_field(path, "got both contents and parameters[\"shared_memory_region\"], want one of them");
}

Status InferWalk::add_dim(TensorView& input, std::int64_t dim) {
  const std::size_t at = input.shape.rank();
  if (dim < 0) {
    path.at("shape", at);
    return bad_field(path, "got " + std::to_string(dim) + ", want 0 or more");
  }
  input.shape.push_back(dim);
  return Status::ok();
}

Status InferWalk::read_shape(pbf_reader& reader, TensorView& input) {
  path.at("shape");
  const auto too_many = [&](std::size_t rank) {
    return bad_field(path,
                     "got rank " + std::to_string(rank) + ", want " + std::to_string(kMaxRank) + " or fewer");
  };
  if (reader.wire_type() == pbf_wire_type::varint) {  // not packed
    if (input.shape.rank() == kMaxRank) return too_many(kMaxRank + 1);
    return add_dim(input, reader.get_int64());
  }
  FS_EXPECT_TYPE(reader, kLengthDelimited, path);
  const auto view = reader.get_view();
  const char* p = view.data();
  for (const char* const end = p + view.size(); p != end;) {
    const auto dim = static_cast<std::int64_t>(protozero::decode_varint(&p, end));
    if (input.shape.rank() == kMaxRank) {
      std::size_t rank = kMaxRank + 1;
      for (; p != end; ++rank) protozero::skip_varint(&p, end);
      return too_many(rank);
    }
    FS_RETURN_IF_ERROR(add_dim(input, dim));
  }
  return Status::ok();
}

Status InferWalk::walk_output(std::string_view bytes) {
  const std::size_t index = out_.requested_outputs.size();
  if (index == kMaxRequestedOutputs) {
    return bad_field(
        path, "got more than " + std::to_string(kMaxRequestedOutputs) + " outputs, want that many or fewer");
  }
  path.enter("outputs", index);
  RequestedOutput& output = out_.requested_outputs.emplace_back();
  SharedPlaceDraft shared;
  pbf_reader reader(bytes.data(), bytes.size());
  for (; reader.next(); path.at(nullptr)) {
    switch (reader.tag()) {
      case output_field::kName:
        path.at("name");
        FS_EXPECT_TYPE(reader, kLengthDelimited, path);
        output.name = text_of(reader.get_view());
        break;
      case output_field::kParameters: {
        path.at("parameters");
        FS_EXPECT_TYPE(reader, kLengthDelimited, path);
        Parameter parameter;
        FS_RETURN_IF_ERROR(read_parameter(text_of(reader.get_view()), path, parameter));
        FS_RETURN_IF_ERROR(read_shared_memory(parameter, path, shared));
        if (parameter.name == "classification") {
          FS_RETURN_IF_ERROR(read_classification(parameter, path, output.classification));
        }
        break;
      }
      default:
        reader.skip();
    }
  }
  if (!shared.given()) return Status::ok();
  path.at(nullptr);
  FS_RETURN_IF_ERROR(shared.complete([&] { return path.str(); }, output.shared));
  return output.classification == 0 ? Status::ok() : classified_and_shared(path.str());
}

Status InferWalk::assign_raw() {
  if (raw_count_ == 0) return Status::ok();
  if (typed_input_ !=
      FieldPath::kNone) {  // Triton's words; for any input, not only the one that raw data is for
    return invalid_argument("contents field must not be specified when using raw_input_contents for '" +
                            echo(out_.inputs[typed_input_].name) + "' for model '" + echo(out_.model_name) +
                            "'. inputs[" + std::to_string(typed_input_) + "].contents: got both");
  }
  path.at("raw_input_contents");
  const std::size_t shared = out_.shared_inputs.size();
  if (raw_count_ != out_.inputs.size() - shared) {
    return bad_field(
        path, "got " + std::to_string(raw_count_) + " entries, want " +
                  std::to_string(out_.inputs.size() - shared) +
                  (shared == 0 ? " (one per input)" : " (one per input that is not in shared memory)"));
  }
  // shared_inputs are in the order of inputs.
  std::size_t next_shared = 0;
  const std::string_view* raw = raw_.data();
  for (std::size_t i = 0; i < out_.inputs.size(); ++i) {
    if (next_shared < shared && out_.shared_inputs[next_shared].input == i) {
      ++next_shared;
    } else {
      out_.inputs[i].data = bytes_of(*raw++);
    }
  }
  return Status::ok();
}

}  // namespace

Status decode_model_infer(std::span<const std::byte> message, Request& out) {
  InferWalk walk(out);
  try {
    return walk.run(message);
  } catch (const protozero::end_of_buffer_exception&) {
    return bad_field(walk.path, "malformed protobuf: truncated");
  } catch (const protozero::varint_too_long_exception&) {
    return bad_field(walk.path, "malformed protobuf: number of more than 10 bytes");
  } catch (const protozero::unknown_pbf_wire_type_exception&) {
    return bad_field(walk.path, "malformed protobuf: group or unknown wire type");
  } catch (const protozero::exception&) {
    return bad_field(walk.path, "malformed protobuf: invalid tag or length");
  }
}

}  // namespace fastserve
