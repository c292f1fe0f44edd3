# The targets, one a component. Sets SHARDWISE_COMPONENTS (those that exist) and SHARDWISE_PRODUCTS (what computes
# matrix products, for the summary).

shardwise_sort_headers("${PROJECT_SOURCE_DIR}/include" SHARDWISE_CORE_HEADERS SHARDWISE_EIGEN_HEADERS
                       SHARDWISE_DOCTEST_HEADERS SHARDWISE_GLOO_HEADERS SHARDWISE_MPI_HEADERS)
set(SHARDWISE_COMPONENTS core)

# shardwise_component(<name> HEADERS <file>... LIBRARIES <target>... [DEFINITIONS <definition>...]): shardwise::<name>, headers and what
# they need.
function(shardwise_component name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "HEADERS;LIBRARIES;DEFINITIONS")
  add_library(shardwise_${name} INTERFACE)
  add_library(shardwise::${name} ALIAS shardwise_${name})
  set_target_properties(shardwise_${name} PROPERTIES EXPORT_NAME ${name})
  target_sources(shardwise_${name} INTERFACE FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include"
                                             FILES ${arg_HEADERS})
  target_link_libraries(shardwise_${name} INTERFACE ${arg_LIBRARIES})
  target_compile_definitions(shardwise_${name} INTERFACE ${arg_DEFINITIONS})
  set(SHARDWISE_COMPONENTS ${SHARDWISE_COMPONENTS} ${name} PARENT_SCOPE)
endfunction()

# shardwise_no_component(<name> <what is missing> [<what follows>]): an error where SHARDWISE_<NAME> asks for it.
function(shardwise_no_component name missing)
  string(TOUPPER "SHARDWISE_${name}" option)
  if(NOT ${option} STREQUAL "AUTO")
    message(FATAL_ERROR "shardwise: ${option}=${${option}} asks for shardwise::${name}, but ${missing}")
  endif()
  message(STATUS "shardwise: no shardwise::${name}${ARGN}: ${missing}")
endfunction()

# ---- core: placements, meshes, tensors, redistribution, threads ------------------------------------------------
find_package(Threads REQUIRED)
add_library(shardwise INTERFACE)
add_library(shardwise::shardwise ALIAS shardwise)
target_sources(shardwise INTERFACE FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include"
                                   FILES ${SHARDWISE_CORE_HEADERS})
target_compile_features(shardwise INTERFACE cxx_std_20)
target_link_libraries(shardwise INTERFACE Threads::Threads)

# ---- eigen: everything that multiplies matrices ----------------------------------------------------------------
set(SHARDWISE_PRODUCTS "matrix products: none (Eigen is switched off by SHARDWISE_EIGEN=OFF)")
if(SHARDWISE_EIGEN)
  if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 CONFIG QUIET)  # its version file refuses a newer major version: compared below instead
  endif()
  if(TARGET Eigen3::Eigen AND (NOT DEFINED Eigen3_VERSION OR Eigen3_VERSION VERSION_GREATER_EQUAL 3.4))
    shardwise_component(eigen HEADERS ${SHARDWISE_EIGEN_HEADERS} LIBRARIES shardwise Eigen3::Eigen)
    set(SHARDWISE_PRODUCTS "matrix products: Eigen ${Eigen3_VERSION}")
  else()
    set(missing "Eigen 3.4 or newer was not found (Debian: libeigen3-dev; or name its folder in Eigen3_DIR)")
    shardwise_no_component(eigen "${missing}" ", so no shardwise/shardwise.hpp")
    set(SHARDWISE_PRODUCTS "matrix products: none: ${missing}")
  endif()
endif()

