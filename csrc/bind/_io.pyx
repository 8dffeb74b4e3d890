# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=False
"""The two drivers of csrc/frontend, as Python sees them.

IoLoop: sockets under uvloop. The per-read cost counts here, hence Cython. One per asyncio loop; everything runs on the loop's
thread. The protocols hand bytes to the C++ session and write to the socket directly; the transport's own buffer is used only
when the socket is full, and then nothing else writes to it.

IoThreads: native epoll threads; only cold calls come here, by way of a queue with an eventfd.
"""

import asyncio
import os

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport make_shared, shared_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass byte_span "std::span<const std::byte>":
        byte_span()
        byte_span(const cbyte*, size_t)
        const cbyte* data()
        size_t size()
    cdef cppclass mutable_byte_span "std::span<std::byte>":
        mutable_byte_span()
        mutable_byte_span(cbyte*, size_t)
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
        cbool takes_messages
        string method
        string target
        string peer
        cbool secure
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

cdef extern from "base/fd.h" namespace "fastserve" nogil:
    cdef cppclass UniqueFd:
        UniqueFd(int)

cdef extern from "base/tally.h" namespace "fastserve" nogil:
    cdef cppclass Tally:
        uint64_t get()

cdef extern from "frontend/cold_port.h" namespace "fastserve" nogil:
    cdef cppclass ColdPort:
        void grpc_send(Call&, byte_span)
        void grpc_finish(Call&, Code, string_view, field_span)
        void http_respond(Call&, int, field_span, byte_span)
        void http_begin(Call&, int, field_span)
        void http_chunk(Call&, byte_span)
        void http_end(Call&)
        void grpc_took(Call&)
        void done(Call&)

cdef extern from "frontend/cold_queue.h" namespace "fastserve" nogil:
    cdef enum class ColdEventKind "fastserve::ColdEvent::Kind":
        kCall
        kMessage
        kHalfClose
        kCancelled
    cdef cppclass ColdEvent:
        ColdEventKind kind
        Call* call
        ColdPort* port
        string message

cdef extern from "frontend/tls_files.h" namespace "fastserve" nogil:
    cdef cppclass TlsCertificate:
        string subject
        string sha256
        int64_t not_before_s
        int64_t not_after_s
    cdef cppclass CTlsFiles "fastserve::TlsFiles":
        pass

ctypedef vector[string] Paths

cdef extern from "frontend/io_loop.h" namespace "fastserve" nogil:
    cdef cppclass IoLimits:
        size_t max_message_bytes
        uint32_t max_streams
        uint32_t max_stream_requests
        cbool compress_answers
        shared_ptr[Paths] client_streams
        shared_ptr[CTlsFiles] tls_grpc  # of const TlsFiles, which Cython cannot say
        shared_ptr[CTlsFiles] tls_http
    cdef cppclass IoCounters:
        Tally bytes_received
        Tally bytes_sent
        Tally grpc_connections
        Tally http_connections
        Tally grpc_accepted
        Tally http_accepted
        Tally open_calls
        Tally longest_pass_ns
        Tally tls_handshakes
        Tally tls_truncated
    cdef cppclass ColdMessage "fastserve::IoLoop::ColdMessage":
        Call* call
        string bytes
        cbool half_close
    cdef cppclass CIoLoop "fastserve::IoLoop"(ColdPort):
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
        vector[ColdMessage] take_cold_messages()
        vector[Call*] take_cancelled()
        vector[Connection*] take_attention()
        const IoCounters& counters()

cdef extern from "frontend/paced_reads.h" namespace "fastserve" nogil:
    cdef cppclass PacedReads:
        PacedReads(CIoLoop&)
        void received(Connection&, mutable_byte_span, size_t)

cdef extern from "frontend/io_threads.h" namespace "fastserve" nogil:
    cdef enum class Protocol:
        kGrpc
        kHttp
    cdef cppclass CIoThreads "fastserve::IoThreads":
        CIoThreads(Engine&, IoLimits, int) except +
        void listen(Protocol, UniqueFd)
        void stop_listening()
        void shutdown()
        int event_fd()
        vector[ColdEvent] take_cold()
        size_t size()
        const IoCounters& counters(size_t)
        size_t connections()

