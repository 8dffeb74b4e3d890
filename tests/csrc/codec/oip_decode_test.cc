#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "codec/oip_infer.h"
#include "oip_messages.h"

namespace fastserve {
namespace {

using testing::Fields;
using testing::input;
using testing::message;
using testing::parameter;
using testing::pbf_writer;
using testing::shape;
using testing::span_of;
using testing::sub;

// Decodes a copy that ends where the allocation ends, so that a read behind it is seen by ASan.
struct Decoded {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size;
  Request request;
  Status status;

  explicit Decoded(const std::string& wire) : bytes(new std::byte[wire.size()]), size(wire.size()) {
    std::memcpy(bytes.get(), wire.data(), wire.size());
    status = decode_model_infer({bytes.get(), size}, request);
  }
  std::string data(std::size_t i) const {
    const auto& d = request.inputs.at(i).data;
    return {reinterpret_cast<const char*>(d.data()), d.size()};
  }
};

std::string refused(const std::string& wire, Code code = Code::kInvalidArgument) {
  const Decoded d(wire);
  EXPECT_EQ(d.status.code(), code) << d.status.message();
  EXPECT_LE(d.status.message().size(), 1000U);
  return d.status.message();
}

template <class T>
std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(std::data(values)), values.size() * sizeof(T)};
}

TEST(DecodeModelInfer, WholeRequest) {
  const std::string wire = message([](pbf_writer& w) {
    w.add_string(1, "model");
    w.add_string(2, "3");
    w.add_string(3, "id-1");
    parameter(w, 4, "priority", [](pbf_writer& p) { p.add_uint64(5, 2); });
    parameter(w, 4, "timeout", [](pbf_writer& p) { p.add_int64(2, 1500); });
    parameter(w, 4, "flag", [](pbf_writer& p) { p.add_bool(1, true); });
    parameter(w, 4, "text", [](pbf_writer& p) { p.add_string(3, "hi"); });
    parameter(w, 4, "ratio", [](pbf_writer& p) { p.add_double(4, 0.5); });
    parameter(w, 4, "sequence_id", [](pbf_writer& p) { p.add_string(3, "s"); });
    input(w, "a", "FP32", {1, 2});
    input(w, "b", "BYTES", {1});
    sub(w, 6, [](pbf_writer& o) { o.add_string(1, "y"); });
    sub(w, 6, [](pbf_writer& o) {
      o.add_string(1, "z");
      parameter(o, 2, "classification", [](pbf_writer& p) { p.add_int64(2, 3); });
      parameter(o, 2, "binary_data", [](pbf_writer& p) { p.add_bool(1, true); });
    });
    w.add_bytes(7, "12345678");
    w.add_bytes(7, std::string("\2\0\0\0ab", 6));
  });
  const Decoded d(wire);
  ASSERT_TRUE(d.status) << d.status.message();
  const Request& r = d.request;
  EXPECT_EQ(r.model_name, "model");
  EXPECT_EQ(r.model_version, "3");
  EXPECT_EQ(r.id, "id-1");
  EXPECT_EQ(r.priority, 2U);
  EXPECT_EQ(r.queue_timeout_ns, 1500 * kMicrosecond);
  ASSERT_EQ(r.parameters.size(), 4U);
  EXPECT_EQ(std::get<bool>(r.parameters[0].value), true);
  EXPECT_EQ(std::get<std::string_view>(r.parameters[1].value), "hi");
  EXPECT_EQ(std::get<double>(r.parameters[2].value), 0.5);
  EXPECT_EQ(r.parameters[3].name, "sequence_id");
  ASSERT_EQ(r.inputs.size(), 2U);
  EXPECT_EQ(r.inputs[0].name, "a");
  EXPECT_EQ(r.inputs[0].dtype, DType::kFp32);
  EXPECT_EQ(r.inputs[0].shape, (Shape{1, 2}));
  EXPECT_EQ(d.data(0), "12345678");
  EXPECT_EQ(r.inputs[1].dtype, DType::kBytes);
  EXPECT_EQ(d.data(1).size(), 6U);
  EXPECT_GE(r.inputs[0].data.data(), d.bytes.get());  // a view, not a copy
  EXPECT_LT(r.inputs[0].data.data(), d.bytes.get() + d.size);
  ASSERT_EQ(r.requested_outputs.size(), 2U);
  EXPECT_EQ(r.requested_outputs[0].name, "y");
  EXPECT_EQ(r.requested_outputs[0].classification, 0);
  EXPECT_EQ(r.requested_outputs[1].classification, 3);
}

