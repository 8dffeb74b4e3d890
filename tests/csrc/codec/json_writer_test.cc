#include "codec/json_writer.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <cstring>
#include <limits>
#include <vector>

namespace fastserve {
namespace {

TEST(JsonWriter, SetsCommasAndEscapes) {
  ByteBuffer out;
  JsonWriter json(out);
  json.begin_object();
  json.key("a\"b");
  json.begin_array();
  json.integer(-1);
  json.boolean(true);
  json.null();
  json.string("\x01\n\\\x7f/\xc3\xa9");
  json.begin_array();
  json.end_array();
  json.end_array();
  json.key("c");
  json.begin_object();
  json.end_object();
  json.key("d");
  json.unsigned_integer(UINT64_MAX);
  json.end_object();
  EXPECT_EQ(out.view(),
            "{\"a\\\"b\":[-1,true,null,\"\\u0001\\n\\\\\\u007f/"
            "\xc3\xa9\",[]],\"c\":{},\"d\":18446744073709551615}");
}

TEST(JsonWriter, WritesShortestNumbers) {
  ByteBuffer out;
  JsonWriter json(out);
  json.begin_array();
  json.number(0.1);
  json.number(0.1F);
  json.number(1.0);
  json.number(1e300);
  json.number(std::numeric_limits<double>::quiet_NaN());
  json.number(-std::numeric_limits<float>::infinity());
  json.end_array();
  EXPECT_EQ(out.view(), "[0.1,0.1,1,1e+300,NaN,-Infinity]");
}

template <class T>
std::string elements(DType dtype, const std::vector<T>& values) {
  ByteBuffer out;
  JsonWriter json(out);
  json.elements(dtype, std::as_bytes(std::span(values)));
  return std::string(out.view());
}

TEST(JsonWriter, WritesTensorsOfEveryDtype) {
  EXPECT_EQ(elements<std::uint8_t>(DType::kBool, {0, 1, 2}), "[false,true,true]");
  EXPECT_EQ(elements<std::uint8_t>(DType::kUint8, {0, 255}), "[0,255]");
  EXPECT_EQ(elements<std::int8_t>(DType::kInt8, {-128, 127}), "[-128,127]");
  EXPECT_EQ(elements<std::uint16_t>(DType::kUint16, {65535}), "[65535]");
  EXPECT_EQ(elements<std::int16_t>(DType::kInt16, {-32768}), "[-32768]");
  EXPECT_EQ(elements<std::uint32_t>(DType::kUint32, {UINT32_MAX}), "[4294967295]");
  EXPECT_EQ(elements<std::int32_t>(DType::kInt32, {INT32_MIN}), "[-2147483648]");
  EXPECT_EQ(elements<std::uint64_t>(DType::kUint64, {UINT64_MAX}), "[18446744073709551615]");
  EXPECT_EQ(elements<std::int64_t>(DType::kInt64, {INT64_MIN}), "[-9223372036854775808]");
  EXPECT_EQ(elements<float>(DType::kFp32, {1.5F, 0.1F}), "[1.5,0.1]");
  EXPECT_EQ(elements<double>(DType::kFp64, {-2.2250738585072014e-308}), "[-2.2250738585072014e-308]");
  EXPECT_EQ(elements<float>(DType::kFp32, {}), "[]");
  EXPECT_EQ(elements<std::int32_t>(DType::kInt32, std::vector<std::int32_t>(65, 7)).size(), 65 * 2 + 1);
}

std::string parsed_error(const std::string& body) {
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  EXPECT_EQ(parser.parse(body).get(document), simdjson::SUCCESS) << body;
  std::string_view text;
  EXPECT_EQ(document["error"].get(text), simdjson::SUCCESS) << body;
  return std::string(text);
}

TEST(ErrorBody, IsAlwaysShortValidJson) {
  EXPECT_EQ(error_body("no \"x\""), "{\"error\":\"no \\\"x\\\"\"}");
  EXPECT_EQ(parsed_error(error_body("")), "");
  EXPECT_EQ(parsed_error(error_body("bad \xff byte")), "bad ? byte");
  EXPECT_EQ(parsed_error(error_body(std::string("nul\0!", 5))), std::string("nul\0!", 5));
  for (const std::string& unit :
       {std::string("a"), std::string("\""), std::string("\x01"), std::string("\xe2\x82\xac"),
        std::string("\xf0\x9f\x98\x80"), std::string("\xff")}) {
    for (const std::size_t count : {100U, 1000U, 1012U, 1013U, 1014U, 5000U}) {
      std::string message;
      for (std::size_t i = 0; i < count; ++i) message += unit;
      const std::string body = error_body(message);
      EXPECT_LE(body.size(), 1024U);
      const std::string text = parsed_error(body);
      EXPECT_EQ(text, unit == "\xff" ? std::string(text.size(), '?') : message.substr(0, text.size()));
      if (message.size() <= 1000 && unit == "a") {
        EXPECT_EQ(text, message);
      }
    }
  }
}

}  // namespace
}  // namespace fastserve
