# What both drivers are given: TLS, limits, the engine; and what both count. Part of _io.pyx.

cdef class TlsFiles:
    cdef shared_ptr[CTlsFiles] _files

    def __cinit__(self, certificates, key, *, client_ca=None, str min_version="1.2", double handshake_timeout_s=10.0):
        cdef string error
        if min_version not in ("1.2", "1.3"):
            raise ValueError(f"min_version: got {min_version!r}, want '1.2' or '1.3'")
        if not handshake_timeout_s > 0:
            raise ValueError(f"handshake_timeout_s: got {handshake_timeout_s}, want more than 0")
        self._files = tls_open(
            <bytes>os.fsencode(certificates), <bytes>os.fsencode(key), <bytes>os.fsencode(client_ca or ""),
            min_version == "1.3", handshake_timeout_s, error
        )
        if self._files.get() == NULL:
            raise ValueError(os.fsdecode(<bytes>error))

    def reload(self):
        cdef string error = tls_reload(self._files.get()[0])
        if not error.empty():
            raise ValueError(os.fsdecode(<bytes>error))

    @property
    def subject(self):
        return tls_certificate(self._files.get()[0]).subject.decode("utf-8", "replace")

    @property
    def sha256(self):
        return tls_certificate(self._files.get()[0]).sha256.decode()

    @property
    def not_before(self):
        return tls_certificate(self._files.get()[0]).not_before_s

    @property
    def not_after(self):
        return tls_certificate(self._files.get()[0]).not_after_s


cdef IoLimits _limits_of(size_t max_message_bytes, uint32_t max_streams, uint32_t max_stream_requests,
                         bint compress_answers, TlsFiles tls_grpc, TlsFiles tls_http, client_streams):
    cdef IoLimits limits
    cdef vector[string] paths = [path.encode() for path in client_streams]
    limits.client_streams = make_shared[Paths](paths)
    limits.max_message_bytes = max_message_bytes
    limits.max_streams = max_streams
    limits.max_stream_requests = max_stream_requests
    limits.compress_answers = compress_answers
    if tls_grpc is not None:
        limits.tls_grpc = tls_grpc._files
    if tls_http is not None:
        limits.tls_http = tls_http._files
    return limits


cdef Engine* _engine_of(object engine) except NULL:
    return <Engine*>PyCapsule_GetPointer(engine._capsule(), b"fastserve.Engine")


cdef class IoStatistics:
    cdef readonly int grpc_connections
    cdef readonly int http_connections
    cdef readonly uint64_t grpc_accepted
    cdef readonly uint64_t http_accepted
    cdef readonly int streams
    cdef readonly uint64_t bytes_received
    cdef readonly uint64_t bytes_sent
    cdef readonly double longest_pass_seconds
    cdef readonly dict requests_refused
    cdef readonly uint64_t tls_handshakes
    cdef readonly uint64_t tls_truncated
    cdef readonly dict tls_failures


cdef IoStatistics _statistics_of(const IoCounters& counters):
    cdef IoStatistics out = IoStatistics.__new__(IoStatistics)
    cdef int code
    cdef string_view_out name = code_name(code_of(0))
    out.grpc_connections = <int>counters.grpc_connections.get()
    out.http_connections = <int>counters.http_connections.get()
    out.grpc_accepted = counters.grpc_accepted.get()
    out.http_accepted = counters.http_accepted.get()
    out.streams = <int>counters.open_calls.get()
    out.bytes_received = counters.bytes_received.get()
    out.bytes_sent = counters.bytes_sent.get()
    out.longest_pass_seconds = counters.longest_pass_ns.get() / 1e9
    out.requests_refused = {}
    for code in range(1, 17):
        name = code_name(code_of(code))
        out.requests_refused[name.data()[:name.size()].decode()] = refused(counters, code)
    out.tls_handshakes = counters.tls_handshakes.get()
    out.tls_truncated = counters.tls_truncated.get()
    out.tls_failures = {tls_failure(i).decode(): tls_failed(counters, i) for i in range(1, kTlsFailureCount)}
    return out
