# fs_options: include directory, warnings, hardening and sanitizers of every target of our own.
add_library(fs_options INTERFACE)
target_include_directories(fs_options INTERFACE "${CMAKE_SOURCE_DIR}/csrc")
target_compile_options(fs_options INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# gcc 12 reports -Wrestrict inside std::string's operator+ at -O2 (GCC PR 105329); nothing of ours is meant.
target_compile_options(fs_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(FASTSERVE_WERROR)
  target_compile_options(fs_options INTERFACE -Werror)
endif()

if(FASTSERVE_SANITIZE)
  target_compile_options(fs_options INTERFACE -fsanitize=${FASTSERVE_SANITIZE} -fno-sanitize-recover=all
                                              -fno-omit-frame-pointer)
  # The instrumentation hides initialisations from gcc 12's flow analysis: false positives only.
  target_compile_options(fs_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(fs_options INTERFACE -fsanitize=${FASTSERVE_SANITIZE})
else()
  target_compile_options(fs_options INTERFACE -fstack-protector-strong)
  # _FORTIFY_SOURCE needs optimisation (tests have none), and gcc of some distributions defines it already.
  set(fortified "$<AND:$<CONFIG:Release>,$<NOT:$<BOOL:$<TARGET_PROPERTY:FASTSERVE_IS_TEST>>>>")
  target_compile_options(fs_options INTERFACE $<${fortified}:-U_FORTIFY_SOURCE> $<${fortified}:-D_FORTIFY_SOURCE=2>)
  target_link_options(fs_options INTERFACE LINKER:-z,relro LINKER:-z,now)
endif()
