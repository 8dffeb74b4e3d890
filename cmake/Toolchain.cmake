# Language level, build type, compiler cache and the Python interpreter.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)  # every object library ends up in libfastserve.so
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)    # clang-tidy reads it
set(CMAKE_COLOR_DIAGNOSTICS ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, or Debug (the sanitizer presets)" FORCE)
endif()
# -O2, not CMake's -O3: the hot path is branches and copies, and -O3 costs build time and instruction cache.
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# Debug is what the sanitizers run on: assertions on, and fast enough for the stress tests.
set(CMAKE_C_FLAGS_DEBUG "-O1 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

find_program(FASTSERVE_CCACHE ccache)
if(FASTSERVE_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER "${FASTSERVE_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${FASTSERVE_CCACHE}")
endif()

# The interpreter: the caller's choice (scikit-build-core passes it), else the repository's .venv, else what is on PATH.
if(NOT Python_EXECUTABLE AND EXISTS "${CMAKE_SOURCE_DIR}/.venv/bin/python")
  set(Python_EXECUTABLE "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python interpreter")
endif()
