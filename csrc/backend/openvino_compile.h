// Turns a model into compiled ones: how many, for which batch sizes, with how many threads, and how they are to be run.
//
// Two facts decide, and the second one is measured while loading (figures: two cores, f32, an MLP of 340 kB):
//  - Weights. A static compile per batch size holds the weights again, one with a bounded dynamic batch (1..max) holds them
//    once. Static shapes save 3-10 us a run (b=1: 11-12 against 15-18 us; b=4: 12 against 23), which is a third of a tiny
//    model and nothing of ResNet-50 (20 ms either way). Hence static for models that are small *and* light.
//  - Time of one run. Light models run on the caller's thread: start_async costs two thread hops (+12 us at best, +100 us on
//    a busy machine). They get one thread per instance (11 us; two threads 15-17 us, and the second core belongs to the
//    front end) and, being small, compiled models of their own: two streams of one compiled model cost 20-27 us a run, two
//    models of one stream 11-13. Heavier ones run in OpenVINO's threads, so that the next batch is gathered meanwhile; their
//    number of streams is measured (openvino_tune.h) unless the configuration says it, and so is whether one row gets a
//    compiled model of its own (openvino_lone.h).
//
// Threads are not pinned to CPUs with one memory node (ENABLE_CPU_PINNING NO unless the configuration says otherwise): OpenVINO
// pins every compiled model from the same CPU on. Two models of one thread each then share one CPU (117 rows/s against 213),
// two of two threads get 171 against 196. With several nodes it is the only way to keep a stream on one, so there they are.
//
// Only models whose every shape is known run on the caller's thread. With free shapes and one thread, the CPU plug-in
// (2026.4) swallows errors of InferRequest::infer on a caller's thread and goes on with wrong shapes: 986 of 986 failing
// runs came back as good, 21 of the others were wrong, some crashed; start_async reported every one of them.
#pragma once

#include <cstdint>
#include <memory>
#include <openvino/openvino.hpp>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/openvino_config.h"
#include "backend/openvino_signature.h"
#include "backend/tune_cache.h"
#include "base/clock.h"
#include "base/status.h"

namespace fastserve {

inline constexpr std::size_t kSmallWeightsBytes = 4 << 20;
inline constexpr Nanos kLightRun = 200 * kMicrosecond;
// Batches in OpenVINO's queue for a model that is not light: one runs, the next is gathered.
inline constexpr int kHeavyDepth = 2;

// Share of the loading that reading counts for; compiling reports from there on.
inline constexpr double kReadFraction = 0.1;

// One prepared model.
struct Compiled {
  std::int64_t rows = 0;  // 0: any number
  ov::CompiledModel model;
};

struct CompiledSet {
  // Ascending by rows; one for any number of rows (0) stands last, and alone but for that of one row.
  std::vector<Compiled> sizes;
};

// What is to be kept once the warm-up has found the sizes.
struct Remembered {
  std::string key;
  TunedShape shape;
};

struct CompiledPlan {
  std::vector<std::shared_ptr<const CompiledSet>> sets;  // one for all instances, or one each
  std::vector<std::int64_t> rows;  // sizes that are worth running; empty: does not batch
  bool pads = false;               // the device runs only these
  int instance_count = 1;
  int depth = 1;
  bool on_callers_thread = true;         // else asynchronously; only with depth 1
  Nanos one_run = 0;                     // measured with one row; 0 = could not be measured
  int threads_of_run = 0;                // what a run takes of the CPU budget; 0: nothing, it is light
  std::string shape;                     // why so many streams, in words
  std::string lone;                      // whether one row has a model of its own, and why; "": no question
  std::vector<std::vector<int>> cpus;    // of each instance, where they are bound; else empty
  std::optional<Remembered> remembered;  // for the cache, when the streams were measured just now
  std::size_t weights_bytes = 0;         // of the constants in the model file
  std::shared_ptr<const ov::Model> weightless;  // for OpenVinoShapes; nullptr when not needed
};

// `model` has been through resolve_signature. Errors: INVALID_ARGUMENT for a property's value, INTERNAL otherwise; may throw.
Result<CompiledPlan> compile_openvino(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                      const OpenVinoSignature& resolved, const OpenVinoConfig& config,
                                      const LoadSpec& spec, const Progress& progress);

// 1, 2, 4, ... and max_rows, which is not reached when `most` (> 0) is below it.
std::vector<std::int64_t> prepared_sizes(std::int64_t max_rows, std::int64_t most = 0);

}  // namespace fastserve
