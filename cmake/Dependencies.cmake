# Third-party targets, each behind one name. Debian packages: tools/debian-packages.txt.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(FASTSERVE_NET)
  find_package(PkgConfig REQUIRED)
  # 1.52 is Debian 12's. Its revision 1.52.0-1+deb12u3 carries the fixes for CVE-2023-44487 (rapid reset),
  # CVE-2024-28182 (CONTINUATION flood) and later; a version number alone cannot see them, `apt-get upgrade` brings them.
  pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET "libnghttp2 >= 1.52")
  pkg_check_modules(SIMDJSON REQUIRED IMPORTED_TARGET "simdjson >= 3.0")
  pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
  pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET "openssl >= 3.0")

  find_path(PROTOZERO_INCLUDE_DIR protozero/pbf_reader.hpp REQUIRED)

  # Debian ships llhttp as generated C inside node-llhttp, not as a library.
  find_path(LLHTTP_SOURCE_DIR llhttp.c PATHS /usr/share/llhttp REQUIRED NO_DEFAULT_PATH)
  find_path(LLHTTP_INCLUDE_DIR llhttp.h PATHS /usr/share/include/llhttp REQUIRED NO_DEFAULT_PATH)
  add_library(llhttp STATIC "${LLHTTP_SOURCE_DIR}/api.c" "${LLHTTP_SOURCE_DIR}/http.c" "${LLHTTP_SOURCE_DIR}/llhttp.c")
  target_include_directories(llhttp SYSTEM PUBLIC "${LLHTTP_INCLUDE_DIR}")
  target_compile_options(llhttp PRIVATE -w)
  # Loose mode, llhttp's default, takes blanks in header names and bare LF: request smuggling.
  target_compile_definitions(llhttp PUBLIC LLHTTP_STRICT_MODE=1)

  add_library(fs_net_libraries INTERFACE)
  target_include_directories(fs_net_libraries SYSTEM INTERFACE "${PROTOZERO_INCLUDE_DIR}")
  target_link_libraries(fs_net_libraries INTERFACE llhttp PkgConfig::NGHTTP2 PkgConfig::SIMDJSON PkgConfig::ZLIB
                                                   PkgConfig::OPENSSL)
endif()

if(FASTSERVE_PYTHON OR FASTSERVE_OPENVINO)
  set(FASTSERVE_PYTHON_COMPONENTS Interpreter)
  if(FASTSERVE_PYTHON)
    list(APPEND FASTSERVE_PYTHON_COMPONENTS Development.Module)
  endif()
  find_package(Python 3.11 REQUIRED COMPONENTS ${FASTSERVE_PYTHON_COMPONENTS})
endif()

# Forgets a cached package folder that is gone: pip builds in a new temporary environment every time, and the build
# folder (with the last one's paths in its cache) is kept.
function(fs_forget_stale variable file)
  if(${variable} AND NOT EXISTS "${${variable}}/${file}")
    unset(${variable} CACHE)
  endif()
endfunction()

if(FASTSERVE_OPENVINO)
  fs_forget_stale(OpenVINO_DIR OpenVINOConfig.cmake)
  fs_forget_stale(TBB_DIR TBBConfig.cmake)
  # OpenVINO comes as a Python wheel with headers, CMake files and libraries. -DOpenVINO_DIR=... overrides.
  if(NOT OpenVINO_DIR)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c "from openvino.utils import get_cmake_path; print(get_cmake_path())"
      OUTPUT_VARIABLE FASTSERVE_OPENVINO_CMAKE ERROR_VARIABLE FASTSERVE_OPENVINO_ERROR RESULT_VARIABLE FASTSERVE_OPENVINO_RC
      OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT FASTSERVE_OPENVINO_RC EQUAL 0)
      message(FATAL_ERROR "OpenVINO not found by ${Python_EXECUTABLE}. Install the wheel (pip install openvino), "
                          "pass -DOpenVINO_DIR=..., or build without it: -DFASTSERVE_OPENVINO=OFF\n"
                          "${FASTSERVE_OPENVINO_ERROR}")
    endif()
    set(OpenVINO_DIR "${FASTSERVE_OPENVINO_CMAKE}" CACHE PATH "Folder of OpenVINOConfig.cmake" FORCE)
  endif()
  find_package(OpenVINO REQUIRED COMPONENTS Runtime)
  # Its configuration defines this for the whole folder. It is gcc's default, and without it the presets with and without
  # OpenVINO compile the layers with the same command line, so that ccache answers for the second.
  remove_definitions(-D_GLIBCXX_USE_CXX11_ABI=1)
endif()
