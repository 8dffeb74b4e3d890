# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=False
"""Sockets under uvloop: the driver of csrc/frontend. The per-read cost counts here, hence Cython.

One IoLoop per asyncio loop; everything runs on the loop's thread. The protocols hand bytes to the C++ session and write to the
socket directly; the transport's own buffer is used only when the socket is full, and then nothing else writes to it.
"""

import asyncio

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass byte_span "std::span<const std::byte>":
        byte_span()
        byte_span(const cbyte*, size_t)
        const cbyte* data()
        size_t size()
    cdef cppclass field_span "std::span<const std::pair<std::string, std::string>>":
        field_span()
        field_span(const pair[string, string]*, size_t)

cdef extern from "<cstddef>" namespace "std" nogil:
    cdef cppclass cbyte "std::byte":
        pass

cdef extern from "<string_view>" namespace "std" nogil:
    cdef cppclass string_view:
        string_view(const char*, size_t)

cdef extern from "base/clock.h" namespace "fastserve" nogil:
    int64_t kNever
    int64_t monotonic_now()

cdef extern from "base/status.h" namespace "fastserve" nogil:
    cdef cppclass Code:
        pass
    string_view_out code_name(Code)

cdef extern from "<string_view>" nogil:
    cdef cppclass string_view_out "std::string_view":
        const char* data()
        size_t size()

cdef extern from "engine/engine.h" namespace "fastserve" nogil:
    cdef cppclass Engine:
        pass

cdef extern from "memory/byte_buffer.h" namespace "fastserve" nogil:
    cdef cppclass ByteBuffer:
        cbyte* data()
        size_t size()

cdef extern from "batch/request.h" namespace "fastserve" nogil:
    cdef cppclass Request:
        int64_t deadline
        ByteBuffer message

cdef extern from "frontend/call.h" namespace "fastserve" nogil:
    cdef enum class CallKind:
        kGrpcInfer
        kRestInfer
        kGrpcCold
        kHttpCold
    cdef cppclass Call:
        Request request
        CallKind kind
        string method
        string target
        vector[pair[string, string]] fields
        void* loop_object

cdef extern from "frontend/connection.h" namespace "fastserve" nogil:
    cdef cppclass Connection:
        cbool stalled()
        cbool finished()
        cbool wants_input()
        cbool lingers()
        byte_span front()
        void consumed(size_t)
        void set_driver_writes(cbool)
        void* driver()

cdef extern from "frontend/io_loop.h" namespace "fastserve" nogil:
    cdef cppclass IoLimits:
        size_t max_message_bytes
        uint32_t max_streams
    cdef cppclass IoCounters:
        uint64_t bytes_received
        uint64_t bytes_sent
        uint64_t* refused_by_code
    cdef cppclass CIoLoop "fastserve::IoLoop":
        CIoLoop(Engine&, IoLimits)
        int event_fd()
        Connection* open_grpc(int, void*)
        Connection* open_http(int, void*)
        void received(Connection&, byte_span)
        void end_of_input(Connection&)
        void writable(Connection&)
        void close(Connection*)
        void shutdown()
        void tick()
        void on_wake()
        vector[Call*] take_cold()
        vector[Call*] take_cancelled()
        vector[Connection*] take_attention()
        void grpc_send(Call&, byte_span)
        void grpc_finish(Call&, Code, string_view, field_span)
        void http_respond(Call&, int, field_span, byte_span)
        void http_begin(Call&, int, field_span)
        void http_chunk(Call&, byte_span)
        void http_end(Call&)
        void done(Call&)
        size_t grpc_connections()
        size_t http_connections()
        size_t open_calls()
        const IoCounters& counters()

# Cython has no static_cast to an enum class and no constructor from a Python buffer.
cdef extern from *:
    """
    #include "base/status.h"
    #include "frontend/io_loop.h"
    namespace {
    fastserve::Code code_of(int number) { return static_cast<fastserve::Code>(number); }
    std::uint64_t refused(const fastserve::IoCounters& counters, int code) {
      return counters.refused_by_code[static_cast<std::size_t>(code)];
    }
    std::span<const std::byte> bytes_of(const void* data, std::size_t size) {
      return {static_cast<const std::byte*>(data), size};
    }
    }
    """
    Code code_of(int) nogil
    uint64_t refused(const IoCounters&, int) nogil
    byte_span bytes_of(const void*, size_t) nogil


