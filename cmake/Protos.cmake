# protos/*.proto -> fastserve/protos.binpb: one descriptor set that Python builds its message classes from.
# Without the network libraries only fastserve.Engine is there, which needs none.
if(FASTSERVE_PYTHON AND FASTSERVE_NET)
  file(GLOB_RECURSE FASTSERVE_PROTOS CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/protos/*.proto")
  find_program(PROTOC protoc REQUIRED)
  set(FASTSERVE_DESCRIPTORS "${CMAKE_BINARY_DIR}/protos.binpb")
  add_custom_command(
    OUTPUT "${FASTSERVE_DESCRIPTORS}"
    COMMAND "${PROTOC}" -I "${CMAKE_SOURCE_DIR}/protos" --include_imports
            "--descriptor_set_out=${FASTSERVE_DESCRIPTORS}" ${FASTSERVE_PROTOS}
    DEPENDS ${FASTSERVE_PROTOS}
    COMMENT "protoc: descriptor set"
    VERBATIM)
  add_custom_target(fastserve_protos ALL DEPENDS "${FASTSERVE_DESCRIPTORS}")
  install(FILES "${FASTSERVE_DESCRIPTORS}" DESTINATION fastserve)
endif()