TEST(DecodeModelInfer, EmptyMessageIsAnEmptyRequest) {
  const Decoded d("");
  EXPECT_TRUE(d.status);
  EXPECT_TRUE(d.request.inputs.empty());
}

TEST(DecodeModelInfer, RawContentsInAnyOrder) {
  const Decoded d(message([](pbf_writer& w) {
    w.add_bytes(7, "AAAA");
    input(w, "a", "INT32", {1});
    w.add_bytes(7, "BBBB");
    input(w, "b", "INT32", {1});
    w.add_string(1, "m");
  }));
  ASSERT_TRUE(d.status);
  EXPECT_EQ(d.data(0), "AAAA");
  EXPECT_EQ(d.data(1), "BBBB");
}

TEST(DecodeModelInfer, UnpackedShapeAndFieldsInReverse) {
  const Decoded d(message([](pbf_writer& w) {
    sub(w, 5, [](pbf_writer& in) {
      sub(in, 5, [](pbf_writer& c) { c.add_int32(2, -1), c.add_int32(2, 7); });
      in.add_int64(3, 2);
      in.add_int64(3, 1);
      in.add_string(2, "INT16");
      in.add_string(1, "x");
    });
  }));
  ASSERT_TRUE(d.status) << d.status.message();
  EXPECT_EQ(d.request.inputs[0].shape, (Shape{2, 1}));
  EXPECT_EQ(d.data(0), raw<std::int16_t>({-1, 7}));
}

struct Typed {
  const char* dtype;
  Fields contents;
  std::string want;
};

std::vector<Typed> typed_cases() {
  const std::vector<std::int32_t> i32{-2, 300, 70000};
  const std::vector<std::uint32_t> u32{1, 300, 70000};
  const std::vector<std::int64_t> i64{-1, 1LL << 40};
  const std::vector<std::uint64_t> u64{~0ULL, 5};
  const std::vector<float> f32{1.5F, -0.F};
  const std::vector<double> f64{2.25, 1e300};
  const std::vector<bool> flags{true, false};
  return {
      {"INT8", [=](pbf_writer& c) { c.add_packed_int32(2, i32.begin(), i32.end()); },
       raw<std::int8_t>({-2, 44, 112})},
      {"INT16", [=](pbf_writer& c) { c.add_packed_int32(2, i32.begin(), i32.end()); },
       raw<std::int16_t>({-2, 300, 4464})},
      {"INT32", [=](pbf_writer& c) { c.add_packed_int32(2, i32.begin(), i32.end()); },
       raw<std::int32_t>({-2, 300, 70000})},
      {"UINT8", [=](pbf_writer& c) { c.add_packed_uint32(4, u32.begin(), u32.end()); },
       raw<std::uint8_t>({1, 44, 112})},
      {"UINT16", [=](pbf_writer& c) { c.add_packed_uint32(4, u32.begin(), u32.end()); },
       raw<std::uint16_t>({1, 300, 4464})},
      {"UINT32", [=](pbf_writer& c) { c.add_packed_uint32(4, u32.begin(), u32.end()); },
       raw<std::uint32_t>({1, 300, 70000})},
      {"INT64", [=](pbf_writer& c) { c.add_packed_int64(3, i64.begin(), i64.end()); },
       raw<std::int64_t>({-1, 1LL << 40})},
      {"UINT64", [=](pbf_writer& c) { c.add_packed_uint64(5, u64.begin(), u64.end()); },
       raw<std::uint64_t>({~0ULL, 5})},
      {"FP32", [=](pbf_writer& c) { c.add_packed_float(6, f32.begin(), f32.end()); },
       raw<float>({1.5F, -0.F})},
      {"FP64", [=](pbf_writer& c) { c.add_packed_double(7, f64.begin(), f64.end()); },
       raw<double>({2.25, 1e300})},
      {"BOOL", [=](pbf_writer& c) { c.add_packed_bool(1, flags.begin(), flags.end()); },
       raw<std::uint8_t>({1, 0})},
      {"BYTES", [](pbf_writer& c) { c.add_bytes(8, "ab"), c.add_bytes(8, ""); },
       std::string("\2\0\0\0ab\0\0\0\0", 10)},
      // not packed
      {"INT8",
       [=](pbf_writer& c) {
         for (const auto v : i32) c.add_int32(2, v);
       },
       raw<std::int8_t>({-2, 44, 112})},
      {"UINT64",
       [=](pbf_writer& c) {
         for (const auto v : u64) c.add_uint64(5, v);
       },
       raw<std::uint64_t>({~0ULL, 5})},
      {"FP32",
       [=](pbf_writer& c) {
         for (const auto v : f32) c.add_float(6, v);
       },
       raw<float>({1.5F, -0.F})},
      {"FP64",
       [=](pbf_writer& c) {
         for (const auto v : f64) c.add_double(7, v);
       },
       raw<double>({2.25, 1e300})},
      {"BOOL", [=](pbf_writer& c) { c.add_bool(1, true), c.add_uint64(1, 256); }, raw<std::uint8_t>({1, 1})},
      // both in one message
      {"FP32", [=](pbf_writer& c) { c.add_float(6, 9), c.add_packed_float(6, f32.begin(), f32.end()); },
       raw<float>({9, 1.5F, -0.F})},
      {"FP32", [](pbf_writer&) {}, ""},
  };
}

