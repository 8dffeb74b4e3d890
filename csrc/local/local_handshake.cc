#include "local/local_handshake.h"

#include <bit>

#include "local/byte_cursor.h"
#include "local/local_frame.h"

namespace fastserve {
namespace {

struct ControlHead {
  std::uint16_t kind, reserved;
  std::uint32_t sequence;
};
struct SpecRecord {
  std::uint8_t dtype, rank, optional, reserved;
  std::uint16_t name_bytes, reserved_too;
};

Status broken(const std::string& what) {
  return {Code::kDataLoss, "a control message that cannot be read: " + what};
}

void put_specs(ByteWriter& out, const std::vector<TensorSpec>& specs) {
  for (const TensorSpec& spec : specs) {
    out.put(SpecRecord{static_cast<std::uint8_t>(spec.dtype), static_cast<std::uint8_t>(spec.shape.rank()),
                       spec.optional, 0, static_cast<std::uint16_t>(spec.name.size()), 0});
    for (const std::int64_t dim : spec.shape.dims()) out.put(dim);
    out.text(spec.name);
  }
}

bool take_specs(ByteReader& in, std::size_t count, std::vector<TensorSpec>& specs) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto record = in.take<SpecRecord>();
    if (!in.ok() || record.dtype >= kDTypeCount || record.rank > kMaxRank) return false;
    TensorSpec& spec = specs.emplace_back();
    spec.dtype = static_cast<DType>(record.dtype);
    spec.optional = record.optional != 0;
    for (std::size_t d = 0; d < record.rank; ++d) spec.shape.push_back(in.take<std::int64_t>());
    spec.name = in.text(record.name_bytes);
  }
  return in.ok();
}

bool names_fit(const Signature& signature) {
  for (const auto* specs : {&signature.inputs, &signature.outputs}) {
    if (specs->size() > UINT16_MAX) return false;
    for (const TensorSpec& spec : *specs) {
      if (spec.name.size() > UINT16_MAX) return false;
    }
  }
  return true;
}

Result<std::vector<std::byte>> done(const ByteWriter& out, std::vector<std::byte> bytes) {
  if (!out.ok()) {
    return Status{Code::kResourceExhausted,
                  "a control message of more than " + std::to_string(kMostControlBytes) + " bytes"};
  }
  bytes.resize(out.size());
  return bytes;
}

}  // namespace

Result<ClientMessage> decode_client_message(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  const auto head = in.take<ControlHead>();
  ClientMessage message;
  message.kind = static_cast<ControlKind>(head.kind);
  message.sequence = head.sequence;
  switch (message.kind) {
    case ControlKind::kHello:
      if (in.take<std::uint32_t>() != kLocalMagic) return broken("not fastserve's local transport");
      if (const auto version = in.take<std::uint16_t>(); version != kLocalVersion) {
        return broken("version " + std::to_string(version) + ", want " + std::to_string(kLocalVersion));
      }
      in.take<std::uint16_t>();
      message.cells = in.take<std::uint32_t>();
      message.cell_bytes = in.take<std::uint32_t>();
      break;
    case ControlKind::kRegister:
      break;
    case ControlKind::kUnregister:
      message.region = in.take<std::uint32_t>();
      break;
    case ControlKind::kOpen: {
      const auto name_bytes = in.take<std::uint16_t>();
      const auto version_bytes = in.take<std::uint16_t>();
      message.name = in.text(name_bytes);
      message.version = in.text(version_bytes);
      break;
    }
    default:
      return broken("kind " + std::to_string(head.kind));
  }
  if (!in.ok()) return broken("it is cut off");
  if (in.left() != 0) return broken("bytes are left over");
  return message;
}

Result<std::vector<std::byte>> encode(const ClientMessage& message) {
  std::vector<std::byte> bytes(kMostControlBytes);
  ByteWriter out(bytes);
  out.put(ControlHead{static_cast<std::uint16_t>(message.kind), 0, message.sequence});
  if (message.kind == ControlKind::kHello) {
    out.put(kLocalMagic);
    out.put(kLocalVersion);
    out.put(std::uint16_t{0});
    out.put(message.cells);
    out.put(message.cell_bytes);
  } else if (message.kind == ControlKind::kUnregister) {
    out.put(message.region);
  } else if (message.kind == ControlKind::kOpen) {
    out.put(static_cast<std::uint16_t>(message.name.size()));
    out.put(static_cast<std::uint16_t>(message.version.size()));
    out.text(message.name);  // longer than 16 bits can say: does not fit
    out.text(message.version);
  }
  return done(out, std::move(bytes));
}

