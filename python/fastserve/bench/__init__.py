"""`fastserve bench`: load for any KServe v2 server, and what it answered.

Pure: schedule, search, histogram, figures, picture, report, hpack, and the two sessions (HTTP/1.1, gRPC). With a clock
and sockets: connection, driver, step_run. With processes: worker, fleet, run.

What one process can make, in requests a second with FP32 [1,16], one process on one virtual core of an AMD EPYC, the
server on the other (2026-11; CPU of the client per request in brackets):

| in flight | gRPC | perf_analyzer 2.41, gRPC | HTTP | perf_analyzer 2.41, HTTP |
|---|---|---|---|---|
| 16 | 76,000 (12 µs) | 22,000 (44 µs) | 15,000 (35 µs) | 6,200 (82 µs) |
| 64 | 150,000 (6.4 µs) | 34,000 (28 µs) | 28,000 (24 µs) | fails |

benchmarks/loadgen, in C++, makes 400,000 at 64 in flight over gRPC (1.9 µs): where a server is faster than that, say
--processes. The table marks levels at which the client itself was short of CPU.
"""
