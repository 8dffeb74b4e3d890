// Request side of rest_infer.h: the JSON header, then the binary slices.
#include <charconv>
#include <limits>

#include "codec/json_tensor.h"
#include "codec/rest_infer.h"
#include "codec/rest_parameters.h"

namespace fastserve {
namespace {

constexpr JsonLimits kLimits{kRestJsonDepth, kRestJsonKeys, kRestNumberChars};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// True the first time that `bit` is seen.
bool first_time(unsigned& seen, unsigned bit) {
  const bool first = (seen & bit) == 0;
  seen |= bit;
  return first;
}

// Bytes of JSON by the header; 0 = a raw request.
Status parse_header_length(std::string_view text, std::size_t body_bytes, std::size_t& out) {
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc{} && end == text.data() + text.size();
  if (!whole || value < 0 || static_cast<std::uint64_t>(value) > body_bytes) {
    return invalid_argument("inference header size should be in range (0, " + std::to_string(body_bytes) +
                            "), got: " + std::string(excerpt(text)) + ". Inference-Header-Content-Length");
  }
  out = static_cast<std::size_t>(value);
  return Status::ok();
}

class RestDecoder {
 public:
  RestDecoder(std::span<const std::byte> json, std::span<const std::byte> binary, bool has_header,
              Request& out)
      : reader_(as_text(json), kLimits), binary_(binary), has_header_(has_header), out_(out) {}

  Status run() {
    if (reader_.ok() && reader_.peek() != JsonReader::Kind::kObject) reader_.fail("expected an object");
    if (reader_.enter_object()) FS_RETURN_IF_ERROR(document());
    reader_.finish();
    FS_RETURN_IF_ERROR(reader_.status());
    if (!inputs_given_) return invalid_argument("inputs: missing, want an array of tensors");
    apply_binary_default();
    if (!binary_.empty()) {
      return invalid_argument("unexpected additional input data for model '" +
                              std::string(excerpt(out_.model_name)) + "': got " +
                              std::to_string(binary_.size()) + " bytes behind the last binary input");
    }
    return Status::ok();
  }

 private:
  enum Key : unsigned {
    kId = 1,
    kParameters = 2,
    kInputs = 4,
    kOutputs = 8,
    kName = 16,
    kShape = 32,
    kDatatype = 64,
    kData = 128
  };

  // An input while its keys are read, in whatever order they come.
  struct Draft {
    TensorView view;
    RestInputParameters parameters;
    unsigned seen = 0;
    std::size_t data_at = 0;  // where "data" starts, when it came before name, shape or datatype
    bool data_waits = false;
    std::size_t position = 0;

    // The path for messages: inputs[2], or inputs["x"] once the name is known. Only called on errors.
    std::string field() const {
      return (seen & kName) != 0 ? input_field(view.name) : "inputs[" + std::to_string(position) + "]";
    }
  };

  Status wrong(const std::string& field, std::string_view want) {
    if (reader_.peek() == JsonReader::Kind::kInvalid) reader_.fail("expected a value");
    if (!reader_.ok()) return reader_.status();
    return invalid_argument(field + ": got another type, want " + std::string(want));
  }
  static Status twice(const std::string& field) { return invalid_argument(field + ": given twice"); }

  template <class Field>
  Status read_text(Field field, std::string_view& out) {
    if (reader_.peek() != JsonReader::Kind::kString) return wrong(field(), "a string");
    JsonString text;
    if (reader_.read_string(text)) out = JsonReader::decode(text, out_.scratch);
    return reader_.status();
  }

  Status document() {
    unsigned seen = 0;
    for (JsonString key; reader_.next_key(key);) FS_RETURN_IF_ERROR(member(key.raw, seen));
    return reader_.status();
  }

  Status member(std::string_view key, unsigned& seen) {
    if (key == "id") {
      return first_time(seen, kId) ? read_text([] { return std::string("id"); }, out_.id) : twice("id");
    }
    if (key == "inputs") return first_time(seen, kInputs) ? read_inputs() : twice("inputs");
    if (key == "outputs") return first_time(seen, kOutputs) ? read_outputs() : twice("outputs");
    if (key == "parameters") {
      return first_time(seen, kParameters) ? read_request_parameters(reader_, out_) : twice("parameters");
    }
    reader_.skip_value();
    return reader_.status();
  }

  Status read_inputs() {
    inputs_given_ = true;
    if (reader_.peek() != JsonReader::Kind::kArray) return wrong("inputs", "an array");
    reader_.enter_array();
    while (reader_.next_element()) {
      if (out_.inputs.size() == kRestInputs) {
        return invalid_argument("inputs: got more than " + std::to_string(kRestInputs) + ", want " +
                                std::to_string(kRestInputs) + " or fewer");
      }
      FS_RETURN_IF_ERROR(read_input());
    }
    return reader_.status();
  }

