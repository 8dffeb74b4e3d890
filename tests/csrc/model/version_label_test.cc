// Labels: names and limits, who gets which request, what stays where it is.
#include "model/version_label.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "batch/request.h"
#include "model/version_table.h"
#include "support/samples.h"

namespace fastserve {
namespace {

std::vector<LabelTarget> versions(std::size_t count) {
  std::vector<LabelTarget> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back({static_cast<std::int64_t>(i) + 1, 1});
  return out;
}

TEST(LabelNames, AreNoNumbersAndHaveALimit) {
  for (const char* good : {"stable", "a", "Canary-2.1_b", "v3"}) EXPECT_TRUE(is_label_name(good)) << good;
  for (const char* bad : {"", "3", "3a", "-a", "a b", "a/b", "\xc3\xa4", ".a"})
    EXPECT_FALSE(is_label_name(bad)) << bad;
  EXPECT_TRUE(is_label_name(std::string(kMaxLabelChars - 1, 'a')));
  EXPECT_TRUE(is_label_name(std::string(kMaxLabelChars, 'a')));
  EXPECT_FALSE(is_label_name(std::string(kMaxLabelChars + 1, 'a')));
}

TEST(LabelLimits, HoldForAModelAndALabel) {
  std::vector<LabelSpec> labels;
  for (std::size_t i = 0; i < kMaxLabels - 1; ++i) labels.push_back({"l" + std::to_string(i), {{1, 1}}});
  EXPECT_TRUE(check_labels(labels).is_ok());
  labels.push_back({"last", {{1, 1}}});
  EXPECT_TRUE(check_labels(labels).is_ok());
  labels.push_back({"more", {{1, 1}}});
  EXPECT_EQ(check_labels(labels).code(), Code::kResourceExhausted);
  EXPECT_TRUE(check_labels({{"a", versions(kMaxLabelVersions - 1)}}).is_ok());
  EXPECT_TRUE(check_labels({{"a", versions(kMaxLabelVersions)}}).is_ok());
  EXPECT_EQ(check_labels({{"a", versions(kMaxLabelVersions + 1)}}).code(), Code::kInvalidArgument);
  EXPECT_TRUE(check_labels({{"a", {{1, kMaxLabelWeight - 1}}}}).is_ok());
  EXPECT_TRUE(check_labels({{"a", {{1, kMaxLabelWeight}}}}).is_ok());
  EXPECT_EQ(check_labels({{"a", {{1, kMaxLabelWeight + 1}}}}).message(),
            "labels[\"a\"][1]: got weight 1000001, want a whole number from 0 to 1000000");
}

TEST(LabelLimits, RefuseWhatMakesNoSense) {
  EXPECT_EQ(check_labels({{"a", {}}}).message(), "labels[\"a\"]: names no version");
  EXPECT_EQ(check_labels({{"a", {{1, 0}, {2, 0}}}}).message(), "labels[\"a\"]: all weights are 0");
  EXPECT_EQ(check_labels({{"a", {{1, -1}}}}).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_labels({{"a", {{-1, 1}}}}).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_labels({{"a", {{1, 1}, {1, 2}}}}).message(), "labels[\"a\"]: names version 1 twice");
  EXPECT_EQ(check_labels({{"a", {{1, 1}}}, {"a", {{1, 1}}}}).message(), "labels[\"a\"]: given twice");
  EXPECT_EQ(check_labels({{"1", {{1, 1}}}}).code(), Code::kInvalidArgument);
}

// --- the table, with versions that were never loaded: it looks at their numbers only

class LabelledTable : public ::testing::Test {
 protected:
  void publish(const std::vector<std::int64_t>& ready, const std::vector<std::int64_t>& known,
               std::vector<LabelSpec> labels) {
    auto model = std::make_shared<PublishedModel>();
    model->name = "m";
    model->known = known;
    for (const std::int64_t number : ready) {
      LoadSpec spec = identity_spec();
      spec.version = number;
      model->ready.push_back(std::make_shared<ModelVersion>(spec, timer_));
    }
    std::vector<std::shared_ptr<VersionLabel>> made;
    for (LabelSpec& spec : labels) {
      auto& label = kept_[spec.name];
      label = std::make_shared<VersionLabel>(std::move(spec), label.get());
      made.push_back(label);
    }
    model->set_labels(made);
    table_.put(model);
  }
  std::map<std::int64_t, int> choose(const std::string& version, int requests, unsigned shard = 0,
                                     std::optional<Parameter> parameter = {}) {
    Request request;
    request.model_name = "m";
    request.model_version = version;
    if (parameter) request.parameters.push_back(*parameter);
    std::map<std::int64_t, int> got;
    for (int i = 0; i < requests; ++i) ++got[table_.choose(request, shard).value().version->number];
    return got;
  }
  Status status(const std::string& version) {
    Request request;
    request.model_name = "m";
    request.model_version = version;
    const Status chosen = table_.choose(request, 0).status();
    EXPECT_EQ(chosen.message(), table_.find("m", version).status().message());
    return chosen;
  }
  using Got = std::map<std::int64_t, int>;