TEST(DecodeModelInfer, TypedContents) {
  for (const Typed& c : typed_cases()) {
    const Decoded d(message([&](pbf_writer& w) {
      input(w, "x", c.dtype, {1}, [&](pbf_writer& in) { sub(in, 5, c.contents); });
    }));
    ASSERT_TRUE(d.status) << c.dtype << ": " << d.status.message();
    EXPECT_EQ(d.data(0), c.want) << c.dtype;
  }
}

TEST(DecodeModelInfer, ContentsAndRawTogether) {
  // for any input, not only the one that the raw bytes are for
  const std::string text = refused(message([](pbf_writer& w) {
    w.add_string(1, "m");
    input(w, "a", "FP32", {1});
    input(w, "b", "FP32", {1}, [](pbf_writer& in) { sub(in, 5, [](pbf_writer& c) { c.add_float(6, 1); }); });
    w.add_bytes(7, "aaaa");
  }));
  EXPECT_TRUE(text.starts_with(
      "contents field must not be specified when using raw_input_contents for 'b' for model 'm'"));
}

struct Bad {
  std::string want;  // the message starts with it
  std::string wire;
};

std::string with_input(const Fields& more, std::string_view dtype = "FP32",
                       const std::vector<std::int64_t>& dims = {1}) {
  return message([&](pbf_writer& w) { input(w, "x", dtype, dims, more); });
}
std::string with_parameter(std::string_view key, const Fields& value) {
  return message([&](pbf_writer& w) { parameter(w, 4, key, value); });
}
std::string with_output_parameter(std::string_view key, const Fields& value) {
  return message([&](pbf_writer& w) {
    sub(w, 6, [&](pbf_writer& o) {
      o.add_string(1, "y");
      parameter(o, 2, key, value);
    });
  });
}

