"""`python -m fastserve.worker`: started by the server, with its descriptors (csrc/backend/worker_wire.h)."""

from fastserve.worker.process import main

main()
