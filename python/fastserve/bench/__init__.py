"""`fastserve bench`: load for any KServe v2 server, and what it answered.

Pure: schedule, search, histogram, figures, picture, hpack, and the two sessions (HTTP/1.1, gRPC). With a clock and
sockets: driver, connection. With processes: worker, fleet.
"""
