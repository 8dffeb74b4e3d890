# tests/csrc/<layer>/*_test.cc -> test_<layer>: the layer and what lies below it, linked statically, so that a test
# of a low layer rebuilds without the high ones. One ctest entry per executable; the runner counts gtest's lines.
find_package(GTest REQUIRED)

function(fs_below layer out)
  set(below)
  if(layer STREQUAL "codec")
    set(candidates base tensor queue memory batch codec)  # knows no engine
  elseif(layer STREQUAL "frontend")
    set(candidates ${FASTSERVE_LAYERS})
  else()
    set(candidates ${FASTSERVE_ENGINE_LAYERS})
  endif()
  foreach(candidate IN LISTS candidates)
    list(APPEND below fs_${candidate})
    if(candidate STREQUAL layer)
      break()
    endif()
  endforeach()
  set(${out} ${below} PARENT_SCOPE)
endfunction()

function(fs_add_test name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests/csrc")
  target_link_libraries(${name} PRIVATE GTest::gtest_main)
  # The tests themselves are not optimised, what they test is: measured on a large test file, gcc 12 takes 3.8 s instead
  # of 6.3 s, and with ASan+UBSan 6.3 s instead of 13.6 s. The layers' objects stand first on the linker's command line,
  # so that inline functions of both are the optimised ones.
  set_target_properties(${name} PROPERTIES FASTSERVE_IS_TEST ON)
  target_compile_options(${name} PRIVATE -O0)
  if(FASTSERVE_SANITIZE MATCHES "undefined")
    # In the tests' own code, not in what they test: a quarter of a test's compile time, and AddressSanitizer sees most of it.
    target_compile_options(${name} PRIVATE -fno-sanitize=null,alignment)
  endif()
  add_test(NAME ${name} COMMAND ${name})
endfunction()

foreach(layer IN LISTS FASTSERVE_LAYERS)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/csrc/${layer}/*_test.cc")
  list(FILTER sources EXCLUDE REGEX "${FASTSERVE_PLUGIN_SOURCES}")
  if(sources)
    fs_add_test(test_${layer} ${sources})
    fs_below(${layer} below)
    target_link_libraries(test_${layer} PRIVATE ${below})
  endif()
endforeach()

# The policy against the rivals, in virtual time. Optimised: it runs millions of decisions.
file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/benchmarks/simulator/*.cc")
list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
add_library(fs_simulator OBJECT ${sources})
target_include_directories(fs_simulator PUBLIC "${CMAKE_SOURCE_DIR}/benchmarks")
target_link_libraries(fs_simulator PUBLIC fs_batch)
fs_add_test(test_simulator tests/csrc/simulator/simulation_test.cc)
fs_below(batch below)
target_link_libraries(test_simulator PRIVATE fs_simulator ${below})

# The plug-in's tests link libfastserve.so, as the plug-in does: one registry, not two.
if(TARGET fastserve_openvino)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/csrc/backend/openvino*_test.cc")
  if(sources)
    fs_add_test(test_openvino ${sources})
    target_link_libraries(test_openvino PRIVATE fastserve openvino::runtime)
    # Only here: the paths differ from build folder to build folder, and ccache would compile every test anew.
    target_compile_definitions(test_openvino PRIVATE FASTSERVE_PLUGIN_DIR="${CMAKE_BINARY_DIR}"
                                                     FASTSERVE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_dependencies(test_openvino fastserve_openvino)
    if(FASTSERVE_SANITIZE)
      target_sources(test_openvino PRIVATE "${CMAKE_SOURCE_DIR}/tests/csrc/support/keep_libraries.cc")
      set_target_properties(test_openvino PROPERTIES ENABLE_EXPORTS ON)  # ahead of libc's dlclose
    endif()
  endif()
endif()

# The GPU lane on the simulated CUDA driver: a libcuda.so.1 that is built for tests and never installed. The test finds it by
# its RUNPATH, also where a real driver is installed.
if(FASTSERVE_CUDA_LANE)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/simulated_cuda/*.cc")
  if(sources)
    add_library(simulated_cuda SHARED ${sources})
    target_link_libraries(simulated_cuda PRIVATE fs_options fs_cuda_header Threads::Threads)
    target_include_directories(simulated_cuda PUBLIC "${CMAKE_SOURCE_DIR}/tests")
    set_target_properties(simulated_cuda PROPERTIES OUTPUT_NAME cuda SOVERSION 1
                                                    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/simulated_cuda")
  endif()
  # test_cuda_lane: what uses the process's devices and page-locked memory, which a reset of the driver under them would upset.
  file(GLOB lane_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/csrc/backend/cuda_lane*_test.cc")
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/csrc/backend/cuda*_test.cc")
  list(REMOVE_ITEM sources ${lane_sources})
  fs_below(engine below)
  foreach(test IN ITEMS cuda cuda_lane)
    set(test_sources ${sources})
    if(test STREQUAL "cuda_lane")
      set(test_sources ${lane_sources})
    endif()
    if(test_sources AND TARGET simulated_cuda)
      fs_add_test(test_${test} ${test_sources})
      target_link_libraries(test_${test} PRIVATE fs_cuda ${below} simulated_cuda)
      target_compile_definitions(test_${test} PRIVATE FASTSERVE_CUDA_LANE=1)
    endif()
  endforeach()
endif()
