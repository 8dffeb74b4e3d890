# Cold calls on their way to Python and back. Part of _io.pyx.

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
