# shardwise_find_nccl(<sentence out>): the target shardwise::nccl_library; what is missing, empty where it is there. Used by the build
# and by the installed package.
macro(shardwise_find_nccl sentence)
  set(${sentence} "")
  if(NOT TARGET shardwise::nccl_library)
    find_path(SHARDWISE_NCCL_INCLUDE nccl.h HINTS ENV NCCL_HOME ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
    # A wheel of NVIDIA has the library without the name for linkers.
    find_library(SHARDWISE_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ENV NCCL_HOME ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib lib64)
    mark_as_advanced(SHARDWISE_NCCL_INCLUDE SHARDWISE_NCCL_LIBRARY)
    if(SHARDWISE_NCCL_INCLUDE AND SHARDWISE_NCCL_LIBRARY)
      file(STRINGS "${SHARDWISE_NCCL_INCLUDE}/nccl.h" shardwise_nccl_version REGEX "define NCCL_VERSION_CODE [0-9]+")
      string(REGEX REPLACE "[^0-9]" "" shardwise_nccl_version "${shardwise_nccl_version}")
      if(shardwise_nccl_version LESS 21800)  # ncclCommSplit
        set(${sentence} "NCCL in ${SHARDWISE_NCCL_INCLUDE} is older than 2.18")
      else()
        add_library(shardwise::nccl_library UNKNOWN IMPORTED)
        set_target_properties(shardwise::nccl_library PROPERTIES IMPORTED_LOCATION "${SHARDWISE_NCCL_LIBRARY}"
                              INTERFACE_INCLUDE_DIRECTORIES "${SHARDWISE_NCCL_INCLUDE}")
      endif()
    else()
      set(${sentence} "NCCL was not found (from NVIDIA; name its folder in the environment's NCCL_HOME)")
    endif()
  endif()
endmacro()
