// The suite that every backend passes, on the simulated CUDA driver: graphs, runs without graphs, blocking completion.
#include "backend/backend_conformance.h"
#include "backend/cuda_lane_model.h"

namespace fastserve::test {
namespace {

LaneModelLog& shared_log() {
  static LaneModelLog log;
  return log;
}

Backend& made(const char* name, LaneOptions options) {
  static std::map<std::string, std::unique_ptr<CudaBackend>> all;
  auto& backend = all[name];
  if (backend == nullptr)
    backend =
        std::make_unique<CudaBackend>(std::make_unique<LaneSource>(name, std::move(options), shared_log()));
  return *backend;
}

LoadSpec good_spec(std::map<std::string, std::string> parameters) {
  LoadSpec spec = lane_spec(parameters);
  spec.instance_count = 2;
  return spec;
}

std::vector<LoadSpec> wrong_specs() {
  std::vector<LoadSpec> wrong;
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"lanes", "0"},
                                                        {"lanes", "9"},
                                                        {"lanes", "two"},
                                                        {"graphs", "yes"},
                                                        {"completion", "spin"},
                                                        {"watchdog_ms", "-1"},
                                                        {"watchdog_ms", "3600001"},
                                                        {"stream_priority", "32"}}) {
    wrong.push_back(lane_spec({{name, value}}));
  }
  wrong.push_back(lane_spec());
  wrong.back().instance_count = -1;
  wrong.push_back(lane_spec());
  wrong.back().groups.emplace_back().gpu = "7";
  wrong.push_back(lane_spec());
  wrong.back().path = "missing";
  return wrong;
}

struct GraphSubject {
  static Backend& backend() { return made("graphs", {}); }
  static LoadSpec good() { return good_spec({{"lanes", "3"}}); }
  static std::vector<LoadSpec> wrong() { return wrong_specs(); }
};
struct BlockingSubject {
  static Backend& backend() { return made("blocking", {}); }
  static LoadSpec good() { return good_spec({{"lanes", "2"}, {"completion", "blocking"}}); }
  static std::vector<LoadSpec> wrong() { return wrong_specs(); }
};
struct GraphsOffSubject {
  static Backend& backend() { return made("off", {}); }
  static LoadSpec good() { return good_spec({{"graphs", "off"}}); }
  static std::vector<LoadSpec> wrong() { return {}; }
};
struct FreeSubject {
  static Backend& backend() {
    return made("free", {.buckets = {}, .owns_inputs = true, .owns_outputs = true, .free_columns = true});
  }
  static LoadSpec good() { return good_spec({}); }
  static std::vector<LoadSpec> wrong() { return {}; }
};
struct OwnMemorySubject {
  static Backend& backend() { return made("own", {.owns_inputs = true, .owns_outputs = true}); }
  static LoadSpec good() { return good_spec({}); }
  static std::vector<LoadSpec> wrong() { return {}; }
};
struct SingleSubject {
  static Backend& backend() { return made("single", {.max_rows = 0, .buckets = {1}}); }
  static LoadSpec good() { return good_spec({}); }
  static std::vector<LoadSpec> wrong() { return {}; }
};

}  // namespace

INSTANTIATE_TYPED_TEST_SUITE_P(CudaGraphs, BackendConformance, GraphSubject);
INSTANTIATE_TYPED_TEST_SUITE_P(CudaBlocking, BackendConformance, BlockingSubject);
INSTANTIATE_TYPED_TEST_SUITE_P(CudaGraphsOff, BackendConformance, GraphsOffSubject);
INSTANTIATE_TYPED_TEST_SUITE_P(CudaFreeDimensions, BackendConformance, FreeSubject);
INSTANTIATE_TYPED_TEST_SUITE_P(CudaOwnMemory, BackendConformance, OwnMemorySubject);
INSTANTIATE_TYPED_TEST_SUITE_P(CudaNoBatchDimension, BackendConformance, SingleSubject);

}  // namespace fastserve::test