TEST(DecodeModelInfer, RefusalsNameFieldAndValue) {
  const Fields nothing = [](pbf_writer&) {};
  const Fields int_one = [](pbf_writer& p) { p.add_int64(2, 1); };
  const Fields text = [](pbf_writer& p) { p.add_string(3, "1"); };
  const std::vector<Bad> cases = {
      {"inputs[0].shape: got rank 17, want 16 or fewer",
       with_input(nothing, "FP32", std::vector<std::int64_t>(17, 1))},
      {"inputs[0].shape[1]: got -1, want 0 or more", with_input(nothing, "FP32", {1, -1})},
      {"inputs[0].shape[0]: got -9223372036854775808, want 0 or more",
       with_input(nothing, "FP32", {INT64_MIN})},
      {"inputs[0].datatype: got \"FP33\", want a name", with_input(nothing, "FP33")},
      {"inputs[0].datatype: got \"\", want a name",
       message([](pbf_writer& w) { sub(w, 5, [](pbf_writer&) {}); })},
      {"inputs[0].contents: datatype FP16 is only accepted in raw_input_contents",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer& c) { c.add_float(6, 1); }); }, "FP16")},
      {"inputs[0].contents: datatype BF16 is only accepted in raw_input_contents",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer&) {}); }, "BF16")},
      {"inputs[0].contents.int_contents: datatype FP32 takes contents.fp32_contents",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer& c) { c.add_int32(2, 1); }); })},
      {"inputs[0].contents.fp32_contents: got 3 bytes, want a multiple of 4",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer& c) { c.add_bytes(6, "abc"); }); })},
      {"inputs[0].contents.int_contents: truncated number",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer& c) { c.add_bytes(2, "\x01\x80"); }); },
                  "INT32")},
      {"inputs[0].contents.fp32_contents: got protobuf wire type 0, want 5",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer& c) { c.add_int32(6, 1); }); })},
      {"inputs[0].contents: malformed protobuf: number of more than 10 bytes",
       with_input(
           [](pbf_writer& in) {
             sub(in, 5, [](pbf_writer& c) { c.add_bytes(3, std::string(12, '\xFF') + '\1'); });
           },
           "INT64")},
      {"inputs[0].contents: given twice",
       with_input([](pbf_writer& in) { sub(in, 5, [](pbf_writer&) {}), sub(in, 5, [](pbf_writer&) {}); })},
      {"raw_input_contents: got 1 entries, want 2 (one per input)", message([](pbf_writer& w) {
         input(w, "a", "FP32", {1});
         input(w, "b", "FP32", {1});
         w.add_bytes(7, "aaaa");
       })},
      {"raw_input_contents: got 1 entries, want 0 (one per input)",
       message([](pbf_writer& w) { w.add_bytes(7, "aaaa"); })},
      {"id: not valid UTF-8", message([](pbf_writer& w) { w.add_string(3, "\xC3("); })},
      {"model_name: got protobuf wire type 0, want 2", message([](pbf_writer& w) { w.add_int64(1, 5); })},
      {"inputs[0].name: got protobuf wire type 0, want 2",
       message([](pbf_writer& w) { sub(w, 5, [](pbf_writer& i) { i.add_int64(1, 5); }); })},
      {"inputs[0].shape: got protobuf wire type 5, want 2",
       message([](pbf_writer& w) { sub(w, 5, [](pbf_writer& i) { i.add_fixed32(3, 5); }); })},
      {"ModelInferRequest: malformed protobuf: group or unknown wire type", std::string(200, '\x0B')},
      {"inputs[0]: malformed protobuf: group or unknown wire type",
       message([](pbf_writer& w) { w.add_bytes(5, std::string(100, '\x53')); })},
      {"model_name: malformed protobuf: truncated", std::string("\x0A\x05xy", 4)},
      {"ModelInferRequest: malformed protobuf: number of more than 10 bytes",
       std::string("\x50") + std::string(11, '\xFF') + "\1"},
      {"ModelInferRequest: malformed protobuf: invalid tag or length", std::string("\0\0", 2)},
      {"parameters[\"x\"]: got no value", with_parameter("x", nothing)},
      {"invalid value type for 'timeout' parameter, expected int64_param", with_parameter("timeout", text)},
      {"parameters[\"timeout\"]: got -1, want 0 or more microseconds",
       with_parameter("timeout", [](pbf_writer& p) { p.add_int64(2, -1); })},
      {"parameters[\"priority\"]: got 4294967296, want 0 to 4294967295",
       with_parameter("priority", [](pbf_writer& p) { p.add_uint64(5, 1ULL << 32); })},
      {"invalid value type for 'priority' parameter", with_parameter("priority", text)},
      {"invalid value type for 'sequence_start' parameter, expected bool_param",
       with_parameter("sequence_start", int_one)},
      {"invalid value type for 'sequence_id' parameter",
       with_parameter("sequence_id", [](pbf_writer& p) { p.add_bool(1, true); })},
      {"parameters[\"triton_x\"]: names that start with 'triton_' are reserved",
       with_parameter("triton_x", int_one)},
      {"parameters: got protobuf wire type 5, want 2",
       with_parameter("ratio", [](pbf_writer& p) { p.add_fixed32(3, 1); })},
      {"invalid value type for 'classification' parameter, expected int64_param",
       with_output_parameter("classification", text)},
      {"outputs[0].parameters[\"classification\"]: got 0, want 1 or more",
       with_output_parameter("classification", [](pbf_writer& p) { p.add_int64(2, 0); })},
      {"parameters: got more than 64, want 64 or fewer", message([&](pbf_writer& w) {
         for (int i = 0; i < 65; ++i) parameter(w, 4, "p" + std::to_string(i), int_one);
       })},
  };
  for (const Bad& c : cases) {
    const std::string got = refused(c.wire);
    EXPECT_TRUE(got.starts_with(c.want)) << "got:  " << got << "\nwant: " << c.want;
  }
}