Result<ServerMessage> decode_server_message(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  const auto head = in.take<ControlHead>();
  ServerMessage message;
  message.kind = static_cast<ControlKind>(head.kind);
  message.sequence = head.sequence;
  switch (message.kind) {
    case ControlKind::kWelcome:
      message.cells = in.take<std::uint32_t>();
      message.cell_bytes = in.take<std::uint32_t>();
      message.region_bytes = in.take<std::uint64_t>();
      break;
    case ControlKind::kRegistered:
      message.number = in.take<std::uint32_t>();
      message.region_bytes = in.take<std::uint64_t>();
      break;
    case ControlKind::kUnregistered:
    case ControlKind::kWake:
      break;
    case ControlKind::kOpened: {
      message.number = in.take<std::uint32_t>();
      message.model_version = in.take<std::int64_t>();
      message.signature.max_batch_rows = in.take<std::int64_t>();
      const auto inputs = in.take<std::uint16_t>();
      const auto outputs = in.take<std::uint16_t>();
      if (!take_specs(in, inputs, message.signature.inputs) ||
          !take_specs(in, outputs, message.signature.outputs)) {
        return broken("a tensor of the signature");
      }
      break;
    }
    case ControlKind::kFailed: {
      const auto code = in.take<std::uint16_t>();
      const auto text_bytes = in.take<std::uint16_t>();
      if (code == 0 || code > static_cast<std::uint16_t>(Code::kUnauthenticated)) return broken("a code");
      message.code = static_cast<Code>(code);
      message.message = in.text(text_bytes);
      break;
    }
    default:
      return broken("kind " + std::to_string(head.kind));
  }
  if (!in.ok()) return broken("it is cut off");
  if (in.left() != 0) return broken("bytes are left over");
  return message;
}

Result<std::vector<std::byte>> encode(const ServerMessage& message) {
  if (!names_fit(message.signature)) return Status{Code::kResourceExhausted, "a signature too large to send"};
  std::vector<std::byte> bytes(kMostControlBytes);
  ByteWriter out(bytes);
  out.put(ControlHead{static_cast<std::uint16_t>(message.kind), 0, message.sequence});
  if (message.kind == ControlKind::kWelcome) {
    out.put(message.cells);
    out.put(message.cell_bytes);
    out.put(message.region_bytes);
  } else if (message.kind == ControlKind::kRegistered) {
    out.put(message.number);
    out.put(message.region_bytes);
  } else if (message.kind == ControlKind::kOpened) {
    out.put(message.number);
    out.put(message.model_version);
    out.put(message.signature.max_batch_rows);
    out.put(static_cast<std::uint16_t>(message.signature.inputs.size()));
    out.put(static_cast<std::uint16_t>(message.signature.outputs.size()));
    put_specs(out, message.signature.inputs);
    put_specs(out, message.signature.outputs);
  } else if (message.kind == ControlKind::kFailed) {
    const std::string_view text = std::string_view(message.message).substr(0, 1024);
    out.put(static_cast<std::uint16_t>(message.code));
    out.put(static_cast<std::uint16_t>(text.size()));
    out.text(text);
  }
  return done(out, std::move(bytes));
}

Status check_ring_layout(std::uint32_t cells, std::uint32_t cell_bytes, std::uint32_t most_cells) {
  if (!std::has_single_bit(cells) || cells > most_cells) {
    return invalid_argument("cells: got " + std::to_string(cells) + ", want a power of two of at most " +
                            std::to_string(most_cells));
  }
  if (!std::has_single_bit(cell_bytes) || cell_bytes < kLeastCellBytes || cell_bytes > kMostCellBytes) {
    return invalid_argument("cell_bytes: got " + std::to_string(cell_bytes) + ", want a power of two from " +
                            std::to_string(kLeastCellBytes) + " to " + std::to_string(kMostCellBytes));
  }
  return Status::ok();
}

}  // namespace fastserve
