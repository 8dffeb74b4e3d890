"""PyTorch on a GPU: programs of the `pytorch` backend captured as CUDA graphs, one for each lane and batch size.

open_model.py    model.pt, model.pt2 (torch.export, AOTInductor) -> GraphModel; what a KIND_GPU group is loaded with
module_model.py  the same of an nn.Module that a Python program holds (eager code)
graph_model.py   warm-up, capture, and the way batch by batch for what cannot be captured
device.py        what is called of torch.cuda, in one place
sizes.py         batch sizes that are captured

Written by torch's documentation and sources (2.11 to 2.13); it has not yet run on a GPU.
"""
