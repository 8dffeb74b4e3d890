// include/fastserve_local.h on top of LocalConnection. No exception leaves: what throws is want of memory.
#include "client/include/fastserve_local.h"

#include <algorithm>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "client/local_connection.h"

using fastserve::GivenParameter;
using fastserve::InputPlan;
using fastserve::LocalConnection;
using fastserve::LocalModel;
using fastserve::LocalOptions;
using fastserve::LocalSlot;
using fastserve::OutputPlan;
using fastserve::Shape;
using fastserve::Status;
using fastserve::TensorSpec;

struct fsl_connection {
  std::unique_ptr<LocalConnection> server;
  std::string error;
};

static_assert(std::is_same_v<std::variant_alternative_t<FSL_TEXT_VALUE, decltype(GivenParameter::value)>,
                             std::string> &&
              FSL_DOUBLE_VALUE == 3 && FSL_UINT_VALUE == 2 && FSL_INT_VALUE == 1);
static_assert(static_cast<int>(fastserve::DType::kBytes) == FSL_BYTES && FSL_MAX_RANK == fastserve::kMaxRank);

namespace {

thread_local std::string connect_error;

const LocalModel* of(const fsl_model* model) { return reinterpret_cast<const LocalModel*>(model); }
LocalSlot* of(fsl_slot* slot) { return reinterpret_cast<LocalSlot*>(slot); }
const LocalSlot* of(const fsl_slot* slot) { return reinterpret_cast<const LocalSlot*>(slot); }

fsl_code code_of(const Status& status) { return static_cast<fsl_code>(status.code()); }

fsl_code report(fsl_connection* connection, const Status& status) {
  if (!status.is_ok()) connection->error = status.message();
  return code_of(status);
}

fastserve::Nanos until(std::uint64_t timeout_us) {
  constexpr auto kMost = static_cast<std::uint64_t>(fastserve::kNever / fastserve::kMicrosecond) / 2;
  if (timeout_us > kMost) return fastserve::kNever;
  return fastserve::monotonic_now() + static_cast<fastserve::Nanos>(timeout_us) * fastserve::kMicrosecond;
}

void fill(const std::string& name, fastserve::DType dtype, const Shape& shape, std::uint64_t bytes,
          fsl_tensor* out) {
  out->name = name.c_str();
  out->dtype = static_cast<fsl_dtype>(dtype);
  out->rank = static_cast<std::uint32_t>(shape.rank());
  std::ranges::copy(shape.dims(), out->shape);
  out->bytes = bytes;
}

fsl_code describe(const std::vector<TensorSpec>& specs, std::size_t index, fsl_tensor* tensor) {
  if (index >= specs.size()) return FSL_INVALID_ARGUMENT;
  fill(specs[index].name, specs[index].dtype, specs[index].shape, 0, tensor);
  return FSL_OK;
}

LocalOptions read(const fsl_options* given) {
  LocalOptions options;
  if (given == nullptr) return options;
  if (given->cells != 0) options.cells = given->cells;
  if (given->cell_bytes != 0) options.cell_bytes = given->cell_bytes;
  if (given->timeout_us != 0)
    options.timeout_ns = static_cast<fastserve::Nanos>(given->timeout_us) * fastserve::kMicrosecond;
  return options;
}

template <class Made>
fsl_code keep(Made made, fsl_connection** connection) {
  *connection = nullptr;
  if (!made.is_ok()) {
    connect_error = made.status().message();
    return code_of(made.status());
  }
  *connection = new fsl_connection{std::move(made).value(), {}};
  return FSL_OK;
}

template <class Work>
fsl_code guarded(std::string& error, Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    error = "no memory";
    return FSL_RESOURCE_EXHAUSTED;
  }
}

}  // namespace

fsl_code fsl_connect(const char* path, const fsl_options* options, fsl_connection** connection) {
  return guarded(connect_error,
                 [&] { return keep(LocalConnection::connect(path, read(options)), connection); });
}

fsl_code fsl_connect_fd(int descriptor, const fsl_options* options, fsl_connection** connection) {
  fastserve::UniqueFd owned(descriptor);
  return guarded(connect_error,
                 [&] { return keep(LocalConnection::over(std::move(owned), read(options)), connection); });
}

const char* fsl_connect_error(void) { return connect_error.c_str(); }
void fsl_close(fsl_connection* connection) { delete connection; }
const char* fsl_error(const fsl_connection* connection) { return connection->error.c_str(); }
int fsl_gone(const fsl_connection* connection) { return connection->server->gone() ? 1 : 0; }

