#include "common/grpc_serving.h"

#include <chrono>
#include <cstdio>
#include <stdexcept>

namespace fastserve::bench {

void serve_grpc(grpc::Service& service, const std::string& address,
                const std::shared_ptr<grpc::ServerCredentials>& credentials, const std::string& ready_file,
                const StopSignals& stop) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, credentials, &port);
  builder.RegisterService(&service);
  builder.SetMaxReceiveMessageSize(-1);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) throw std::runtime_error("cannot listen on " + address);
  std::printf("listening on 127.0.0.1:%d\n", port);
  std::fflush(stdout);
  write_ready_file(ready_file, "grpc", port);
  stop.wait();
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
}

}  // namespace fastserve::bench
