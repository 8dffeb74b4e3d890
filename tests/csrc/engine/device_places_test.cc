// Requests whose tensors are in memory of a GPU (a double, whose addresses the CPU cannot follow), for models on the CPU: copied through.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/engine.h"
#include "memory/region_table.h"
#include "support/device_memory_double.h"
#include "support/samples.h"

namespace fastserve {
namespace {

using Ints = std::vector<std::int32_t>;

class DevicePlaces : public testing::Test {
 protected:
  DevicePlaces() {
    engine_.regions().allow({8, 1U << 20U, 100});
    for (const std::string name : {"in", "out"}) {
      EXPECT_TRUE(
          engine_.regions().add_on_device({name, "", 0, 4096, 0}, handle_bytes(name), opener_).is_ok());
    }
  }
  ~DevicePlaces() override { request_.reset(); }  // its handle: the engine waits for it
  void load(LoadSpec spec) { ASSERT_TRUE(engine_.load(std::move(spec)).is_ok()); }
  void ask(std::int64_t rows, std::uint64_t offset, std::uint64_t bytes,
           SharedPlace output = {"out", 0, 4096}) {
    request_.reset();
    request_.completions = &completions_;
    request_.model_name = "echo";
    request_.inputs = {{"x", DType::kInt32, Shape{rows, 2}, {}}};
    request_.shared_inputs = {{0, {"in", offset, bytes}}};
    if (!output.region.empty()) request_.requested_outputs = {{.name = "y", .shared = output}};
  }
  Status answer() {
    const Result<Response*> response = submitter_.infer(request_);
    return response.is_ok() ? request_.response.status : response.status();
  }

  OpenerDouble opener_;
  DeviceMemoryDouble& in_ = opener_.allocate("in", 4096);
  DeviceMemoryDouble& out_ = opener_.allocate("out", 4096);
  Engine engine_;
  Submitter submitter_{engine_};
  CompletionQueue completions_{CompletionQueue::Wake::kFutex};
  Request request_;
};

TEST_F(DevicePlaces, AModelOnTheCpuIsServedThroughTheHost) {
  load(identity_spec());
  in_.put<std::int32_t>(16, {1, 2, 3, 4});
  ask(2, 16, 16, {"out", 8, 16});
  ASSERT_TRUE(answer().is_ok()) << request_.response.status.message();
  EXPECT_EQ(out_.values<std::int32_t>(8, 4), (Ints{1, 2, 3, 4}));
  EXPECT_TRUE(request_.response.outputs[0].placed);
  EXPECT_EQ(in_.reads, 1);
  EXPECT_EQ(out_.writes, 1);
  engine_.regions().remove_all(true);
  EXPECT_EQ(opener_.uses("in"), 1) << "the request holds it";
  request_.reset();
  EXPECT_EQ(opener_.uses("in"), 0);
}

TEST_F(DevicePlaces, AlsoWithoutABatchDimension) {
  LoadSpec spec = identity_spec(0);
  load(spec);
  in_.put<std::int32_t>(0, {7, 8});
  ask(1, 0, 8);
  request_.inputs[0].shape = Shape{2};
  ASSERT_TRUE(answer().is_ok()) << request_.response.status.message();
  EXPECT_EQ(out_.values<std::int32_t>(0, 2), (Ints{7, 8}));
}

TEST_F(DevicePlaces, InOnlyOrOutOnly) {
  load(identity_spec());
  in_.put<std::int32_t>(0, {5, 6});
  ask(1, 0, 8, {});
  ASSERT_TRUE(answer().is_ok());
  EXPECT_EQ(std::memcmp(request_.response.outputs[0].data.data(), in_.content.data(), 8), 0);
  const Ints own{9, 10};
  request_.reset();
  request_.completions = &completions_;
  request_.model_name = "echo";
  request_.inputs = {{"x", DType::kInt32, Shape{1, 2}, bytes_of(own)}};
  request_.requested_outputs = {{.name = "y", .shared = {"out", 0, 8}}};
  ASSERT_TRUE(answer().is_ok());
  EXPECT_EQ(out_.values<std::int32_t>(0, 2), own);
}

TEST_F(DevicePlaces, RequestsLargerThanABatch) {
  LoadSpec spec = identity_spec(2);
  spec.max_request_rows = 8;
  load(spec);
  in_.put<std::int32_t>(0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  ask(5, 0, 40);
  ASSERT_TRUE(answer().is_ok()) << request_.response.status.message();
  EXPECT_EQ(out_.values<std::int32_t>(0, 10), (Ints{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
}

TEST_F(DevicePlaces, TextsAreCopiedBeforeTheyAreChecked) {
  LoadSpec spec = identity_spec();
  spec.inputs[0].dtype = spec.outputs[0].dtype = DType::kBytes;
  load(spec);
  const auto texts = serialized({"ab", "c"});
  in_.put(0, texts);
  ask(1, 0, texts.size());
  request_.inputs[0].dtype = DType::kBytes;
  ASSERT_TRUE(answer().is_ok()) << request_.response.status.message();
  EXPECT_EQ(out_.values<std::byte>(0, texts.size()), texts);
}

TEST_F(DevicePlaces, ATooSmallPlaceAndALostGpuAreToldApart) {
  load(identity_spec());
  ask(1, 0, 8, {"out", 0, 7});
  EXPECT_EQ(answer().code(), Code::kInvalidArgument);
  EXPECT_EQ(out_.writes, 0);
  ask(1, 0, 7);
  EXPECT_EQ(answer().code(), Code::kInvalidArgument) << "the shape wants 8";
  out_.lost = true;
  ask(1, 0, 8);
  EXPECT_EQ(answer().code(), Code::kUnavailable);
  in_.lost = true;
  ask(1, 0, 8);
  EXPECT_EQ(answer().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace fastserve