# ---- a BLAS: only where asked for, but the summary says when one lies idle -------------------------------------
set(SHARDWISE_HAS_BLAS OFF)
if(TARGET shardwise_eigen)
  if(SHARDWISE_BLAS)
    set(SHARDWISE_BLAS_VENDOR "${BLA_VENDOR}")
    if(NOT BLA_VENDOR)
      set(SHARDWISE_BLAS_VENDOR OpenBLAS)
      set(BLA_VENDOR OpenBLAS)
      find_package(BLAS QUIET)
      unset(BLA_VENDOR)
      if(NOT BLAS_FOUND)
        set(SHARDWISE_BLAS_VENDOR "")
      endif()
    endif()
    if(NOT BLAS_FOUND)
      find_package(BLAS QUIET)
    endif()
    if(BLAS_FOUND)
      set(SHARDWISE_HAS_BLAS ON)
      target_compile_definitions(shardwise_eigen INTERFACE SHARDWISE_HAS_BLAS=1)
      target_link_libraries(shardwise_eigen INTERFACE BLAS::BLAS)
      list(JOIN BLAS_LIBRARIES " " libraries)
      string(APPEND SHARDWISE_PRODUCTS " and, for large ones, a BLAS (${libraries})")
    elseif(NOT SHARDWISE_BLAS STREQUAL "AUTO")
      message(FATAL_ERROR "shardwise: SHARDWISE_BLAS=${SHARDWISE_BLAS} asks for a BLAS, but none was found "
                          "(Debian: libopenblas-dev; BLA_VENDOR picks another)")
    else()
      string(APPEND SHARDWISE_PRODUCTS "; no BLAS was found (Debian: libopenblas-dev)")
    endif()
  else()
    find_library(SHARDWISE_IDLE_BLAS NAMES openblas blis mkl_rt)
    mark_as_advanced(SHARDWISE_IDLE_BLAS)
    if(SHARDWISE_IDLE_BLAS)
      string(APPEND SHARDWISE_PRODUCTS "; a BLAS is at hand (${SHARDWISE_IDLE_BLAS}): SHARDWISE_BLAS=ON uses it")
    endif()
  endif()
endif()

# ---- doctest: the extension for tests over ranks, and main -----------------------------------------------------
if(SHARDWISE_DOCTEST)
  if(NOT TARGET doctest::doctest)
    find_package(doctest CONFIG QUIET)
  endif()
  if(TARGET doctest::doctest)
    list(APPEND SHARDWISE_COMPONENTS doctest)
    add_library(shardwise_doctest STATIC "${PROJECT_SOURCE_DIR}/src/doctest_main.cpp")
    add_library(shardwise::doctest ALIAS shardwise_doctest)
    set_target_properties(shardwise_doctest PROPERTIES EXPORT_NAME doctest)
    if(NOT SHARDWISE_INSTALL AND NOT SHARDWISE_BUILD_TESTS)  # a user who does not link it does not build it
      set_target_properties(shardwise_doctest PROPERTIES EXCLUDE_FROM_ALL TRUE)
    endif()
    target_sources(shardwise_doctest INTERFACE FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include"
                                               FILES ${SHARDWISE_DOCTEST_HEADERS})
    target_link_libraries(shardwise_doctest PUBLIC shardwise doctest::doctest)
  else()
    shardwise_no_component(doctest "doctest was not found (Debian: doctest-dev; or name its folder in doctest_DIR)")
  endif()
endif()

# ---- gloo: ranks as processes on several hosts -----------------------------------------------------------------
if(SHARDWISE_GLOO)
  if(NOT TARGET gloo)
    find_package(Gloo CONFIG QUIET)
  endif()
  if(TARGET gloo)
    shardwise_component(gloo HEADERS ${SHARDWISE_GLOO_HEADERS} LIBRARIES shardwise gloo DEFINITIONS SHARDWISE_HAS_GLOO=1)
  else()
    shardwise_no_component(gloo "Gloo was not found (Debian: libgloo-dev; or name its folder in Gloo_DIR)")
  endif()
endif()

# ---- mpi: the same over MPI-3 ----------------------------------------------------------------------------------
# MPI_CXX_COMPILER (mpicxx.mpich, say) picks one of several; MPIEXEC_EXECUTABLE is its launcher, for the tests.
if(SHARDWISE_MPI)
  if(NOT TARGET MPI::MPI_CXX)
    set(MPI_CXX_SKIP_MPICXX TRUE)  # the C interface alone
    find_package(MPI 3.0 QUIET COMPONENTS CXX)
  endif()
  if(TARGET MPI::MPI_CXX)
    shardwise_component(mpi HEADERS ${SHARDWISE_MPI_HEADERS} LIBRARIES shardwise MPI::MPI_CXX
                        DEFINITIONS SHARDWISE_HAS_MPI=1)
  else()
    shardwise_no_component(mpi "MPI-3 was not found (Debian: libopenmpi-dev or libmpich-dev; or name its compiler in MPI_CXX_COMPILER)")
  endif()
endif()
