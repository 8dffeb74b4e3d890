# The GPU lane: csrc/backend/cuda*, which needs cuda.h to compile and nothing to link (libcuda.so.1 is opened at run time).
# Sets FASTSERVE_CUDA_LANE and, with it, fs_cuda_header: the folder of cuda.h, for files that include it and no others.
set(FASTSERVE_CUDA AUTO CACHE STRING "GPU lane: ON, OFF or AUTO (when cuda.h is found)")
set_property(CACHE FASTSERVE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(FASTSERVE_CUDA_INCLUDE "" CACHE PATH "Folder of cuda.h; empty: a CUDA toolkit, then the interpreter's packages")
set(FASTSERVE_CUDA_LANE OFF)

function(fs_find_cuda_header)
  if(FASTSERVE_CUDA_INCLUDE)
    find_path(FASTSERVE_CUDA_HEADER cuda.h PATHS "${FASTSERVE_CUDA_INCLUDE}" NO_DEFAULT_PATH NO_CACHE)
  else()
    # The toolkit of a GPU machine, else the wheel nvidia-cuda-runtime (pyproject.toml's build requirements) wherever the
    # building interpreter finds packages: site-packages, or pip's temporary environment.
    set(package_folders)
    if(Python_EXECUTABLE)
      execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
                "import glob, nvidia\nprint(*(d for name in ('cu13', 'cuda_runtime', '*') for p in nvidia.__path__ for d in glob.glob(f'{p}/{name}/include')), sep=';')"
        OUTPUT_VARIABLE package_folders ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    endif()
    find_path(FASTSERVE_CUDA_HEADER cuda.h
              HINTS ENV CUDA_HOME ENV CUDA_PATH
              PATHS /usr/local/cuda /usr/local/cuda/targets/x86_64-linux ${package_folders}
              PATH_SUFFIXES include NO_CACHE)
  endif()
  if(NOT FASTSERVE_CUDA_HEADER)
    return()
  endif()
  file(STRINGS "${FASTSERVE_CUDA_HEADER}/cuda.h" version REGEX "^#define CUDA_VERSION" LIMIT_COUNT 1)
  string(REGEX REPLACE "[^0-9]" "" version "${version}")
  if(version LESS 12000)
    message(STATUS "fastserve: ${FASTSERVE_CUDA_HEADER}/cuda.h is of CUDA ${version}, wanted 12000 or newer")
    unset(FASTSERVE_CUDA_HEADER)
  endif()
  set(FASTSERVE_CUDA_HEADER "${FASTSERVE_CUDA_HEADER}" PARENT_SCOPE)
  set(FASTSERVE_CUDA_VERSION "${version}" PARENT_SCOPE)
endfunction()

if(FASTSERVE_CUDA STREQUAL "AUTO" OR FASTSERVE_CUDA)
  fs_find_cuda_header()
  if(FASTSERVE_CUDA_HEADER)
    set(FASTSERVE_CUDA_LANE ON)
    add_library(fs_cuda_header INTERFACE)
    target_include_directories(fs_cuda_header SYSTEM INTERFACE "${FASTSERVE_CUDA_HEADER}")
    message(STATUS "fastserve: GPU lane with cuda.h of CUDA ${FASTSERVE_CUDA_VERSION} in ${FASTSERVE_CUDA_HEADER}")
  elseif(FASTSERVE_CUDA STREQUAL "AUTO")
    message(STATUS "fastserve: no cuda.h found: built without the GPU lane "
                   "(pip install nvidia-cuda-runtime, or -DFASTSERVE_CUDA_INCLUDE=...)")
  else()
    message(FATAL_ERROR "FASTSERVE_CUDA=ON and no cuda.h: pip install nvidia-cuda-runtime, or pass -DFASTSERVE_CUDA_INCLUDE=...")
  endif()
endif()
