# One library fs_<layer> per folder of csrc/ and libfastserve made of all of them.
# The order is bottom up; who may include whom is checked by tools/check_layers.py, not by the linker.
set(FASTSERVE_ENGINE_LAYERS base tensor queue memory local client batch backend sched model engine)
set(FASTSERVE_NET_LAYERS codec frontend)
set(FASTSERVE_LAYERS ${FASTSERVE_ENGINE_LAYERS})
if(FASTSERVE_NET)
  list(APPEND FASTSERVE_LAYERS ${FASTSERVE_NET_LAYERS})
endif()

# Sources of backends that need a vendor's library become plug-ins; those of the GPU lane need a vendor's header and are
# compiled where there is one.
set(FASTSERVE_PLUGIN_SOURCES "/backend/(openvino|cuda)[^/]*$")

function(fs_add_layer layer)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/${layer}/*.cc")
  list(FILTER sources EXCLUDE REGEX "${FASTSERVE_PLUGIN_SOURCES}")
  if(sources)
    add_library(fs_${layer} OBJECT ${sources})
    target_link_libraries(fs_${layer} PUBLIC fs_options Threads::Threads ${CMAKE_DL_LIBS})
    if(layer IN_LIST FASTSERVE_NET_LAYERS)
      target_link_libraries(fs_${layer} PUBLIC fs_net_libraries)
    endif()
  else()
    add_library(fs_${layer} INTERFACE)  # headers only
    target_link_libraries(fs_${layer} INTERFACE fs_options)
  endif()
endfunction()

foreach(layer IN LISTS FASTSERVE_LAYERS)
  fs_add_layer(${layer})
endforeach()

# In libfastserve, as it links nothing of CUDA's. FASTSERVE_CUDA_LANE is seen by csrc/bind and by tests, not by the layers.
if(FASTSERVE_CUDA_LANE)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/backend/cuda*.cc")
  add_library(fs_cuda OBJECT ${sources})
  target_link_libraries(fs_cuda PUBLIC fs_options fs_cuda_header Threads::Threads ${CMAKE_DL_LIBS})
endif()

# libfastserve: what the Python modules and the plug-ins link, so that there is one copy of every registry.
list(TRANSFORM FASTSERVE_LAYERS PREPEND fs_ OUTPUT_VARIABLE FASTSERVE_LAYER_LIBRARIES)
# fastserve.Engine without the network libraries (_core, no _io): the local transport's part of the front end needs none of them.
if(FASTSERVE_PYTHON AND NOT FASTSERVE_NET)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/frontend/local_*.cc")
  add_library(fs_local_frontend OBJECT ${sources} csrc/frontend/answer_clock.cc csrc/frontend/mailbox.cc)
  target_link_libraries(fs_local_frontend PUBLIC fs_options Threads::Threads)
  list(APPEND FASTSERVE_LAYER_LIBRARIES fs_local_frontend)
endif()
file(WRITE "${CMAKE_BINARY_DIR}/empty.cc.in" "")
configure_file("${CMAKE_BINARY_DIR}/empty.cc.in" "${CMAKE_BINARY_DIR}/empty.cc" COPYONLY)
add_library(fastserve SHARED "${CMAKE_BINARY_DIR}/empty.cc")  # CMake wants one source of its own
target_link_libraries(fastserve PRIVATE ${FASTSERVE_LAYER_LIBRARIES})
target_link_libraries(fastserve PUBLIC fs_options)
if(FASTSERVE_CUDA_LANE)
  target_link_libraries(fastserve PRIVATE fs_cuda)
  target_compile_definitions(fastserve PUBLIC FASTSERVE_CUDA_LANE=1)
endif()
set_target_properties(fastserve PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS fastserve LIBRARY DESTINATION fastserve)

# The client of the local transport for programs without an engine: one archive and one C header.
add_library(fastserve_local STATIC $<TARGET_OBJECTS:fs_base> $<TARGET_OBJECTS:fs_tensor> $<TARGET_OBJECTS:fs_local>
                                   $<TARGET_OBJECTS:fs_client>)
target_link_libraries(fastserve_local PUBLIC Threads::Threads)
target_include_directories(fastserve_local INTERFACE "${CMAKE_SOURCE_DIR}/csrc/client/include")
install(TARGETS fastserve_local ARCHIVE DESTINATION fastserve/lib)
install(FILES csrc/client/include/fastserve_local.h DESTINATION fastserve/include)

if(FASTSERVE_OPENVINO)
  file(GLOB FASTSERVE_OPENVINO_SOURCES CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/backend/openvino*.cc")
  if(FASTSERVE_OPENVINO_SOURCES)
    add_library(fastserve_openvino MODULE ${FASTSERVE_OPENVINO_SOURCES})
    target_link_libraries(fastserve_openvino PRIVATE fastserve openvino::runtime)
    # Installed, site-packages/fastserve and site-packages/openvino are neighbours; in the build tree CMake
    # writes the absolute paths.
    set_target_properties(fastserve_openvino PROPERTIES PREFIX "lib" INSTALL_RPATH "$ORIGIN:$ORIGIN/../openvino/libs")
    install(TARGETS fastserve_openvino LIBRARY DESTINATION fastserve)
  endif()
endif()