# Cython has no static_cast to an enum class and no constructor from a Python buffer.
cdef extern from *:
    """
    #include "base/status.h"
    #include "frontend/io_loop.h"
    namespace {
    fastserve::Code code_of(int number) { return static_cast<fastserve::Code>(number); }
    std::uint64_t refused(const fastserve::IoCounters& counters, int code) {
      return counters.refused_by_code[static_cast<std::size_t>(code)].get();
    }
    std::span<const std::byte> bytes_of(const void* data, std::size_t size) {
      return {static_cast<const std::byte*>(data), size};
    }
    std::shared_ptr<fastserve::TlsFiles> tls_open(const std::string& certificates, const std::string& key,
                                                  const std::string& client_ca, bool only_13, double handshake_timeout_s,
                                                  std::string& error) {
      fastserve::TlsLimits limits;
      limits.handshake_timeout_ns = static_cast<fastserve::Nanos>(handshake_timeout_s * 1e9);
      auto made = fastserve::TlsFiles::open({certificates, key, client_ca},
                                            only_13 ? fastserve::TlsVersion::k13 : fastserve::TlsVersion::k12, limits);
      if (made.is_ok()) return std::move(made).value();
      error = made.status().message();
      return nullptr;
    }
    std::string tls_reload(fastserve::TlsFiles& files) { return files.reload().message(); }
    fastserve::TlsCertificate tls_certificate(const fastserve::TlsFiles& files) { return files.current()->certificate(); }
    std::string tls_failure(std::size_t number) {
      return std::string(fastserve::tls_failure_name(static_cast<fastserve::TlsFailure>(number)));
    }
    std::uint64_t tls_failed(const fastserve::IoCounters& counters, std::size_t number) {
      return counters.tls_failures[number].get();
    }
    constexpr std::size_t kTlsFailureCount = fastserve::kTlsFailures;
    }
    """
    Code code_of(int) nogil
    uint64_t refused(const IoCounters&, int) nogil
    byte_span bytes_of(const void*, size_t) nogil
    shared_ptr[CTlsFiles] tls_open(const string&, const string&, const string&, cbool, double, string&) nogil
    string tls_reload(CTlsFiles&) nogil
    TlsCertificate tls_certificate(const CTlsFiles&) nogil
    string tls_failure(size_t) nogil
    uint64_t tls_failed(const IoCounters&, size_t) nogil
    size_t kTlsFailureCount


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


cdef class _Answering:
    """Who hands cold calls to Python: IoLoop and IoThreads. Everything runs on the asyncio loop's thread."""

    cdef object _engine  # keeps the C++ engine alive
    cdef object _on_grpc_call
    cdef object _on_http_call
    cdef bint _open

    cdef void _after_answer(self):
        pass

    cdef void _dispatch(self, Call* call, ColdPort* port):
        if call.kind == CallKind.kGrpcCold:
            self._dispatch_grpc(call, port)
        else:
            self._dispatch_http(call, port)

    cdef void _dispatch_grpc(self, Call* call, ColdPort* port):
        cdef GrpcCall out = GrpcCall.__new__(GrpcCall)
        out.path = call.target.decode("utf-8", "replace")
        out.message = PyBytes_FromStringAndSize(<const char*>call.request.message.data(), <Py_ssize_t>call.request.message.size())
        out.metadata = [(f.first.decode("latin-1"), <bytes>f.second) for f in call.fields]
        out.timeout_seconds = None if call.request.deadline == kNever else max(0, call.request.deadline - monotonic_now()) / 1e9
        out.peer = call.peer.decode("latin-1")
        out.takes_messages = call.takes_messages
        out._attach(self, call, port)
        try:
            self._on_grpc_call(out)
        except Exception:
            out.finish(13, "internal error")
            raise

    cdef void _dispatch_http(self, Call* call, ColdPort* port):
        cdef HttpCall out = HttpCall.__new__(HttpCall)
        out.method = call.method.decode("latin-1")
        out.target = call.target.decode("latin-1")
        out.body = PyBytes_FromStringAndSize(<const char*>call.request.message.data(), <Py_ssize_t>call.request.message.size())
        out.headers = [(<bytes>f.first, <bytes>f.second) for f in call.fields]
        out.peer = call.peer.decode("latin-1")
        out.secure = call.secure
        out._attach(self, call, port)
        try:
            self._on_http_call(out)
        except Exception:
            out.respond(500, [(b"content-type", b"application/json")], b'{"error":"internal error"}')
            raise

    cdef void _cancelled(self, Call* call):
        if call.loop_object != NULL:
            (<_Call>call.loop_object)._was_cancelled()

    cdef void _message(self, Call* call, string& message, bint half_close):
        cdef GrpcCall receiver
        if call.loop_object == NULL:
            return
        receiver = <GrpcCall>call.loop_object
        if receiver.on_message is not None:
            receiver.on_message(None if half_close else PyBytes_FromStringAndSize(message.data(), <Py_ssize_t>message.size()))


