# cython: language_level=3
"""What _io.pyx sees of the C++ side: csrc/frontend, and the few conversions of io_native.h that Cython cannot write."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr
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

cdef extern from "bind/io_native.h" namespace "fastserve::bind" nogil:
    Code code_of(int)
    uint64_t refused(const IoCounters&, int)
    byte_span bytes_of(const void*, size_t)
    shared_ptr[CTlsFiles] tls_open(const string&, const string&, const string&, cbool, double, string&)
    string tls_reload(CTlsFiles&)
    TlsCertificate tls_certificate(const CTlsFiles&)
    string tls_failure(size_t)
    uint64_t tls_failed(const IoCounters&, size_t)
    size_t kTlsFailureCount
