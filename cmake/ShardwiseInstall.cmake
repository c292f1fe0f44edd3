# Install rules: one export set a component, the package configuration, pkg-config files.
include(CMakePackageConfigHelpers)

set(SHARDWISE_CONFIG_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/shardwise")
foreach(component IN LISTS SHARDWISE_COMPONENTS)
  if(component STREQUAL "core")
    set(target shardwise)
  else()
    set(target shardwise_${component})
  endif()
  install(TARGETS ${target} EXPORT shardwise-${component}
          ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT ${component}
          FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT ${component}
          INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
  install(EXPORT shardwise-${component} NAMESPACE shardwise:: DESTINATION "${SHARDWISE_CONFIG_DIR}"
          FILE shardwise-${component}-targets.cmake COMPONENT ${component})
endforeach()

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/shardwiseConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/shardwiseConfig.cmake" INSTALL_DESTINATION "${SHARDWISE_CONFIG_DIR}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/shardwiseConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/shardwiseConfig.cmake" "${PROJECT_BINARY_DIR}/shardwiseConfigVersion.cmake"
        DESTINATION "${SHARDWISE_CONFIG_DIR}" COMPONENT core)
if(TARGET shardwise_nccl)
  install(FILES "${PROJECT_SOURCE_DIR}/cmake/shardwiseNccl.cmake" DESTINATION "${SHARDWISE_CONFIG_DIR}" COMPONENT nccl)
endif()
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}" COMPONENT core)

# ---- pkg-config: relative to the file, so that a prefix can be moved -------------------------------------------
# An absolute CMAKE_INSTALL_LIBDIR or _INCLUDEDIR (Nix) stands as it is.
file(RELATIVE_PATH SHARDWISE_PC_UP "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" SHARDWISE_PC_UP "${SHARDWISE_PC_UP}")
set(SHARDWISE_PC_PREFIX "\${pcfiledir}/${SHARDWISE_PC_UP}")
foreach(dir INCLUDE LIB)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}DIR}")
    set(SHARDWISE_PC_${dir}DIR "${CMAKE_INSTALL_${dir}DIR}")
  else()
    set(SHARDWISE_PC_${dir}DIR "\${prefix}/${CMAKE_INSTALL_${dir}DIR}")
  endif()
endforeach()
function(shardwise_pkgconfig name component description requires cflags libs)
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/${name}.pc" @ONLY NEWLINE_STYLE UNIX CONTENT
"prefix=@SHARDWISE_PC_PREFIX@
includedir=@SHARDWISE_PC_INCLUDEDIR@
libdir=@SHARDWISE_PC_LIBDIR@

Name: @name@
Description: @description@ (C++20)
Version: @PROJECT_VERSION@
Requires: @requires@
Cflags: @cflags@
Libs: @libs@
")
  install(FILES "${PROJECT_BINARY_DIR}/${name}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig"
          COMPONENT ${component})
endfunction()

shardwise_pkgconfig(shardwise core "${PROJECT_DESCRIPTION}" "" "-I\${includedir} -pthread" "-pthread")
if(TARGET shardwise_eigen)
  set(cflags "")
  set(libs "")
  if(SHARDWISE_HAS_BLAS)
    set(cflags "-DSHARDWISE_HAS_BLAS=1")
    list(JOIN BLAS_LIBRARIES " " libs)
  endif()
  shardwise_pkgconfig(shardwise-eigen eigen "shardwise with Eigen" "shardwise = ${PROJECT_VERSION}, eigen3 >= 3.4"
                      "${cflags}" "${libs}")
endif()
if(TARGET shardwise_doctest)
  shardwise_pkgconfig(shardwise-doctest doctest "doctest over ranks, with main" "shardwise = ${PROJECT_VERSION}" ""
                      "-L\${libdir} -lshardwise_doctest")
endif()
if(TARGET shardwise_gloo)
  shardwise_pkgconfig(shardwise-gloo gloo "shardwise with Gloo" "shardwise = ${PROJECT_VERSION}" "-DSHARDWISE_HAS_GLOO=1"
                      "-lgloo")
endif()
if(TARGET shardwise_cuda)
  list(GET CUDAToolkit_INCLUDE_DIRS 0 cuda_include)
  shardwise_pkgconfig(shardwise-cuda cuda "shardwise with CUDA" "shardwise = ${PROJECT_VERSION}" "-isystem${cuda_include}"
                      "-L\${libdir} -lshardwise_cuda -L${CUDAToolkit_LIBRARY_DIR} -lcublas -lcublasLt -lcudart")
endif()
if(TARGET shardwise_nccl)
  shardwise_pkgconfig(shardwise-nccl nccl "shardwise with NCCL" "shardwise-cuda = ${PROJECT_VERSION}"
                      "-DSHARDWISE_HAS_NCCL=1 -isystem${SHARDWISE_NCCL_INCLUDE}" "${SHARDWISE_NCCL_LIBRARY}")
endif()
if(TARGET shardwise_mpi)
  list(TRANSFORM MPI_CXX_INCLUDE_DIRS PREPEND "-isystem" OUTPUT_VARIABLE cflags)
  list(JOIN cflags " " cflags)
  list(JOIN MPI_CXX_LIBRARIES " " libs)
  shardwise_pkgconfig(shardwise-mpi mpi "shardwise with MPI" "shardwise = ${PROJECT_VERSION}"
                      "-DSHARDWISE_HAS_MPI=1 ${cflags}" "${libs}")
endif()
