#include "codec/rest_coding.h"

#include <gtest/gtest.h>

namespace fastserve {
namespace {

constexpr Compression kId = Compression::kIdentity;
constexpr Compression kGz = Compression::kGzip;
constexpr Compression kDef = Compression::kDeflate;

TEST(RestCoding, ReadsContentEncoding) {
  EXPECT_EQ(parse_content_coding(""), kId);
  EXPECT_EQ(parse_content_coding("identity"), kId);
  EXPECT_EQ(parse_content_coding("gzip"), kGz);
  EXPECT_EQ(parse_content_coding(" GZip "), kGz);
  EXPECT_EQ(parse_content_coding("x-gzip"), kGz);
  EXPECT_EQ(parse_content_coding("Deflate"), kDef);
  for (const char* other : {"br", "zstd", "gzip, gzip", "gzip;q=1", "*", "gzipp"}) {
    EXPECT_EQ(parse_content_coding(other), std::nullopt) << other;
  }
}

TEST(RestCoding, ChoosesByAcceptEncoding) {
  const std::pair<const char*, Compression> cases[] = {
      {"", kId},
      {"gzip", kGz},
      {"deflate", kDef},
      {"gzip, deflate, br", kGz},
      {"deflate, gzip", kGz},
      {"br", kId},
      {"*", kGz},
      {"gzip;q=0.5, deflate;q=0.8", kDef},
      {"gzip;q=0.5,deflate;q=0.500", kGz},
      {"gzip;q=0, deflate", kDef},
      {"gzip;q=0", kId},
      {"*;q=0", kId},
      {"*;q=0.5, gzip;q=0", kDef},
      {"identity", kId},
      {"identity;q=1, gzip;q=0.5", kId},
      {"identity;q=0.5, gzip;q=0.5", kGz},
      {"identity;q=0, gzip;q=0.001", kGz},
      {"identity;q=0", kId},
      {"GZIP ; Q=0.9 , deflate ; q=0.95", kDef},
      {"gzip;q=1.001", kId},
      {"gzip;q=abc", kId},
      {"gzip;q=", kId},
      {"gzip;q=0.12345", kId},
      {",,;,gzip,", kGz},
      {"x-gzip", kGz},
  };
  for (const auto& [header, want] : cases) EXPECT_EQ(choose_coding(header), want) << header;
}

}  // namespace
}  // namespace fastserve
