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

from io_native cimport *

# One module in parts: classes of one module call each other directly, without exported vtables.
include "io_calls.pxi"
include "io_options.pxi"
include "io_loop.pxi"
include "io_threads.pxi"