  ExpiryTimer timer_;
  std::map<std::string, std::shared_ptr<VersionLabel>> kept_;
  VersionTable table_;
};

TEST_F(LabelledTable, AThousandRequestsAreSharedByWeight) {
  publish({3, 4}, {3, 4}, {{"canary", {{3, 95}, {4, 5}}}});
  EXPECT_EQ(choose("canary", 1000), (Got{{3, 950}, {4, 50}}));
  EXPECT_EQ(choose("canary", 1000, 5), (Got{{3, 950}, {4, 50}}));
  EXPECT_EQ(choose("", 10), (Got{{4, 10}}));
  EXPECT_EQ(choose("-1", 10), (Got{{4, 10}}));
}

// For weights of every size: after n requests no version is far from its share; how far any sequence must be grows with log n.
TEST_F(LabelledTable, SharesHoldForAnyWeightsAtAnyMoment) {
  const std::vector<std::vector<std::int64_t>> all{
      {1, 1},          {1, 999'999},      {617, 383}, {1, 2, 3}, {1'000'000, 1, 333'333},
      {7, 7, 7, 7, 1}, {50, 30, 15, 4, 1}};
  for (const auto& weights : all) {
    LabelSpec label{"l", {}};
    std::vector<std::int64_t> numbers;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      numbers.push_back(static_cast<std::int64_t>(i) + 1);
      label.targets.push_back({numbers.back(), weights[i]});
    }
    publish(numbers, numbers, {label});
    const double total =
        static_cast<double>(std::accumulate(weights.begin(), weights.end(), std::int64_t{0}));
    Got got;
    for (int n = 1; n <= 3000; ++n) {
      for (const auto& [version, count] : choose("l", 1)) got[version] += count;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const double share = n * static_cast<double>(weights[i]) / total;
        ASSERT_NEAR(got[static_cast<std::int64_t>(i) + 1], share, 3.0) << "n " << n << " version " << i + 1;
      }
    }
  }
}

TEST_F(LabelledTable, WhatIsNotReadyGetsNothingAndTheOthersItsShare) {
  publish({3, 5}, {3, 4, 5}, {{"l", {{3, 30}, {4, 60}, {5, 10}}}});
  EXPECT_EQ(choose("l", 1000), (Got{{3, 750}, {5, 250}}));
  publish({5}, {5}, {{"l", {{3, 30}, {4, 60}, {5, 10}}}});
  EXPECT_EQ(choose("l", 100), (Got{{5, 100}}));
  publish({1}, {1, 4}, {{"l", {{3, 30}, {4, 60}, {5, 10}}}, {"zero", {{1, 0}, {4, 1}}}});
  EXPECT_EQ(status("l").code(), Code::kFailedPrecondition);
  EXPECT_EQ(status("l").message(), "model 'm' label 'l': versions 3, 4, 5 are not at ready state");
  EXPECT_EQ(status("zero").message(), "model 'm' label 'zero': version 4 is not at ready state");
}

TEST_F(LabelledTable, ALabelMayComeBeforeEveryVersion) {
  publish({}, {}, {{"stable", {{3, 1}}}});
  EXPECT_EQ(status("stable").code(), Code::kFailedPrecondition);
  EXPECT_EQ(status("").message(), "Request for unknown model: 'm' is not found");
  EXPECT_EQ(status("3").message(), "Request for unknown model: 'm' is not found");
  publish({}, {3}, {{"stable", {{3, 1}}}});
  EXPECT_EQ(status("stable").code(), Code::kFailedPrecondition);
  EXPECT_EQ(status("").message(), "Request for unknown model: 'm' has no available versions");
  EXPECT_EQ(status("3").code(), Code::kUnavailable);
  publish({3}, {3}, {{"stable", {{3, 1}}}});
  EXPECT_EQ(choose("stable", 2), (Got{{3, 2}}));
}

TEST_F(LabelledTable, UnknownLabelsAndNumbersAreToldApart) {
  publish({3}, {3}, {{"stable", {{3, 1}}}});
  EXPECT_EQ(status("canary").code(), Code::kInvalidArgument);
  EXPECT_NE(status("canary").message().find("want a whole number or a label of model 'm'"),
            std::string::npos);
  EXPECT_EQ(status("7").code(), Code::kNotFound);
  EXPECT_EQ(table_.find("other", "stable").status().code(), Code::kNotFound);
}

