"""The rival: an identity ModelInfer on grpc.aio, as a Python user would write it.

It answers in the coroutine that got the request: no queue, no validation, no hand-off.
"""

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc


class Identity(rpc.GRPCInferenceServiceServicer):
    async def ModelInfer(self, request, context):
        if len(request.inputs) != len(request.raw_input_contents):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "want one raw_input_contents per input")
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for i, tensor in enumerate(request.inputs):
            response.outputs.add(name=f"OUTPUT{i}", datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(request.raw_input_contents[i])
        return response


async def serve(address: str, ready_file: Path | None) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    rpc.add_GRPCInferenceServiceServicer_to_server(Identity(), server)
    port = server.add_insecure_port(address)
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    if ready_file is not None:
        part = ready_file.with_suffix(".part")
        part.write_text(json.dumps({"grpc": f"127.0.0.1:{port}"}))
        part.rename(ready_file)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(grace=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:0")
    parser.add_argument("--ready-file", type=Path, help='written when it listens: {"grpc": "HOST:PORT"}')
    parser.add_argument("--cpu", type=int, help="pin to one CPU")
    args = parser.parse_args()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    asyncio.run(serve(args.address, args.ready_file))


if __name__ == "__main__":
    main()
