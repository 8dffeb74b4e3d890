# Native I/O threads. Part of _io.pyx.

cdef class IoThreads(_Answering):
    cdef CIoThreads* _threads
    cdef readonly int event_fd

    def __cinit__(self, engine, int threads, *, on_grpc_call, on_http_call, size_t max_message_bytes=64 << 20,
                  uint32_t max_streams=1024, uint32_t max_stream_requests=256,
                  bint compress_answers=False, TlsFiles tls_grpc=None, TlsFiles tls_http=None,
                  client_streams=()):
        if threads < 1:
            raise ValueError(f"threads: got {threads}, want 1 or more")
        self._engine = engine
        self._on_grpc_call = on_grpc_call
        self._on_http_call = on_http_call
        self._threads = new CIoThreads(_engine_of(engine)[0], _limits_of(
            max_message_bytes, max_streams, max_stream_requests, compress_answers, tls_grpc, tls_http, client_streams), threads)
        self._open = True
        self.event_fd = self._threads.event_fd()

    def listen_grpc(self, sock):
        self._listen(Protocol.kGrpc, sock)

    def listen_http(self, sock):
        self._listen(Protocol.kHttp, sock)

    cdef void _listen(self, Protocol protocol, object sock) except *:
        if self._threads != NULL:
            sock.setblocking(False)
            self._threads.listen(protocol, UniqueFd(<int>os.dup(sock.fileno())))

    def stop_listening(self):
        if self._threads != NULL:
            self._threads.stop_listening()

    def on_wake(self):
        cdef ColdEvent event
        if self._threads == NULL:
            return
        for event in self._threads.take_cold():
            if event.kind == ColdEventKind.kCall:
                self._dispatch(event.call, event.port)
            elif event.kind == ColdEventKind.kCancelled:
                self._cancelled(event.call)
            else:
                self._message(event.call, event.message, event.kind == ColdEventKind.kHalfClose)

    def shutdown(self):
        if self._threads != NULL:
            self._threads.shutdown()

    def open_sessions(self):
        return 0 if self._threads == NULL else self._threads.connections()

    def statistics(self):
        cdef size_t i
        if self._threads == NULL:
            return []
        return [_statistics_of(self._threads.counters(i)) for i in range(self._threads.size())]

    def close(self):
        self._destroy()

    def __dealloc__(self):
        self._destroy()

    cdef void _destroy(self):
        cdef CIoThreads* threads = self._threads
        self._threads = NULL
        self._open = False
        if threads != NULL:
            with nogil:
                del threads