cdef enum:
    RECEIVE_BYTES = 262144  # one buffer for all connections: a read is handed over before the next one starts
    TRANSPORT_BYTES = 262144  # given to a transport at a time when the socket is full


LINGER_S = 2.0  # for a client that still sends to read its refusal


cdef inline bytes _bytes_of(byte_span span):
    return PyBytes_FromStringAndSize(<const char*>span.data(), <Py_ssize_t>span.size())


cdef inline byte_span _span_of(bytes data):
    return bytes_of(PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


cdef vector[pair[string, string]] _fields_of(object pairs) except *:
    cdef vector[pair[string, string]] out
    cdef pair[string, string] field
    for name, value in pairs:
        field.first = name.encode() if isinstance(name, str) else name
        field.second = value.encode() if isinstance(value, str) else value
        out.push_back(field)
    return out


cdef inline field_span _field_span(vector[pair[string, string]]& fields):
    return field_span(fields.data(), fields.size())


cdef class _Call:
    """What GrpcCall and HttpCall share: the hold on a C++ call until it was answered."""

    cdef Call* _call
    cdef IoLoop _io
    cdef readonly bint cancelled
    cdef public object on_cancel

    cdef void _attach(self, IoLoop io, Call* call):
        self._io = io
        self._call = call
        call.loop_object = <void*>self

    cdef void _let_go(self):
        cdef Call* call = self._call
        if call != NULL:
            self._call = NULL
            if self._io._loop != NULL:
                self._io._loop.done(call[0])
                self._io._attend()

    cdef void _was_cancelled(self):
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def __dealloc__(self):
        # Dropped without an answer (its task died): the client must not wait for ever. Not during interpreter exit.
        cdef Call* call = self._call
        if call != NULL and self._io is not None and self._io._loop != NULL:
            self._call = NULL
            self._io._loop.done(call[0])


cdef class GrpcCall(_Call):
    cdef readonly str path
    cdef readonly bytes message
    cdef readonly list metadata
    cdef readonly object timeout_seconds

    def reply(self, bytes message not None):
        self.send(message)
        self.finish()

    def send(self, bytes message not None):
        if self._call != NULL and self._io._loop != NULL:
            self._io._loop.grpc_send(self._call[0], _span_of(message))

    def finish(self, int code=0, str message="", trailers=()):
        cdef vector[pair[string, string]] fields = _fields_of(trailers)
        cdef bytes text = message.encode("utf-8", "replace")
        if self._call != NULL and self._io._loop != NULL:
            self._io._loop.grpc_finish(
                self._call[0], code_of(code), string_view(PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text)), _field_span(fields)
            )
            self._let_go()


cdef class HttpCall(_Call):
    cdef readonly str method
    cdef readonly str target
    cdef readonly list headers
    cdef readonly bytes body
    cdef readonly str peer

    def respond(self, int status, headers, bytes body not None):
        cdef vector[pair[string, string]] fields = _fields_of(headers)
        if self._call != NULL and self._io._loop != NULL:
            self._io._loop.http_respond(self._call[0], status, _field_span(fields), _span_of(body))
            self._let_go()

    def start(self, int status, headers):
        cdef vector[pair[string, string]] fields = _fields_of(headers)
        if self._call != NULL and self._io._loop != NULL:
            self._io._loop.http_begin(self._call[0], status, _field_span(fields))
            self._io._attend()

    def write(self, bytes chunk not None):
        if self._call != NULL and self._io._loop != NULL:
            self._io._loop.http_chunk(self._call[0], _span_of(chunk))
            self._io._attend()

    def end(self):
        if self._call != NULL and self._io._loop != NULL:
            self._io._loop.http_end(self._call[0])
            self._let_go()


cdef class IoStatistics:
    cdef readonly int grpc_connections
    cdef readonly int http_connections
    cdef readonly int streams
    cdef readonly uint64_t bytes_received
    cdef readonly uint64_t bytes_sent
    cdef readonly dict requests_refused


