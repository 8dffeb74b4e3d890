"""Models that run in processes of their own.

registration.py   tells the engine how such processes are started (in the server)
process.py        what runs in them: `python -m fastserve.worker`
model.py          what a model is there
"""
