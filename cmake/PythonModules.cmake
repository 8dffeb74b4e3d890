# fastserve._core (pybind11, csrc/bind/*.cc), fastserve._worker and fastserve._io (Cython, csrc/bind/_io.pyx, its parts io_*.pxi).
file(GLOB FASTSERVE_BIND_SOURCES CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/bind/*.cc")
fs_forget_stale(pybind11_DIR pybind11Config.cmake)
if(NOT pybind11_DIR)
  execute_process(COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir OUTPUT_VARIABLE pybind11_DIR
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
find_package(pybind11 CONFIG REQUIRED)
pybind11_add_module(_core MODULE NO_EXTRAS ${FASTSERVE_BIND_SOURCES})
target_link_libraries(_core PRIVATE fastserve)
target_compile_definitions(_core PRIVATE FASTSERVE_VERSION="${FASTSERVE_VERSION}")

# fastserve._worker (csrc/bind/worker): for worker processes, which start faster without the engine.
file(GLOB FASTSERVE_WORKER_SOURCES CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/bind/worker/*.cc")
pybind11_add_module(_worker MODULE NO_EXTRAS ${FASTSERVE_WORKER_SOURCES})
target_link_libraries(_worker PRIVATE fs_base fs_tensor fs_local)
add_dependencies(_core _worker)  # who builds the one needs the other

set(FASTSERVE_MODULES _core _worker)
if(FASTSERVE_NET)
  set(FASTSERVE_IO_PYX "${CMAKE_SOURCE_DIR}/csrc/bind/_io.pyx")
  file(GLOB FASTSERVE_IO_PARTS CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/bind/*.pxd"
       "${CMAKE_SOURCE_DIR}/csrc/bind/*.pxi")
  set(FASTSERVE_IO_CPP "${CMAKE_BINARY_DIR}/cython/_io.cpp")
  file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/cython")
  add_custom_command(
    OUTPUT "${FASTSERVE_IO_CPP}"
    COMMAND "${Python_EXECUTABLE}" -m cython -3 --cplus --module-name fastserve._io -I "${CMAKE_SOURCE_DIR}/csrc/bind"
            -I "${CMAKE_SOURCE_DIR}/csrc" -o "${FASTSERVE_IO_CPP}" "${FASTSERVE_IO_PYX}"
    DEPENDS "${FASTSERVE_IO_PYX}" ${FASTSERVE_IO_PARTS}
    COMMENT "Cython: _io.pyx"
    VERBATIM)
  python_add_library(_io MODULE WITH_SOABI "${FASTSERVE_IO_CPP}")
  target_link_libraries(_io PRIVATE fastserve fs_net_libraries)
  target_compile_options(_io PRIVATE -w)  # generated code
  list(APPEND FASTSERVE_MODULES _io)
endif()

set_target_properties(${FASTSERVE_MODULES} PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS ${FASTSERVE_MODULES} LIBRARY DESTINATION fastserve)
