"""TensorRT: plans (model.plan) and ONNX files on a GPU, captured as CUDA graphs, one for each lane and batch size.

open_model.py    what a version of backend `tensorrt` is opened with: file -> engine -> GraphModel
libraries.py     which library: tensorrt 10 or 11, or tensorrt_rtx; its log, and the check of everything that it returns
settings.py      the parameters of a model
plan_file.py     what a plan says about itself before any library has seen it
engine.py        plan -> engine; why a plan is refused
signature.py     tensors of an engine
layout.py        batch sizes, and the optimisation profile for each; pure
graph_model.py   warm-up and capture of an engine
run_batches.py   batch by batch, for what cannot be captured
driver.py        the few functions of the CUDA driver that are called from here
onnx_file.py     which files an ONNX model consists of
onnx_plan.py     ONNX -> plan, by way of the cache
build.py         the compilation itself
build_progress.py how far it has come
plan_cache.py    plans that were built before, by key
runtime_cache.py what TensorRT-RTX compiled at run time, for the next start
offline.py       what can be said about a version without a GPU (`fastserve check`)

Nothing here imports a library of NVIDIA's before the driver has found a GPU: without a driver TensorRT's runtime object
crashes the process at its first use. Written by the documentation, by introspection of 11.4's bindings and by builds with
TensorRT-RTX on a CPU (tools/dev tensorrt-builds); engines have not yet run on a GPU."""
