# Sockets under uvloop: the protocol of one connection and the loop that owns them all. Part of _io.pyx.

cdef enum:
    RECEIVE_BYTES = 262144  # one buffer for all connections: a read is handed over before the next one starts
    TRANSPORT_BYTES = 262144  # given to a transport at a time when the socket is full


LINGER_S = 2.0  # for a client that still sends to read its refusal


cdef class _Protocol:
    """The C-level part of a protocol. asyncio wants a real subclass of BufferedProtocol, which a cdef class cannot be:
    GrpcProtocol and HttpProtocol below add it."""

    cdef IoLoop _io
    cdef Connection* _connection
    cdef object _transport
    cdef bint _reading
    cdef bint _grpc
    cdef bint _lingering

    def __cinit__(self, IoLoop io, bint grpc):
        self._io = io
        self._grpc = grpc
        self._reading = True

    def connection_made(self, transport):
        cdef int fd
        if not self._io._open:
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # pause_writing as soon as the socket is full, resume when it drained
        socket = transport.get_extra_info("socket")
        fd = socket.fileno()
        self._io._protocols.add(self)
        if self._grpc:
            self._connection = self._io._loop.open_grpc(fd, <void*>self)
        else:
            self._connection = self._io._loop.open_http(fd, <void*>self)
        self._io._attend()

    def get_buffer(self, sizehint):
        return self._io._receive

    def buffer_updated(self, Py_ssize_t nbytes):
        if self._connection == NULL:
            return
        self._io._reads.received(self._connection[0], self._io._receive_span, <size_t>nbytes)
        self._io._after_pass()

    def eof_received(self):
        if self._connection == NULL:
            return False
        self._io._loop.end_of_input(self._connection[0])
        self._io._after_pass()
        return True  # the session says when to close: a half-closed client still gets its answers

    def pause_writing(self):
        if self._connection != NULL:
            self._connection.set_driver_writes(True)

    def resume_writing(self):
        if self._connection != NULL:
            self._io._loop.writable(self._connection[0])
            self._io._after_pass()

    def connection_lost(self, exc):
        cdef Connection* connection = self._connection
        self._connection = NULL
        self._transport = None
        self._io._protocols.discard(self)
        if connection != NULL and self._io._loop != NULL:
            self._io._loop.close(connection)
            self._io._after_pass()

    cdef void _finish(self):
        if not self._connection.lingers():
            self._transport.close()
        elif not self._lingering:
            self._lingering = True
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)

    cdef void _detach(self):
        self._connection = NULL
        if self._transport is not None:
            self._transport.abort()

    cdef void _attend(self):
        cdef Connection* connection = self._connection
        cdef bytes piece
        cdef byte_span front
        if connection == NULL:
            return
        if connection.finished():
            self._finish()
            return
        if connection.wants_input() != self._reading:
            self._reading = not self._reading
            if self._reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
        if connection.stalled() and self._transport.get_write_buffer_size() == 0:
            front = connection.front()
            if front.size() > TRANSPORT_BYTES:
                front = bytes_of(<const void*>front.data(), TRANSPORT_BYTES)
            piece = _bytes_of(front)
            connection.consumed(front.size())
            self._transport.write(piece)
            if self._transport.get_write_buffer_size() == 0:  # the socket took it at once: go on directly
                self._io._loop.writable(connection[0])


class GrpcProtocol(_Protocol, asyncio.BufferedProtocol):
    __slots__ = ()


class HttpProtocol(_Protocol, asyncio.BufferedProtocol):
    __slots__ = ()


cdef class IoLoop(_Answering):
    cdef CIoLoop* _loop
    cdef PacedReads* _reads
    cdef set _protocols
    cdef object _receive
    cdef mutable_byte_span _receive_span
    cdef bint _dispatching
    cdef readonly int event_fd

    def __cinit__(self, engine, *, on_grpc_call, on_http_call, size_t max_message_bytes=64 << 20,
                  uint32_t max_streams=1024, uint32_t max_stream_requests=256,
                  bint compress_answers=False, TlsFiles tls_grpc=None, TlsFiles tls_http=None,
                  client_streams=()):
        cdef unsigned char[::1] view
        self._engine = engine
        self._on_grpc_call = on_grpc_call
        self._on_http_call = on_http_call
        self._protocols = set()
        self._receive = bytearray(RECEIVE_BYTES)
        view = self._receive
        self._receive_span = mutable_byte_span(<cbyte*>&view[0], RECEIVE_BYTES)
        self._loop = new CIoLoop(_engine_of(engine)[0], _limits_of(
            max_message_bytes, max_streams, max_stream_requests, compress_answers, tls_grpc, tls_http, client_streams))
        self._reads = new PacedReads(self._loop[0])
        self._open = True
        self.event_fd = self._loop.event_fd()

    def on_wake(self):
        if self._loop != NULL:
            self._loop.on_wake()
            self._after_pass()

    def grpc_protocol(self):
        return GrpcProtocol(self, True)

    def http_protocol(self):
        return HttpProtocol(self, False)

    def shutdown(self):
        if self._loop != NULL:
            self._loop.shutdown()
            self._after_pass()

    def tick(self):
        if self._loop != NULL:
            self._loop.tick()
            self._after_pass()

    def open_sessions(self):
        return len(self._protocols)

    def statistics(self):
        return [] if self._loop == NULL else [_statistics_of(self._loop.counters())]

    def close(self):
        for protocol in list(self._protocols):
            (<_Protocol>protocol)._detach()
        self._destroy()

    def __dealloc__(self):
        self._destroy()

    cdef void _destroy(self):
        cdef CIoLoop* loop = self._loop
        del self._reads
        self._reads = NULL
        self._loop = NULL
        self._open = False
        if loop != NULL:
            with nogil:
                del loop

    # An answer may have begun the next request of its connection, which is cold as well (pipelining).
    cdef void _after_answer(self):
        self._after_pass()

    cdef void _attend(self):
        cdef vector[Connection*] list_
        cdef Connection* connection
        if self._loop == NULL:
            return
        list_ = self._loop.take_attention()
        while list_.size() != 0:
            for connection in list_:
                (<_Protocol>connection.driver())._attend()
            list_ = self._loop.take_attention()

    cdef void _after_pass(self):
        if self._dispatching:  # a call that is answered at once: the one who dispatches goes on
            return
        self._dispatching = True
        while self._loop != NULL and self._hand_over():
            pass
        self._dispatching = False

    # What the last passes left; whether there was any.
    cdef bint _hand_over(self):
        cdef bint any_ = False
        cdef Call* call
        cdef ColdMessage message
        for call in self._loop.take_cold():
            any_ = True
            self._dispatch(call, self._loop)
        for message in self._loop.take_cold_messages():
            any_ = True
            self._message(message.call, message.bytes, message.half_close)
        for call in self._loop.take_cancelled():
            any_ = True
            self._cancelled(call)
        self._attend()
        return any_