  Status read_input() {
    Draft draft;
    draft.position = out_.inputs.size();
    if (reader_.peek() != JsonReader::Kind::kObject) return wrong(draft.field(), "an object");
    reader_.enter_object();
    for (JsonString key; reader_.next_key(key);) FS_RETURN_IF_ERROR(input_member(key.raw, draft));
    FS_RETURN_IF_ERROR(reader_.status());
    FS_RETURN_IF_ERROR(complete(draft));
    out_.inputs.push_back(draft.view);
    return Status::ok();
  }

  Status input_member(std::string_view key, Draft& draft) {
    if (key == "name") {
      if ((draft.seen & kName) != 0) return twice(draft.field() + ".name");
      FS_RETURN_IF_ERROR(read_text([&] { return draft.field() + ".name"; }, draft.view.name));
      draft.seen |= kName;
      return Status::ok();
    }
    if (key == "shape") {
      return first_time(draft.seen, kShape) ? read_shape(draft) : twice(draft.field() + ".shape");
    }
    if (key == "datatype") {
      return first_time(draft.seen, kDatatype) ? read_datatype(draft) : twice(draft.field() + ".datatype");
    }
    if (key == "parameters") {
      if (!first_time(draft.seen, kParameters)) return twice(draft.field() + ".parameters");
      return read_input_parameters(
          reader_, [&] { return draft.field(); }, out_.scratch, draft.parameters);
    }
    if (key == "data")
      return first_time(draft.seen, kData) ? read_data(draft) : twice(draft.field() + ".data");
    reader_.skip_value();
    return reader_.status();
  }

  Status read_shape(Draft& draft) {
    const auto field = [&] { return draft.field() + ".shape"; };
    if (reader_.peek() != JsonReader::Kind::kArray) return wrong(field(), "an array of integers");
    reader_.enter_array();
    while (reader_.next_element()) {
      const std::size_t i = draft.view.shape.rank();
      if (i == kMaxRank) {
        return invalid_argument(field() + ": got more than " + std::to_string(kMaxRank) +
                                " dimensions, want " + std::to_string(kMaxRank) + " or fewer");
      }
      const auto at = [&] { return field() + "[" + std::to_string(i) + "]"; };
      if (reader_.peek() != JsonReader::Kind::kNumber) return wrong(at(), "an integer");
      JsonNumber number;
      if (!reader_.read_number(number)) break;
      const auto dim = number.as_int64();
      if (!dim || *dim < 0) {
        return invalid_argument(at() + ": got " + std::string(number.text) +
                                ", want an integer of 0 or more");
      }
      draft.view.shape.push_back(*dim);
    }
    return reader_.status();
  }

  Status read_datatype(Draft& draft) {
    std::string_view name;
    FS_RETURN_IF_ERROR(read_text([&] { return draft.field() + ".datatype"; }, name));
    const auto dtype = parse_dtype(name);
    if (!dtype) {
      return invalid_argument(draft.field() + ".datatype: got '" + std::string(excerpt(name)) +
                              "', want BOOL, UINT8..UINT64, INT8..INT64, FP16, BF16, FP32, FP64 or BYTES");
    }
    draft.view.dtype = *dtype;
    return Status::ok();
  }

  Status read_data(Draft& draft) {
    constexpr unsigned kNeeded = kName | kShape | kDatatype;
    if ((draft.seen & kNeeded) == kNeeded) return read_json_tensor(reader_, out_.scratch, draft.view);
    reader_.peek();  // over the blanks
    draft.data_at = reader_.position();
    draft.data_waits = true;
    reader_.skip_value();
    return reader_.status();
  }

  // All keys were seen: what is missing, the data that had to wait, the binary slice.
  Status complete(Draft& draft) {
    for (const auto& [bit, name] : {std::pair{kName, "name"}, {kShape, "shape"}, {kDatatype, "datatype"}}) {
      if ((draft.seen & bit) == 0) return invalid_argument(draft.field() + "." + name + ": missing");
    }
    const bool data = (draft.seen & kData) != 0;
    if (draft.parameters.shared.given()) return take_shared(draft, data);
    if (const auto size = draft.parameters.binary_data_size) {
      if (data) {
        return invalid_argument(draft.field() +
                                ": got both data and parameters.binary_data_size, want one of them");
      }
      return take_binary(draft, *size);
    }
    if (!data)
      return invalid_argument(draft.field() + ".data: missing, and there is no parameters.binary_data_size");
    if (!draft.data_waits) return Status::ok();
    const std::size_t behind = reader_.position();
    reader_.rewind(draft.data_at);
    FS_RETURN_IF_ERROR(read_json_tensor(reader_, out_.scratch, draft.view));
    reader_.rewind(behind);
    return Status::ok();
  }

