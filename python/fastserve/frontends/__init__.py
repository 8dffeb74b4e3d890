"""Protocol adapters for everything that is not inference: cold gRPC calls and HTTP routes as ordinary async
Python functions.

They talk to the server through `Served` alone. The hot methods (gRPC ModelInfer, REST infer) are answered in
C++ and never arrive here.
"""
