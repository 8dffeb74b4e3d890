"""The kinds of models that worker processes run, and `model`, our own form of a Python model (README.md in the folder above).

simple.py         @model: a function or class with typed inputs
user_code.py      opens a user's model.py, whichever form it has
triton_model.py   TritonPythonModel
pb_utils.py       what such a model imports as triton_python_backend_utils; pb_tensor, pb_request, pb_config: its parts
onnx_runtime.py   ONNX on ONNX Runtime
torch_models.py   TorchScript and torch.export on PyTorch
tensors.py        datatypes, configured tensors, checks of what a model answers
whole.py          models that take a whole batch at once
"""

from fastserve.worker.models.simple import model

__all__ = ["model"]
