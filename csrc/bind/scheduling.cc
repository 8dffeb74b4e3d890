// _core.Engine.scheduling: what a version's batch policy believes and did, as a plain dict (the TypedDict Scheduling in _core.pyi).
#include <pybind11/stl.h>

#include "bind/engine.h"
#include "bind/errors.h"
#include "engine/read_scheduling.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

py::dict cost_dict(const SizeCostView& cost) {
  py::dict out;
  out["rows"] = cost.rows;
  out["mean_ns"] = cost.mean_ns;
  out["high_ns"] = cost.high_ns;
  out["samples"] = cost.samples;
  return out;
}

py::list instance_list(const std::vector<InstanceView>& instances) {
  py::list out;
  for (const InstanceView& instance : instances) {
    py::list costs;
    for (const SizeCostView& cost : instance.costs) costs.append(cost_dict(cost));
    py::dict one;
    one["name"] = instance.name;
    one["busy"] = instance.in_flight > 0;
    one["in_flight"] = instance.in_flight;
    one["depth"] = instance.depth;
    one["costs"] = std::move(costs);
    out.append(std::move(one));
  }
  return out;
}

py::list level_list(const std::vector<LevelView>& levels) {
  py::list out;
  for (const LevelView& level : levels) {
    py::dict one;
    one["priority"] = level.priority;
    one["waiting"] = level.requests;
    one["waiting_rows"] = level.rows;
    one["max_requests"] = level.policy.max_requests;
    one["timeout_ns"] = level.policy.timeout_ns;
    one["request_may_lower"] = level.policy.request_may_lower;
    one["on_timeout"] = level.policy.on_timeout == QueuePolicy::OnTimeout::kDelay ? "delay" : "reject";
    out.append(std::move(one));
  }
  return out;
}

void add_minute(py::dict& out, const SchedulingView& view) {
  py::dict decisions;
  py::dict batches;
  py::dict refusals;
  const DecisionLog::View& minute = view.minute;
  for (std::size_t i = 0; i < kReasons; ++i) {
    const auto reason = static_cast<Reason>(i);
    if (reason == Reason::kNothingWaits || reason == Reason::kCompany || minute.decisions[i] == 0) continue;
    decisions[py::str(std::string(reason_name(reason)))] = minute.decisions[i];
  }
  for (const DecisionLog::Size& size : minute.batches) batches[py::int_(size.rows)] = size.count;
  for (const auto& [reason, count] : view.refusals) refusals[py::str(reason)] = count;
  out["decisions"] = std::move(decisions);
  out["batches"] = std::move(batches);
  out["waits"] = minute.decisions[static_cast<std::size_t>(Reason::kCompany)];
  out["refusals"] = std::move(refusals);
  out["covered_seconds"] = minute.seconds;
  out["batched_requests"] = minute.requests;
  out["batched_rows"] = minute.rows;
  out["queue_wait_ns"] = minute.wait_ns;
}

py::dict as_dict(const SchedulingView& view) {
  py::dict out;
  out["model"] = view.model;
  out["version"] = view.version;
  out["target_p99_ns"] = view.target.p99_ns;
  out["budget_ns"] = view.target.p99_ns == 0 ? 0 : view.target.budget_ns();
  out["max_rows"] = view.limits.max_rows;
  out["max_queue_delay_ns"] = view.limits.max_queue_delay_ns;
  out["max_queue_requests"] = view.limits.max_queue_requests;
  out["max_queue_age_ns"] = view.limits.max_queue_age_ns;
  out["preferred_rows"] = view.limits.preferred_rows;
  out["prepared_rows"] = view.limits.prepared_rows;
  out["pads"] = view.limits.pads;
  out["priority_levels"] = view.priority_levels;
  out["default_priority"] = view.default_priority;
  out["preserve_ordering"] = view.preserve_ordering;
  out["overtaking_batches"] = view.overtaking_batches;
  out["waiting"] = view.waiting;
  out["arrivals_per_s"] = view.arrivals_per_s;
  out["drain_rows_per_s"] = view.drain_rows_per_s;
  out["next_free_ns"] = view.next_free_ns;
  out["levels"] = level_list(view.levels);
  out["instances"] = instance_list(view.instances);
  add_minute(out, view);
  out["expired_executed"] = view.expired_executed;
  return out;
}

// `version` "": the one that a request would get now.
py::dict scheduling(PyEngine& self, const std::string& model, const std::string& version) {
  auto found = self.engine().resolve(model, version);
  raise_if_error(found.status());
  const std::int64_t number = (*found)->number;
  (*found)->release();
  auto view = self.engine().scheduling(model, number);
  raise_if_error(view.status());
  return as_dict(*view);
}

}  // namespace

void register_scheduling(py::class_<PyEngine>& engine) {
  engine.def("scheduling", &scheduling, py::arg("model"), py::arg("version") = "");
}

}  // namespace fastserve::bind
