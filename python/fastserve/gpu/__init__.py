"""Models on a GPU: what Python does of the CUDA lane (csrc/backend/cuda.h). Nothing here runs per batch."""