// Parameters of a shared place, each as it is written.
Fields place(const char* region, std::int64_t bytes, std::int64_t offset = 0) {
  return [=](pbf_writer& owner) {
    // Inputs have their parameters in field 4.
    if (region != nullptr) {
      parameter(owner, 4, "shared_memory_region", [&](pbf_writer& p) { p.add_string(3, region); });
    }
    if (bytes >= 0) {
      parameter(owner, 4, "shared_memory_byte_size", [&](pbf_writer& p) { p.add_int64(2, bytes); });
    }
    if (offset != 0) {
      parameter(owner, 4, "shared_memory_offset", [&](pbf_writer& p) { p.add_int64(2, offset); });
    }
  };
}

TEST(DecodeModelInfer, InputsInSharedMemoryTakeNoRawEntry) {
  const Decoded d(message([&](pbf_writer& w) {
    input(w, "a", "INT8", {1});
    input(w, "b", "FP32", {2}, place("r", 8, 64));
    input(w, "c", "INT8", {2});
    input(w, "d", "BYTES", {1}, place("s", 12));
    w.add_bytes(7, "x");
    w.add_bytes(7, "yz");
  }));
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  EXPECT_EQ(d.request.inputs[0].data.size(), 1U);
  EXPECT_TRUE(d.request.inputs[1].data.empty());
  EXPECT_EQ(d.request.inputs[2].data.size(), 2U);
  ASSERT_EQ(d.request.shared_inputs.size(), 2U);
  EXPECT_EQ(d.request.shared_inputs[0].input, 1U);
  EXPECT_EQ(d.request.shared_inputs[0].place.region, "r");
  EXPECT_EQ(d.request.shared_inputs[0].place.offset, 64U);
  EXPECT_EQ(d.request.shared_inputs[0].place.bytes, 8U);
  EXPECT_EQ(d.request.shared_inputs[1].input, 3U);
  EXPECT_EQ(d.request.shared_inputs[1].place.offset, 0U);
}

TEST(DecodeModelInfer, OutputsInSharedMemory) {
  const Decoded d(message([&](pbf_writer& w) {
    input(w, "a", "INT8", {1}, place("r", 1));
    sub(w, 6, [](pbf_writer& o) {
      o.add_string(1, "y");
      parameter(o, 2, "shared_memory_region", [](pbf_writer& p) { p.add_string(3, "out"); });
      parameter(o, 2, "shared_memory_byte_size", [](pbf_writer& p) { p.add_uint64(5, 1ULL << 63U); });
    });
  }));
  ASSERT_TRUE(d.status.is_ok()) << d.status.message();
  ASSERT_EQ(d.request.requested_outputs.size(), 1U);
  EXPECT_EQ(d.request.requested_outputs[0].shared.region, "out");
  EXPECT_EQ(d.request.requested_outputs[0].shared.bytes, 1ULL << 63U);
}