  Status take_shared(const Draft& draft, bool data) {
    SharedInput& shared = out_.shared_inputs.emplace_back(SharedInput{draft.position, {}});
    FS_RETURN_IF_ERROR(draft.parameters.shared.complete([&] { return draft.field(); }, shared.place));
    if (!data && !draft.parameters.binary_data_size) return Status::ok();
    return invalid_argument(draft.field() + ": got both " + (data ? "data" : "parameters.binary_data_size") +
                            " and parameters.shared_memory_region, want one of them");
  }

  Status take_binary(Draft& draft, std::int64_t size) {
    const auto words = [&] {
      return "unexpected size for input '" + std::string(excerpt(draft.view.name)) + "', expecting " +
             std::to_string(size) + " additional bytes for model '" + std::string(excerpt(out_.model_name)) +
             "'. " + draft.field() + ".parameters.binary_data_size: got " + std::to_string(size) + ", ";
    };
    if (!has_header_) {
      return invalid_argument(words() + "but the request has no header Inference-Header-Content-Length");
    }
    if (static_cast<std::uint64_t>(size) > binary_.size()) {
      return invalid_argument(words() + "but the body has " + std::to_string(binary_.size()) + " bytes left");
    }
    draft.view.data = binary_.first(static_cast<std::size_t>(size));
    binary_ = binary_.subspan(static_cast<std::size_t>(size));
    return Status::ok();
  }

  Status read_outputs() {
    if (reader_.peek() != JsonReader::Kind::kArray) return wrong("outputs", "an array");
    reader_.enter_array();
    while (reader_.next_element()) {
      if (out_.requested_outputs.size() == kRestInputs) {
        return invalid_argument("outputs: got more than " + std::to_string(kRestInputs) + ", want " +
                                std::to_string(kRestInputs) + " or fewer");
      }
      FS_RETURN_IF_ERROR(read_output());
    }
    return reader_.status();
  }

  Status read_output() {
    RequestedOutput output;
    RestOutputParameters parameters;
    unsigned seen = 0;
    const auto field = [&] {
      return "outputs[" +
             (output.name.empty() ? std::to_string(out_.requested_outputs.size())
                                  : "\"" + std::string(excerpt(output.name)) + "\"") +
             "]";
    };
    if (reader_.peek() != JsonReader::Kind::kObject) return wrong(field(), "an object");
    reader_.enter_object();
    for (JsonString key; reader_.next_key(key);) {
      if (key.raw == "name") {
        if (!first_time(seen, kName)) return twice(field() + ".name");
        FS_RETURN_IF_ERROR(read_text([&] { return field() + ".name"; }, output.name));
      } else if (key.raw == "parameters") {
        if (!first_time(seen, kParameters)) return twice(field() + ".parameters");
        FS_RETURN_IF_ERROR(read_output_parameters(reader_, field, out_.scratch, parameters));
      } else {
        reader_.skip_value();
      }
    }
    FS_RETURN_IF_ERROR(reader_.status());
    if ((seen & kName) == 0) return invalid_argument(field() + ".name: missing");
    FS_RETURN_IF_ERROR(parameters.shared.complete(field, output.shared));
    output.classification = parameters.classification;
    if (output.classification != 0 && !output.shared.region.empty()) return classified_and_shared(field());
    output.binary = parameters.binary_data.value_or(false);
    if (parameters.binary_data) chosen_ |= std::uint64_t{1} << out_.requested_outputs.size();
    out_.requested_outputs.push_back(output);
    return Status::ok();
  }

  // binary_data_output holds for the outputs that did not choose for themselves.
  void apply_binary_default() {
    const bool binary = wants_binary_output(out_);
    for (std::size_t i = 0; binary && i < out_.requested_outputs.size(); ++i) {
      if ((chosen_ >> i & 1) == 0) out_.requested_outputs[i].binary = true;
    }
  }

  JsonReader reader_;
  std::span<const std::byte> binary_;  // what no input took yet
  const bool has_header_;
  bool inputs_given_ = false;
  std::uint64_t chosen_ = 0;  // bit i: output i said binary_data itself
  Request& out_;
};

static_assert(kRestInputs <= 64, "RestDecoder::chosen_ has a bit for each output");

}  // namespace

Status decode_rest_infer(std::span<const std::byte> body, std::optional<std::string_view> header_length,
                         Request& out, RestForm& form) {
  std::size_t json_bytes = body.size();
  form = RestForm::kJson;
  if (header_length) {
    FS_RETURN_IF_ERROR(parse_header_length(*header_length, body.size(), json_bytes));
    if (json_bytes == 0) {
      form = RestForm::kRaw;
      return Status::ok();
    }
  }
  RestDecoder decoder(body.first(json_bytes), body.subspan(json_bytes), header_length.has_value(), out);
  return decoder.run();
}

}  // namespace fastserve
