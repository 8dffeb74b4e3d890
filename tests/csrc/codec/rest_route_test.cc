#include "codec/rest_route.h"

#include <gtest/gtest.h>

#include <string>

namespace fastserve {
namespace {

struct Matched {
  RestMatch match;
  std::string model;
  std::string version;
  bool operator==(const Matched&) const = default;
};

Matched match(std::string_view path) {
  Scratch scratch;
  RestRoute route;
  const RestMatch m = match_infer_route(path, scratch, route);
  return {m, std::string(route.model), std::string(route.version)};
}

TEST(RestRoute, MatchesTheHotRoute) {
  EXPECT_EQ(match("/v2/models/m/infer"), (Matched{RestMatch::kInfer, "m", ""}));
  EXPECT_EQ(match("/v2/models/m/versions/3/infer"), (Matched{RestMatch::kInfer, "m", "3"}));
  EXPECT_EQ(match("/v2/models/infer/infer"), (Matched{RestMatch::kInfer, "infer", ""}));
  EXPECT_EQ(match("/v2/models/versions/versions/versions/infer"),
            (Matched{RestMatch::kInfer, "versions", "versions"}));
}

TEST(RestRoute, DecodesNamesOnceAfterSplitting) {
  EXPECT_EQ(match("/v2/models/a%2Eb/versions/%31/infer"), (Matched{RestMatch::kInfer, "a.b", "1"}));
  EXPECT_EQ(match("/v2/models/a%2fb/infer"), (Matched{RestMatch::kInfer, "a/b", ""}));
  EXPECT_EQ(match("/v2/models/a%252fb/infer"), (Matched{RestMatch::kInfer, "a%2fb", ""}));
  EXPECT_EQ(match("/v2/models/%2e%2e/infer"), (Matched{RestMatch::kInfer, "..", ""}));
}

TEST(RestRoute, RefusesBadEscapesAndNul) {
  for (const char* path :
       {"/v2/models/%/infer", "/v2/models/%4/infer", "/v2/models/%zz/infer", "/v2/models/a%00/infer",
        "/v2/models//infer", "/v2/models/m/versions//infer", "/v2/models/m/versions/%0/infer"}) {
    EXPECT_EQ(match(path).match, RestMatch::kMalformed) << path;
  }
  EXPECT_EQ(match(std::string_view("/v2/models/a\0b/infer", 20)).match, RestMatch::kMalformed);
}

TEST(RestRoute, LeavesOtherPaths) {
  for (const char* path :
       {"", "/", "/v2", "/v2/models", "/v2/models/", "/v2/models/infer", "/v2/models/m", "/v2/models/m/ready",
        "/v2/models/m/infer/", "/v2/models/m/versions/1", "/v2/models/m/versions/infer",
        "/v2/models/m/x/infer", "/v2/models/m/versions/1/2/infer", "/v2/models/m/versions/1/ready/infer",
        "/V2/models/m/infer", "//v2/models/m/infer", "/v2/models/a/b/infer"}) {
    EXPECT_EQ(match(path).match, RestMatch::kOther) << path;
  }
}

}  // namespace
}  // namespace fastserve
