"""tools/gpu-check: builds the engine without network libraries and OpenVINO, runs every check that needs a GPU.

main.py      the command line, the order of things
build.py     CMake, the kernels, a Python package of what was built
rows.py      the checks: name, floor, how each is run, how long it may take
running.py   one row in a process of its own -> its result
results.py   gpu-check.json after each row, the table at the end
packing.py   --pack: the sources as one archive, for a machine without a network

Standard library only: it starts before anything is built.
"""
