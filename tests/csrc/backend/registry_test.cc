#include "backend/registry.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "backend/guard.h"
#include "support/gate_backend.h"

namespace fastserve {
namespace {

TEST(BackendRegistry, KnowsIdentityAndWhatIsAdded) {
  BackendRegistry registry;
  GateBackend gate;
  EXPECT_TRUE(registry.find("identity").is_ok());
  EXPECT_EQ(registry.find("gate").status().code(), Code::kUnimplemented);
  registry.add(gate);
  EXPECT_EQ(registry.find("gate").value(), &gate);
}

TEST(BackendRegistry, APluginThatDoesNotLoadSaysWhy) {
  BackendRegistry registry;
  registry.add_plugin("missing", "/nowhere/libmissing.so");
  registry.add_plugin("stranger", "libm.so.6");  // loads, but is no backend
  for (const char* name : {"missing", "stranger"}) {
    const auto found = registry.find(name);
    ASSERT_FALSE(found.is_ok());
    EXPECT_EQ(found.status().code(), Code::kFailedPrecondition);
    EXPECT_NE(found.status().message().find(name), std::string::npos) << found.status().message();
  }
  EXPECT_NE(registry.find("stranger").status().message().find(kBackendEntryName), std::string::npos);
}

TEST(Guard, TurnsExceptionsIntoStatuses) {
  EXPECT_EQ(guarded("b", []() -> Status { throw std::bad_alloc(); }).code(), Code::kResourceExhausted);
  const Status thrown = guarded("b", []() -> Status { throw std::runtime_error("why"); });
  EXPECT_EQ(thrown.code(), Code::kInternal);
  EXPECT_EQ(thrown.message(), "b: why");
  EXPECT_EQ(guarded("b", []() -> Status { throw 42; }).code(), Code::kInternal);
  EXPECT_EQ(guarded("b", []() -> Result<int> { return 3; }).value(), 3);
}

}  // namespace
}  // namespace fastserve