cdef class _Call:
    """What GrpcCall and HttpCall share: the hold on a C++ call until it was answered."""

    cdef Call* _call
    cdef ColdPort* _port
    cdef _Answering _owner
    cdef readonly bint cancelled
    cdef public object on_cancel

    cdef void _attach(self, _Answering owner, Call* call, ColdPort* port):
        self._owner = owner
        self._call = call
        self._port = port
        call.loop_object = <void*>self

    cdef bint _answerable(self):
        return self._call != NULL and self._owner._open

    cdef void _let_go(self):
        cdef Call* call = self._call
        if call != NULL:
            self._call = NULL
            if self._owner._open:
                call.loop_object = NULL
                self._port.done(call[0])
                self._owner._after_answer()

    cdef void _was_cancelled(self):
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def __dealloc__(self):
        # Dropped without an answer (its task died): the client must not wait for ever. Not during interpreter exit.
        cdef Call* call = self._call
        if call != NULL and self._owner is not None and self._owner._open:
            self._call = NULL
            call.loop_object = NULL
            self._port.done(call[0])


cdef class GrpcCall(_Call):
    cdef readonly str path
    cdef readonly bytes message
    cdef readonly list metadata
    cdef readonly str peer
    cdef readonly object timeout_seconds
    cdef readonly bint takes_messages
    cdef public object on_message

    def took(self):
        if self._answerable():
            self._port.grpc_took(self._call[0])

    def reply(self, bytes message not None):
        self.send(message)
        self.finish()

    def send(self, bytes message not None):
        if self._answerable():
            self._port.grpc_send(self._call[0], _span_of(message))

    def finish(self, int code=0, str message="", trailers=()):
        cdef vector[pair[string, string]] fields = _fields_of(trailers)
        cdef bytes text = message.encode("utf-8", "replace")
        if self._answerable():
            self._port.grpc_finish(
                self._call[0], code_of(code), string_view(PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text)), _field_span(fields)
            )
            self._let_go()


cdef class HttpCall(_Call):
    cdef readonly str method
    cdef readonly str target
    cdef readonly list headers
    cdef readonly bytes body
    cdef readonly str peer
    cdef readonly bint secure

    def respond(self, int status, headers, bytes body not None):
        cdef vector[pair[string, string]] fields = _fields_of(headers)
        if self._answerable():
            self._port.http_respond(self._call[0], status, _field_span(fields), _span_of(body))
            self._let_go()

    def start(self, int status, headers):
        cdef vector[pair[string, string]] fields = _fields_of(headers)
        if self._answerable():
            self._port.http_begin(self._call[0], status, _field_span(fields))
            self._owner._after_answer()

    def write(self, bytes chunk not None):
        if self._answerable():
            self._port.http_chunk(self._call[0], _span_of(chunk))
            self._owner._after_answer()

    def end(self):
        if self._answerable():
            self._port.http_end(self._call[0])
            self._let_go()


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
