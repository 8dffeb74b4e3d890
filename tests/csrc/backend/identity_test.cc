#include "backend/identity.h"

#include <gtest/gtest.h>
#include <time.h>

#include <functional>

#include "backend/backend_conformance.h"

namespace fastserve {
namespace {

LoadSpec good_spec() {
  LoadSpec spec;
  spec.model = "echo";
  spec.max_batch_rows = 4;
  spec.inputs = {{"x", DType::kFp32, Shape{-1, 3}, false}, {"t", DType::kBytes, Shape{-1}, false}};
  spec.outputs = {{"y", DType::kFp32, Shape{-1, 3}, false}, {"u", DType::kBytes, Shape{-1}, false}};
  return spec;
}

LoadSpec changed(const std::function<void(LoadSpec&)>& change) {
  LoadSpec spec = good_spec();
  change(spec);
  return spec;
}

struct IdentitySubject {
  static Backend& backend() { return identity_backend(); }
  static LoadSpec good() { return good_spec(); }
  static std::vector<LoadSpec> wrong() {
    return {changed([](LoadSpec& s) { s.inputs.clear(); }),
            changed([](LoadSpec& s) { s.outputs.clear(); }),
            changed([](LoadSpec& s) { s.outputs.pop_back(); }),
            changed([](LoadSpec& s) { s.outputs[0].dtype = DType::kFp16; }),
            changed([](LoadSpec& s) {
              s.outputs[0].shape = Shape{-1, 4};
            }),
            changed([](LoadSpec& s) {
              s.inputs[0].shape = s.outputs[0].shape = Shape{1, 3};
            }),
            changed([](LoadSpec& s) { s.inputs[0].optional = true; }),
            changed([](LoadSpec& s) { s.instance_count = -1; })};
  }
};

}  // namespace

namespace test {
INSTANTIATE_TYPED_TEST_SUITE_P(Identity, BackendConformance, IdentitySubject);
}  // namespace test

namespace {

TEST(Identity, ParameterFaultsNameTheParameterAndTheValue) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"execute_dealy_us", "1"},
                                                        {"execute_delay_us", "-1"},
                                                        {"execute_delay_us", "1.5"},
                                                        {"execute_delay_us", ""},
                                                        {"execute_burn_us", "fast"},
                                                        {"execute_burn_us", "99999999999999999999"},
                                                        {"execute_burn_us", "3600000001"}}) {
    const auto loaded =
        identity_backend().load(changed([&](LoadSpec& s) { s.parameters[name] = value; }), {});
    ASSERT_FALSE(loaded.is_ok()) << name << "=" << value;
    EXPECT_EQ(loaded.status().code(), Code::kInvalidArgument);
    EXPECT_NE(loaded.status().message().find("parameters[\"" + name + "\"]"), std::string::npos);
  }
}

Nanos cpu_now() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<Nanos>(t.tv_sec) * kSecond + t.tv_nsec;
}

struct Took {
  Nanos wall = 0;
  Nanos cpu = 0;
};

Took run_with(const std::string& name, const std::string& value) {
  const auto model = identity_backend().load(changed([&](LoadSpec& s) { s.parameters[name] = value; }), {});
  const auto instance = std::move(model.value()->make_instance(0)).value();
  test::BatchRun run(model.value()->signature());
  run.add_zeros(1);
  const Nanos wall = monotonic_now();
  const Nanos cpu = cpu_now();
  EXPECT_TRUE(run.run(*instance, 1).is_ok());
  return {monotonic_now() - wall, cpu_now() - cpu};
}

TEST(Identity, DelayWaitsWithoutTheCpuAndBurnUsesIt) {
  const Took delay = run_with("execute_delay_us", "20000");
  EXPECT_GE(delay.wall, 20 * kMillisecond);
  EXPECT_LT(delay.cpu, 5 * kMillisecond);
  const Took burn = run_with("execute_burn_us", "5000");
  EXPECT_GE(burn.wall, 5 * kMillisecond);
}

TEST(Identity, AllowedSizesAreItsBuckets) {
  const auto free = identity_backend().load(good_spec(), {});
  ASSERT_TRUE(free.is_ok());
  EXPECT_TRUE((*free)->buckets().empty());
  EXPECT_FALSE((*free)->pads());
  const auto model = identity_backend().load(changed([](LoadSpec& s) { s.allowed_rows = {1, 4}; }), {});
  ASSERT_TRUE(model.is_ok());
  EXPECT_TRUE(std::ranges::equal((*model)->buckets(), std::vector<std::int64_t>{1, 4}));
  EXPECT_TRUE((*model)->pads());
  const auto bad = identity_backend().load(changed([](LoadSpec& s) { s.allowed_rows = {1, 3}; }), {});
  EXPECT_EQ(bad.status().code(), Code::kInvalidArgument);
  EXPECT_NE(bad.status().message().find("allowed_batch_sizes[1]: got 3, want 4"), std::string::npos);
}

TEST(Identity, IsDeterministicAboutContents) {
  const auto model = identity_backend().load(good_spec(), {});
  const auto instance = std::move(model.value()->make_instance(0)).value();
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  const std::vector<std::byte> t{std::byte{1}, {}, {}, {}, std::byte{'a'}, {}, {}, {}, {}};  // "a", ""
  test::BatchRun run(model.value()->signature());
  run.add(2,
          {{"x", DType::kFp32, Shape{2, 3}, std::as_bytes(std::span(x))}, {"t", DType::kBytes, Shape{2}, t}});
  run.add_zeros(1);
  ASSERT_TRUE(run.run(*instance, 3).is_ok());
  EXPECT_EQ(run.output<float>(0, 0), x);
  EXPECT_EQ(run.output<std::byte>(0, 1), t);
  EXPECT_EQ(run.output<float>(1, 0), (std::vector<float>{0, 0, 0}));
}

}  // namespace
}  // namespace fastserve