fsl_code fsl_open(fsl_connection* connection, const char* name, const char* version,
                  const fsl_model** model) {
  *model = nullptr;
  return guarded(connection->error, [&] {
    auto opened = connection->server->open(name, version == nullptr ? "" : version);
    if (opened.is_ok()) *model = reinterpret_cast<const fsl_model*>(*opened);
    return report(connection, opened.status());
  });
}

int64_t fsl_model_version(const fsl_model* model) { return of(model)->version; }
int64_t fsl_model_max_rows(const fsl_model* model) { return of(model)->signature.max_batch_rows; }
size_t fsl_model_inputs(const fsl_model* model) { return of(model)->signature.inputs.size(); }
size_t fsl_model_outputs(const fsl_model* model) { return of(model)->signature.outputs.size(); }
fsl_code fsl_model_input(const fsl_model* model, size_t index, fsl_tensor* tensor) {
  return describe(of(model)->signature.inputs, index, tensor);
}
fsl_code fsl_model_output(const fsl_model* model, size_t index, fsl_tensor* tensor) {
  return describe(of(model)->signature.outputs, index, tensor);
}

static fsl_code make_slot(fsl_connection* connection, const fsl_model* model,
                          const std::vector<InputPlan>& inputs, const std::vector<OutputPlan>& outputs,
                          fsl_slot** slot) {
  auto made = connection->server->make_slot(*of(model), inputs, outputs);
  if (made.is_ok()) *slot = reinterpret_cast<fsl_slot*>(*made);
  return report(connection, made.status());
}

fsl_code fsl_slot_create(fsl_connection* connection, const fsl_model* model, int64_t rows, fsl_slot** slot) {
  *slot = nullptr;
  return guarded(connection->error, [&] {
    std::vector<InputPlan> inputs;
    std::vector<OutputPlan> outputs;
    const Status planned = LocalConnection::plan(*of(model), rows, inputs, outputs);
    if (!planned.is_ok()) return report(connection, planned);
    return make_slot(connection, model, inputs, outputs, slot);
  });
}

fsl_code fsl_slot_create_planned(fsl_connection* connection, const fsl_model* model, const fsl_plan* inputs,
                                 size_t input_count, const fsl_plan* outputs, size_t output_count,
                                 fsl_slot** slot) {
  *slot = nullptr;
  return guarded(connection->error, [&] {
    std::vector<InputPlan> in;
    std::vector<OutputPlan> out;
    for (std::size_t i = 0; i < input_count; ++i) {
      const std::size_t rank = std::min<std::size_t>(inputs[i].rank, FSL_MAX_RANK);
      in.push_back({inputs[i].index, Shape(std::span(inputs[i].shape, rank)), inputs[i].bytes});
    }
    for (std::size_t i = 0; i < output_count; ++i) out.push_back({outputs[i].index, outputs[i].bytes});
    return make_slot(connection, model, in, out, slot);
  });
}

void fsl_slot_release(fsl_connection* connection, fsl_slot* slot) { connection->server->release(of(slot)); }

void* fsl_slot_input(fsl_slot* slot, size_t index, size_t* bytes) {
  if (index >= of(slot)->inputs()) return nullptr;
  const std::span<std::byte> memory = of(slot)->input_memory(index);
  if (bytes != nullptr) *bytes = memory.size();
  return memory.data();
}

fsl_code fsl_slot_reshape(fsl_connection* connection, fsl_slot* slot, size_t input, const int64_t* shape,
                          size_t rank, uint64_t bytes) {
  const Shape wanted(std::span(shape, std::min<std::size_t>(rank, FSL_MAX_RANK)));
  return report(connection, of(slot)->reshape(input, wanted, bytes));
}

