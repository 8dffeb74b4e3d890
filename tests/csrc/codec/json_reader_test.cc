#include "codec/json_reader.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <charconv>
#include <cmath>
#include <random>
#include <string>

namespace fastserve {
namespace {

Status check(std::string_view text, const JsonLimits& limits = {}) {
  JsonReader reader(text, limits);
  reader.skip_value();
  reader.finish();
  return reader.status();
}

std::string message(std::string_view text, const JsonLimits& limits = {}) {
  return check(text, limits).message();
}

TEST(JsonReader, AcceptsEveryKindOfValue) {
  for (const char* text : {"null", "true", "false", "0", "-0", "1.5e+10", "\"\"", "[]", "{}", " [ 1 , 2 ] ",
                           "{\"a\":[{\"b\":null}]}", "\t\r\n1\n", "[\"\\u00e9\\ud83d\\ude00\\n\"]"}) {
    EXPECT_TRUE(check(text).is_ok()) << text << ": " << message(text);
  }
}

TEST(JsonReader, RefusesWhatIsNoJsonAndSaysWhere) {
  const struct {
    const char* text;
    const char* words;
  } cases[] = {
      {"", "the text ends too early at byte 0 (line 1, column 1)"},
      {"[1,2", "the text ends too early at byte 4"},
      {"[1 2]", "expected ',' or ']' at byte 3"},
      {"[1,]", "expected a value at byte 3"},
      {"[,1]", "expected a value at byte 1"},
      {"{\"a\" 1}", "expected ':' at byte 5"},
      {"{\"a\":1,}", "expected a key in double quotes at byte 7"},
      {"{a:1}", "expected a key in double quotes at byte 1"},
      {"{\"a\":1 \"b\":2}", "expected ',' or '}' at byte 7"},
      {"{\n \"a\": tru\n}", "expected a value at byte 8 (line 2, column 7)"},
      {"[1] x", "unexpected text behind the end of the document at byte 4"},
      {"{}{}", "unexpected text behind the end of the document at byte 2"},
      {"01", "a number with leading zeros at byte 1"},
      {"1.", "expected a digit at byte 2"},
      {".5", "expected a value at byte 0"},
      {"-", "expected a digit at byte 1"},
      {"1e", "expected a digit at byte 2"},
      {"+1", "expected a value at byte 0"},
      {"NaN", "expected a value at byte 0"},
      {"Infinity", "expected a value at byte 0"},
      {"-Infinity", "expected a digit at byte 1"},
      {"\"a", "a string without an end at byte 2"},
      {"\"a\\", "a string without an end at byte 3"},
      {"\"\\x\"", "an unknown escape at byte 3"},
      {"\"\\u12g4\"", "\\u needs four hexadecimal digits at byte 3"},
      {"\"\\u12", "\\u needs four hexadecimal digits at byte 3"},
      {"\"\\ud800\"", "a high surrogate without a low one"},
      {"\"\\ud800\\u0041\"", "a high surrogate without a low one"},
      {"\"\\udc00\"", "a low surrogate without a high one"},
      {"\"a\tb\"", "a control character inside a string at byte 2"},
      {"\xef\xbb\xbf{}", "a byte order mark at byte 0"},
      {"[\"\xc3\"]", "invalid UTF-8 at byte 2"},
      {"[\"ab\xff\"]", "invalid UTF-8 at byte 4"},
      {"[\"\xed\xa0\x80\"]", "invalid UTF-8 at byte 2"},
      {"[\"\xe2\x82", "invalid UTF-8 at byte 2"},
      {"[1}", "expected ',' or ']' at byte 2"},
  };
  for (const auto& c : cases) {
    const Status status = check(c.text);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << c.text;
    EXPECT_NE(status.message().find(c.words), std::string::npos) << c.text << ": " << status.message();
  }
  EXPECT_EQ(check(std::string_view("1\0", 2)).code(), Code::kInvalidArgument);
  EXPECT_EQ(check(std::string_view("\"\\\0\"", 4)).code(), Code::kInvalidArgument);
}

TEST(JsonReader, FindsBadUtf8FarInside) {
  for (const std::size_t at : {0U, 1U, 63U, 64U, 65U, 1000U, 4095U, 9999U}) {
    std::string text = "\"" + std::string(10'000, 'x') + "\"";
    text[1 + at] = '\x80';
    EXPECT_NE(message(text).find("at byte " + std::to_string(1 + at) + " "), std::string::npos)
        << at << message(text);
  }
  EXPECT_NE(message("\"" + std::string(1000, '\x80') + "\"").find("at byte 1 "), std::string::npos);
}

TEST(JsonReader, HoldsItsLimits) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  EXPECT_TRUE(check(nested(31)).is_ok());
  EXPECT_TRUE(check(nested(32)).is_ok());
  EXPECT_NE(message(nested(33)).find("nested deeper than 32 at byte 32"), std::string::npos);
  EXPECT_FALSE(check(std::string(200'000, '[')).is_ok());

  const auto keys = [](int count) {
    std::string text = "{";
    for (int i = 0; i < count; ++i) text += (i == 0 ? "\"k" : ",\"k") + std::to_string(i) + "\":0";
    return text + "}";
  };
  EXPECT_TRUE(check(keys(999)).is_ok());
  EXPECT_TRUE(check(keys(1000)).is_ok());
  EXPECT_NE(message(keys(1001)).find("more than 1000 keys"), std::string::npos);

  const auto digits = [](std::size_t count) { return std::string(count, '1'); };
  EXPECT_TRUE(check(digits(63)).is_ok());
  EXPECT_TRUE(check(digits(64)).is_ok());
  EXPECT_NE(message(digits(65)).find("a number longer than 64 characters at byte 0"), std::string::npos);
}

std::string decoded(std::string_view text) {
  JsonReader reader(text);
  JsonString string;
  EXPECT_TRUE(reader.read_string(string)) << reader.status().message();
  Scratch scratch;
  return std::string(JsonReader::decode(string, scratch));
}

TEST(JsonReader, DecodesEscapes) {
  EXPECT_EQ(decoded("\"plain\""), "plain");
  EXPECT_EQ(decoded(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(decoded(R"("\u0041\u00e9\u20AC\ud83d\ude00")"), "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(decoded(R"("a\u0000b")"), std::string("a\0b", 3));
  EXPECT_EQ(decoded(R"("\uffff\ud800\udc00\udbff\udfff")"), "\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
}

JsonNumber number(std::string_view text) {
  JsonReader reader(text);
  JsonNumber n;
  EXPECT_TRUE(reader.read_number(n)) << text;
  EXPECT_EQ(n.text, text);
  return n;
}

TEST(JsonNumber, ReadsIntegersAtTheEdges) {
  EXPECT_EQ(number("9223372036854775807").as_int64(), INT64_MAX);
  EXPECT_EQ(number("9223372036854775808").as_int64(), std::nullopt);
  EXPECT_EQ(number("-9223372036854775808").as_int64(), INT64_MIN);
  EXPECT_EQ(number("-9223372036854775809").as_int64(), std::nullopt);
  EXPECT_EQ(number("18446744073709551615").as_uint64(), UINT64_MAX);
  EXPECT_EQ(number("18446744073709551616").as_uint64(), std::nullopt);
  EXPECT_EQ(number("99999999999999999999").as_uint64(), std::nullopt);
  EXPECT_EQ(number("100000000000000000000").as_uint64(), std::nullopt);
  EXPECT_EQ(number("9999999999999999999").as_uint64(), 9'999'999'999'999'999'999U);
  EXPECT_EQ(number("-0").as_uint64(), 0U);
  EXPECT_EQ(number("-0").as_int64(), 0);
  EXPECT_EQ(number("-1").as_uint64(), std::nullopt);
  EXPECT_EQ(number("1.0").as_int64(), std::nullopt);
  EXPECT_EQ(number("1e2").as_int64(), std::nullopt);
}

TEST(JsonNumber, ReadsManyDigits) {
  EXPECT_EQ(number("0.00000000000000000000000001234567").as_double(), 1.234567e-26);
  EXPECT_EQ(number("0.0000000000000000000000001234567890123456789").as_double(), 1.234567890123456789e-25);
  EXPECT_EQ(number("12345678901234567890.5").as_double(), 12345678901234567890.5);
  EXPECT_EQ(number("1234567890123456789012345678901234567890").as_double(),
            1234567890123456789012345678901234567890.0);
  EXPECT_EQ(number("0.10000000000000000555111512312578270211815834045410156").as_double(), 0.1);
  EXPECT_EQ(number("1234567.12345678").as_double(), 1234567.12345678);
  EXPECT_EQ(number("12345678").as_uint64(), 12345678U);
  EXPECT_EQ(number("1234567812345678").as_uint64(), 1234567812345678U);
}

TEST(JsonNumber, RefusesInfiniteAndRoundsToZero) {
  EXPECT_EQ(number("1e999").as_double(), std::nullopt);
  EXPECT_EQ(number("-1e309").as_double(), std::nullopt);
  EXPECT_EQ(number("1e39").as_float(), std::nullopt);
  EXPECT_EQ(number("3.4028235e38").as_float(), 3.4028235e38F);
  EXPECT_EQ(number("3.4028236e38").as_float(), std::nullopt);  // rounds up past the largest
  EXPECT_EQ(number("1e-999").as_double(), 0.0);
  EXPECT_TRUE(std::signbit(*number("-0.0").as_double()));
  EXPECT_EQ(number("1e-45").as_float(), 1e-45F);
  EXPECT_EQ(number("1e99999999999999999999").as_double(), std::nullopt);
}

// The decimal lies just above the middle of two floats, its double exactly on it.
TEST(JsonNumber, DoesNotRoundTwice) {
  EXPECT_EQ(number("1.00000005960464477540").as_float(), 1.00000012F);
  EXPECT_EQ(number("1.00000005960464477538").as_float(), 1.0F);
  EXPECT_EQ(number("16777217").as_float(), 16777216.0F);
  EXPECT_EQ(number("16777219").as_float(), 16777220.0F);
}

template <class T>
void agrees_with_from_chars(const char* text, std::size_t size, std::optional<T> got) {
  T want{};
  std::from_chars(text, text + size, want);
  ASSERT_TRUE(got.has_value()) << std::string(text, size);
  ASSERT_EQ(*got, want) << std::string(text, size);
}

TEST(JsonNumber, AgreesWithTheStandardLibrary) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 200'000; ++i) {
    char text[64];
    const std::uint64_t bits = random();
    const auto d = std::bit_cast<double>(bits);
    const auto f = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (!std::isfinite(d) || !std::isfinite(f)) continue;
    // Shortest forms, float widened to double (what Python prints), and short decimals.
    const double short_decimal = static_cast<double>(bits % 1'000'000'000) / 1e6;
    for (const double value : {d, static_cast<double>(f), short_decimal}) {
      const auto size = static_cast<std::size_t>(std::to_chars(text, text + sizeof(text), value).ptr - text);
      agrees_with_from_chars<double>(text, size, number({text, size}).as_double());
      if (std::fabs(value) < 3e38 && std::fabs(value) > 1e-37) {
        agrees_with_from_chars<float>(text, size, number({text, size}).as_float());
      }
    }
    const auto size = static_cast<std::size_t>(std::to_chars(text, text + sizeof(text), f).ptr - text);
    agrees_with_from_chars<float>(text, size, number({text, size}).as_float());
  }
}

// Every mutant is JSON for both parsers or for neither. simdjson 3.0's DOM is the judge but for what it does differently on
// purpose: integers beyond 64 bits, infinite doubles, lone surrogates.
TEST(JsonReader, AgreesWithSimdjsonOnMutants) {
  const std::string seeds[] = {
      R"({"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1.5,-2e3],[0,4]]}],"outputs":[]})",
      R"([{"a":"\u00e9\n\"","b":[true,false,null],"c":{"d":{}}},-0.25E-3,[[],[1,2]]," x "])"};
  const std::string alphabet = "{}[],:\"\\ \n01.eE+-tfnu\xc3\xa9x/";
  std::mt19937 random(11);
  simdjson::dom::parser parser;
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = seeds[static_cast<std::size_t>(i) % 2];
    for (auto edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text.erase(at, 1);
          break;
        default:
          text.resize(at + 1);
          break;
      }
    }
    simdjson::dom::element element;
    const auto judge = parser.parse(text).get(element);
    if (judge == simdjson::NUMBER_ERROR) continue;
    if (text.find("\\u") != std::string::npos && text.find("\\u00e9") == std::string::npos) continue;
    const bool ours = check(text).is_ok();
    ASSERT_EQ(ours, judge == simdjson::SUCCESS) << text << "\n"
                                                << message(text) << "\n"
                                                << simdjson::error_message(judge);
    accepted += ours ? 1 : 0;
  }
  EXPECT_GT(accepted, 500);
}

}  // namespace
}  // namespace fastserve