TEST(DecodeModelInfer, PlacesInSharedMemoryAreChecked) {
  const auto one = [](const Fields& fields, int raw = 0) {
    return message([&](pbf_writer& w) {
      input(w, "x", "FP32", {1}, fields);
      for (int i = 0; i < raw; ++i) w.add_bytes(7, "abcd");
    });
  };
  const auto with = [&](const char* name, const Fields& value) {
    return one([=](pbf_writer& i) {
      place("r", 4)(i);
      parameter(i, 4, name, value);
    });
  };
  const auto classified = message([](pbf_writer& w) {
    input(w, "x", "FP32", {1}, place("r", 4));
    sub(w, 6, [](pbf_writer& o) {
      o.add_string(1, "y");
      parameter(o, 2, "shared_memory_region", [](pbf_writer& p) { p.add_string(3, "r"); });
      parameter(o, 2, "shared_memory_byte_size", [](pbf_writer& p) { p.add_int64(2, 4); });
      parameter(o, 2, "classification", [](pbf_writer& p) { p.add_int64(2, 3); });
    });
  });
  const std::pair<std::string, std::string> cases[] = {
      {one(place("r", -1)), "inputs[0].parameters[\"shared_memory_byte_size\"]: missing"},
      {one(place(nullptr, 4)), "inputs[0].parameters[\"shared_memory_region\"]: missing"},
      {one(place(nullptr, -1, 4)), "inputs[0].parameters[\"shared_memory_region\"]: missing"},
      {one(place("", 4)), "inputs[0].parameters[\"shared_memory_region\"]: missing"},
      {one(place("r", 4, -1)),
       "inputs[0].parameters[\"shared_memory_offset\"]: got -1, want 0 or more bytes"},
      {with("shared_memory_byte_size", [](pbf_writer& p) { p.add_int64(2, -4); }),
       "inputs[0].parameters[\"shared_memory_byte_size\"]: got -4, want 0 or more bytes"},
      {with("shared_memory_region", [](pbf_writer& p) { p.add_int64(2, 1); }),
       "invalid value type for 'shared_memory_region' parameter, expected string_param"},
      {with("shared_memory_byte_size", [](pbf_writer& p) { p.add_string(3, "4"); }),
       "invalid value type for 'shared_memory_byte_size' parameter, expected int64_param"},
      {with("shared_memory_offset", [](pbf_writer& p) { p.add_bool(1, true); }),
       "invalid value type for 'shared_memory_offset' parameter, expected int64_param"},
      {with("shared_memory_size", [](pbf_writer& p) { p.add_int64(2, 4); }),
       "inputs[0].parameters[\"shared_memory_size\"]: unknown, want"},
      {one([](pbf_writer& i) {
         place("r", 4)(i);
         sub(i, 5, [](pbf_writer& c) { c.add_float(6, 1); });
       }),
       "inputs[0].contents: got both contents and parameters[\"shared_memory_region\"], want one of them"},
      {one(place("r", 4), 1),
       "raw_input_contents: got 1 entries, want 0 (one per input that is not in shared memory)"},
      {classified, "output can't set both 'shared_memory_region' and 'classification'. outputs[0]"},
  };
  for (const auto& [wire, want] : cases) {
    const std::string got = refused(wire);
    EXPECT_TRUE(got.starts_with(want)) << "got:  " << got << "\nwant: " << want;
  }
}

TEST(DecodeModelInfer, CountLimitsAreExact) {
  for (const std::size_t n : {kMaxInputs - 1, kMaxInputs, kMaxInputs + 1}) {
    const Decoded d(message([&](pbf_writer& w) {
      for (std::size_t i = 0; i < n; ++i) input(w, "x" + std::to_string(i), "INT8", {1});
      for (std::size_t i = 0; i < n; ++i) w.add_bytes(7, "a");
    }));
    EXPECT_EQ(d.status.is_ok(), n <= kMaxInputs) << n;
  }
  for (const std::size_t n : {kMaxRank - 1, kMaxRank, kMaxRank + 1}) {
    EXPECT_EQ(Decoded(with_input([](pbf_writer&) {}, "INT8", std::vector<std::int64_t>(n, 1))).status.is_ok(),
              n <= kMaxRank);
  }
  for (const std::size_t n : {kMaxRequestedOutputs, kMaxRequestedOutputs + 1}) {
    const Decoded d(message([&](pbf_writer& w) {
      for (std::size_t i = 0; i < n; ++i) sub(w, 6, [](pbf_writer& o) { o.add_string(1, "y"); });
    }));
    EXPECT_EQ(d.status.is_ok(), n <= kMaxRequestedOutputs) << n;
  }
}