TEST_F(LabelledTable, DefaultIsForRequestsThatNameNoVersion) {
  publish({3, 4}, {3, 4}, {{"default", {{3, 95}, {4, 5}}}});
  EXPECT_EQ(choose("", 1000), (Got{{3, 950}, {4, 50}}));
  EXPECT_EQ(choose("-1", 100), (Got{{3, 95}, {4, 5}}));
  EXPECT_EQ(choose("4", 10), (Got{{4, 10}}));
  EXPECT_EQ(table_.find("m", "").value()->number, 3);
  // Nobody is refused because the label points at what is not there.
  publish({4}, {4}, {{"default", {{3, 1}}}});
  EXPECT_EQ(choose("", 10), (Got{{4, 10}}));
  EXPECT_EQ(status("default").code(), Code::kFailedPrecondition);
}

TEST_F(LabelledTable, AKeyStaysWhereItIs) {
  publish({3, 4}, {3, 4}, {{"l", {{3, 90}, {4, 10}}}});
  Got before, moved;
  for (int user = 0; user < 2000; ++user) {
    const std::string key = "user-" + std::to_string(user);
    const Parameter parameter{"routing_key", std::string_view(key)};
    publish({3, 4}, {3, 4}, {{"l", {{3, 90}, {4, 10}}}});
    const Got got = choose("l", 3, static_cast<unsigned>(user), parameter);
    ASSERT_EQ(got.size(), 1U) << key;
    const std::int64_t first = got.begin()->first;
    ++before[first];
    publish({3, 4}, {3, 4}, {{"l", {{3, 80}, {4, 20}}}});
    const std::int64_t then = choose("l", 1, 0, parameter).begin()->first;
    if (first == 4) {
      ASSERT_EQ(then, 4) << key;  // the canary grew: whoever was in it stays
    }
    if (then != first) ++moved[then];
  }
  EXPECT_NEAR(before[4], 200, 45);  // 3.3 standard deviations
  EXPECT_NEAR(moved[4], 200, 45);
}

TEST_F(LabelledTable, ASequenceStaysAndGoesBeforeTheKey) {
  publish({3, 4}, {3, 4}, {{"l", {{3, 1}, {4, 1}}}});
  Got all;
  for (std::int64_t id = 1; id <= 200; ++id) {
    const Got got = choose("l", 4, 0, Parameter{"sequence_id", id});
    ASSERT_EQ(got.size(), 1U);
    ++all[got.begin()->first];
  }
  EXPECT_NEAR(all[3], 100, 35);
  EXPECT_EQ(choose("l", 4, 0, Parameter{"sequence_id", std::int64_t{0}}).size(), 2U);
  EXPECT_EQ(choose("l", 4, 0, Parameter{"sequence_id", std::string_view()}).size(), 2U);
  Request request;
  request.parameters = {{"routing_key", std::string_view("a")}, {"sequence_id", std::int64_t{7}}};
  Request sequence;
  sequence.parameters = {{"sequence_id", std::string_view("7")}};
  EXPECT_EQ(routing_bits(request), routing_bits(sequence));
}

TEST_F(LabelledTable, CountsGoOnWhereAVersionStays) {
  publish({3, 4}, {3, 4}, {{"l", {{3, 1}}}});
  Request request;
  request.model_name = "m";
  request.model_version = "l";
  for (unsigned shard = 0; shard < 20; ++shard) ++*table_.choose(request, shard).value().requests;
  EXPECT_EQ(kept_["l"]->requests(0), 20U);
  publish({3, 4}, {3, 4}, {{"l", {{4, 1}, {3, 5}}}});
  EXPECT_EQ(kept_["l"]->requests(0), 20U);
  EXPECT_EQ(kept_["l"]->requests(1), 0U);
}

TEST(Table, FindsEveryModelWhateverComesAndGoes) {
  VersionTable table;
  std::map<std::string, bool> there;
  std::uint64_t random = 1;
  for (int step = 0; step < 5000; ++step) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    const std::string name = "m" + std::to_string((random >> 33U) % 300);
    if ((random >> 20U) % 3 != 0) {
      auto model = std::make_shared<PublishedModel>();
      model->name = name;
      model->known = {1};
      table.put(std::move(model));
      there[name] = true;
    } else {
      table.remove(name);
      there[name] = false;
    }
    if (step % 50 != 0) continue;
    for (const auto& [each, is_there] : there) {
      const std::string said = table.find(each, "").status().message();
      ASSERT_EQ(said.find("has no available versions") != std::string::npos, is_there) << each;
    }
  }
}

}  // namespace
}  // namespace fastserve