void fsl_slot_set_id(fsl_slot* slot, const char* id) { of(slot)->set_id(id); }
void fsl_slot_set_priority(fsl_slot* slot, uint32_t priority) { of(slot)->set_priority(priority); }
void fsl_slot_set_timeout(fsl_slot* slot, uint64_t microseconds) { of(slot)->set_timeout_us(microseconds); }
void fsl_slot_set_queue_timeout(fsl_slot* slot, uint64_t microseconds) {
  of(slot)->set_queue_timeout_us(microseconds);
}
fsl_code fsl_slot_set_parameters(fsl_connection* connection, fsl_slot* slot, const fsl_parameter* parameters,
                                 size_t count) {
  return guarded(connection->error, [&] {
    std::vector<GivenParameter> made;
    for (const fsl_parameter& each : std::span(parameters, count)) {
      GivenParameter& one = made.emplace_back();
      one.name = each.name;
      switch (each.kind) {
        case FSL_BOOL_VALUE:
          one.value = each.value.flag != 0;
          break;
        case FSL_INT_VALUE:
          one.value = each.value.integer;
          break;
        case FSL_UINT_VALUE:
          one.value = each.value.natural;
          break;
        case FSL_DOUBLE_VALUE:
          one.value = each.value.number;
          break;
        case FSL_TEXT_VALUE:
          one.value = std::string(each.value.text);
          break;
      }
    }
    return report(connection, of(slot)->set_parameters(std::move(made)));
  });
}
void fsl_slot_set_user(fsl_slot* slot, void* user) { of(slot)->user = user; }
void* fsl_slot_user(const fsl_slot* slot) { return of(slot)->user; }

fsl_code fsl_submit(fsl_connection* connection, fsl_slot* slot) {
  return report(connection, connection->server->submit(*of(slot)));
}
void fsl_flush(fsl_connection* connection) { connection->server->flush(); }
fsl_code fsl_wait(fsl_connection* connection, uint64_t timeout_us) {
  return report(connection, connection->server->wait(until(timeout_us)));
}

fsl_code fsl_next(fsl_connection* connection, fsl_slot** slot) {
  *slot = nullptr;
  return guarded(connection->error, [&] {
    auto next = connection->server->next();
    if (next.is_ok()) *slot = reinterpret_cast<fsl_slot*>(*next);
    return report(connection, next.status());
  });
}

fsl_code fsl_run(fsl_connection* connection, fsl_slot* slot, uint64_t timeout_us) {
  LocalConnection& server = *connection->server;
  if (server.in_flight() != 0) {
    return report(connection, {fastserve::Code::kFailedPrecondition, "other requests are in flight"});
  }
  if (Status sent = server.submit(*of(slot)); !sent.is_ok()) return report(connection, sent);
  if (Status waited = server.wait(until(timeout_us)); !waited.is_ok()) {
    server.cancel(*of(slot));
    return report(connection, waited);
  }
  return guarded(connection->error, [&] {
    auto next = server.next();
    return report(connection, next.is_ok() ? of(slot)->status() : next.status());
  });
}

void fsl_cancel(fsl_connection* connection, fsl_slot* slot) { connection->server->cancel(*of(slot)); }

fsl_code fsl_slot_code(const fsl_slot* slot) { return code_of(of(slot)->status()); }
const char* fsl_slot_message(const fsl_slot* slot) { return of(slot)->status().message().c_str(); }
size_t fsl_slot_outputs(const fsl_slot* slot) { return of(slot)->answered(); }

const void* fsl_slot_output(const fsl_slot* slot, size_t index, fsl_tensor* tensor) {
  if (index >= of(slot)->answered()) return nullptr;
  if (tensor != nullptr) {
    const fastserve::LocalAnswerOutput& output = of(slot)->output(index);
    fill(of(slot)->model().signature.outputs[of(slot)->output_index(index)].name, output.dtype, output.shape,
         output.bytes, tensor);
  }
  return of(slot)->output_memory(index).data();
}

size_t fsl_slot_parameters(const fsl_slot* slot) { return of(slot)->answered_parameters().size(); }

fsl_code fsl_slot_parameter(const fsl_slot* slot, size_t index, fsl_parameter* parameter) {
  if (index >= of(slot)->answered_parameters().size()) return FSL_INVALID_ARGUMENT;
  const GivenParameter& from = of(slot)->answered_parameters()[index];
  parameter->name = from.name.c_str();
  parameter->kind = static_cast<fsl_parameter_kind>(from.value.index());
  if (const auto* flag = std::get_if<bool>(&from.value)) parameter->value.flag = *flag ? 1 : 0;
  if (const auto* number = std::get_if<std::int64_t>(&from.value)) parameter->value.integer = *number;
  if (const auto* number = std::get_if<std::uint64_t>(&from.value)) parameter->value.natural = *number;
  if (const auto* number = std::get_if<double>(&from.value)) parameter->value.number = *number;
  if (const auto* text = std::get_if<std::string>(&from.value)) parameter->value.text = text->c_str();
  return FSL_OK;
}

int fsl_descriptor(const fsl_connection* connection) { return connection->server->descriptor(); }
int fsl_arm(fsl_connection* connection) { return connection->server->arm() ? 1 : 0; }
void fsl_woken(fsl_connection* connection) { connection->server->woken(); }