TEST(DecodeModelInfer, TheLastParameterOfANameWins) {
  const Decoded d(message([](pbf_writer& w) {
    parameter(w, 4, "a", [](pbf_writer& p) { p.add_int64(2, 1); });
    parameter(w, 4, "b", [](pbf_writer& p) { p.add_int64(2, 2); });
    parameter(w, 4, "a", [](pbf_writer& p) { p.add_int64(2, 3), p.add_bool(1, true); });
  }));
  ASSERT_TRUE(d.status);
  ASSERT_EQ(d.request.parameters.size(), 2U);
  EXPECT_EQ(std::get<bool>(d.request.parameters[0].value), true);
}

TEST(DecodeModelInfer, UnknownFieldsAreSkipped) {
  const Decoded d(message([](pbf_writer& w) {
    w.add_string(1, "m");
    w.add_int64(99, 5);
    w.add_fixed64(100, 5);
    w.add_string(101, "later version");
    input(w, "x", "FP32", {1}, [](pbf_writer& in) { in.add_string(77, "new"); });
    w.add_bytes(7, "aaaa");
  }));
  EXPECT_TRUE(d.status) << d.status.message();
}

TEST(DecodeModelInfer, LongNamesAreNotEchoed) {
  const std::string text = refused(with_input([](pbf_writer&) {}, std::string(100000, 'D')));
  EXPECT_LT(text.size(), 300U);
}

std::string rich_request() {
  return message([](pbf_writer& w) {
    w.add_string(1, "model");
    w.add_string(3, "id");
    parameter(w, 4, "timeout", [](pbf_writer& p) { p.add_int64(2, 1500); });
    parameter(w, 4, "ratio", [](pbf_writer& p) { p.add_double(4, 0.5); });
    int i = 0;
    for (const Typed& c : typed_cases()) {
      input(w, "x" + std::to_string(i++), c.dtype, {1, 2}, [&](pbf_writer& in) { sub(in, 5, c.contents); });
    }
    sub(w, 6, [](pbf_writer& o) {
      o.add_string(1, "z");
      parameter(o, 2, "classification", [](pbf_writer& p) { p.add_int64(2, 3); });
    });
  });
}

std::string raw_request() {
  return message([](pbf_writer& w) {
    w.add_string(1, "model");
    input(w, "a", "FP32", {1, 2});
    input(w, "b", "BYTES", {1});
    w.add_bytes(7, "12345678");
    w.add_bytes(7, std::string("\2\0\0\0ab", 6));
  });
}

TEST(DecodeModelInfer, TruncatedAtEveryByteNeverReadsBehindTheEnd) {
  for (const std::string& wire : {rich_request(), raw_request()}) {
    ASSERT_TRUE(Decoded(wire).status);
    for (std::size_t n = 0; n < wire.size(); ++n) {
      const Decoded d(wire.substr(0, n));
      if (!d.status) {
        ASSERT_EQ(d.status.code(), Code::kInvalidArgument);
      }
    }
  }
}

// 20,000 mutants: right or INVALID_ARGUMENT, never another code, never outside the message (ASan).
TEST(DecodeModelInfer, Mutations) {
  std::mt19937 random(1);
  const std::string good[] = {rich_request(), raw_request(), testing::small_request()};
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string wire = good[static_cast<std::size_t>(round) % std::size(good)];
    for (unsigned k = 0; k < 1 + random() % 4; ++k) {
      const std::size_t at = random() % wire.size();
      switch (random() % 5) {
        case 0:
          wire.erase(at, 1 + random() % 8);
          break;
        case 1:
          wire.insert(at, 1 + random() % 8, static_cast<char>(random()));
          break;
        case 2:
          wire[at] = static_cast<char>(wire[at] ^ (1 << random() % 8));
          break;
        case 3:
          wire[at] = '\xFF';
          break;
        default:
          wire[at] = static_cast<char>(random());
      }
      if (wire.empty()) wire = "x";
    }
    const Decoded d(wire);
    accepted += d.status.is_ok() ? 1 : 0;
    if (!d.status) {
      ASSERT_TRUE(d.status.code() == Code::kInvalidArgument || d.status.code() == Code::kUnimplemented);
    }
    if (d.status) {
      for (const TensorView& in : d.request.inputs) {
        unsigned sum = 0;
        for (const std::byte b : in.data) sum += std::to_integer<unsigned>(b);  // every byte can be read
        ASSERT_GE(sum, 0U);
      }
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 19000);
}

}  // namespace
}  // namespace fastserve
