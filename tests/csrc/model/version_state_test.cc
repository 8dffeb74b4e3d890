#include "model/version_state.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace fastserve {
namespace {

using enum VersionState;

TEST(VersionState, TheTableHasExactlyTheDocumentedSteps) {
  const std::set<std::pair<VersionState, VersionState>> steps{
      {kNew, kLoading},       {kLoading, kWarming}, {kWarming, kReady},  {kReady, kDraining},
      {kDraining, kUnloaded}, {kNew, kFailed},      {kLoading, kFailed}, {kWarming, kFailed},
      {kReady, kFailed},      {kDraining, kFailed}};
  for (int from = 0; from < kVersionStateCount; ++from) {
    for (int to = 0; to < kVersionStateCount; ++to) {
      const auto a = static_cast<VersionState>(from);
      const auto b = static_cast<VersionState>(to);
      EXPECT_EQ(transition_allowed(a, b), steps.contains({a, b}))
          << version_state_name(a) << " > " << version_state_name(b);
    }
  }
}

TEST(VersionState, NamesAreDistinct) {
  std::set<std::string_view> names;
  for (int i = 0; i < kVersionStateCount; ++i) names.insert(version_state_name(static_cast<VersionState>(i)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kVersionStateCount));
}

}  // namespace
}  // namespace fastserve