cdef class _Protocol:
    """The C-level part of a protocol. asyncio wants a real subclass of BufferedProtocol, which a cdef class cannot be:
    GrpcProtocol and HttpProtocol below add it."""

    cdef IoLoop _io
    cdef Connection* _connection
    cdef object _transport
    cdef bint _reading
    cdef bint _grpc
    cdef bint _lingering
    cdef str _peer

    def __cinit__(self, IoLoop io, bint grpc):
        self._io = io
        self._grpc = grpc
        self._reading = True

    def connection_made(self, transport):
        cdef int fd
        if self._io._loop == NULL:
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # pause_writing as soon as the socket is full, resume when it drained
        socket = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername")
        self._peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
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
        self._io._loop.received(self._connection[0], bytes_of(self._io._receive_data, <size_t>nbytes))
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


cdef class IoLoop:
    cdef CIoLoop* _loop
    cdef object _engine  # keeps the C++ engine alive
    cdef object _on_grpc_call
    cdef object _on_http_call
    cdef set _protocols
    cdef object _receive
    cdef void* _receive_data
    cdef readonly int event_fd

    def __cinit__(self, engine, *, on_grpc_call, on_http_call, size_t max_message_bytes=64 << 20,
                  uint32_t max_streams=1024, str server_header=""):
        cdef IoLimits limits
        cdef unsigned char[::1] view
        limits.max_message_bytes = max_message_bytes
        limits.max_streams = max_streams
        self._engine = engine
        self._on_grpc_call = on_grpc_call
        self._on_http_call = on_http_call
        self._protocols = set()
        self._receive = bytearray(RECEIVE_BYTES)
        view = self._receive
        self._receive_data = <void*>&view[0]
        self._loop = new CIoLoop((<Engine*>PyCapsule_GetPointer(engine._capsule(), b"fastserve.Engine"))[0], limits)
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

    def open_calls(self):
        return 0 if self._loop == NULL else self._loop.open_calls()

    def statistics(self):
        cdef IoStatistics out = IoStatistics.__new__(IoStatistics)
        cdef int code
        cdef string_view_out name = code_name(code_of(0))
        out.requests_refused = {}
        if self._loop != NULL:
            out.grpc_connections = <int>self._loop.grpc_connections()
            out.http_connections = <int>self._loop.http_connections()
            out.streams = <int>self._loop.open_calls()
            out.bytes_received = self._loop.counters().bytes_received
            out.bytes_sent = self._loop.counters().bytes_sent
            for code in range(1, 17):
                name = code_name(code_of(code))
                out.requests_refused[name.data()[:name.size()].decode()] = refused(self._loop.counters(), code)
        return out

    def close(self):
        cdef CIoLoop* loop = self._loop
        for protocol in list(self._protocols):
            (<_Protocol>protocol)._detach()
        self._loop = NULL
        if loop != NULL:
            with nogil:
                del loop

    def __dealloc__(self):
        cdef CIoLoop* loop = self._loop
        self._loop = NULL
        if loop != NULL:
            with nogil:
                del loop

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
        cdef Call* call
        if self._loop == NULL:
            return
        for call in self._loop.take_cold():
            if call.kind == CallKind.kGrpcCold:
                self._dispatch_grpc(call)
            else:
                self._dispatch_http(call)
        for call in self._loop.take_cancelled():
            if call.loop_object != NULL:
                (<_Call>call.loop_object)._was_cancelled()
        self._attend()

    cdef void _dispatch_grpc(self, Call* call):
        cdef GrpcCall out = GrpcCall.__new__(GrpcCall)
        out.path = call.target.decode("utf-8", "replace")
        out.message = PyBytes_FromStringAndSize(<const char*>call.request.message.data(), <Py_ssize_t>call.request.message.size())
        out.metadata = [(f.first.decode("latin-1"), <bytes>f.second) for f in call.fields]
        out.timeout_seconds = None if call.request.deadline == kNever else max(0, call.request.deadline - monotonic_now()) / 1e9
        out._attach(self, call)
        try:
            self._on_grpc_call(out)
        except Exception:
            out.finish(13, "internal error")
            raise

    cdef void _dispatch_http(self, Call* call):
        cdef HttpCall out = HttpCall.__new__(HttpCall)
        out.method = call.method.decode("latin-1")
        out.target = call.target.decode("latin-1")
        out.body = PyBytes_FromStringAndSize(<const char*>call.request.message.data(), <Py_ssize_t>call.request.message.size())
        out.headers = [(<bytes>f.first, <bytes>f.second) for f in call.fields]
        out.peer = ""
        out._attach(self, call)
        try:
            self._on_http_call(out)
        except Exception:
            out.respond(500, [(b"content-type", b"application/json")], b'{"error":"internal error"}')
            raise
