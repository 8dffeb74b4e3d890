// A gRPC C++ server of one service, from its start to SIGTERM.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "common/tool.h"

namespace fastserve::bench {

// Listens on `address` (port 0: any), writes {"grpc": ...} into the ready file and serves until `stop`. Requests of any size.
// Throws std::runtime_error naming what could not be used.
void serve_grpc(grpc::Service& service, const std::string& address,
                const std::shared_ptr<grpc::ServerCredentials>& credentials, const std::string& ready_file,
                const StopSignals& stop);

}  // namespace fastserve::bench
