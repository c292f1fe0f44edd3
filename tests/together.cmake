# Several test files as one unit: what they share, most of what is compiled, is compiled once.

# shardwise_together(<target> <out> <file>...): the units that hold these files of tests/, SHARDWISE_TEST_TOGETHER in each. A unit
# includes all that its files include, then each file in a namespace of its own, where its includes do nothing any more.
# By itself stands a file that defines macros, or declares what must be global.
function(shardwise_together target out)
  set(units "")
  set(group "")
  foreach(file IN LISTS ARGN)
    file(STRINGS "${tests}/${file}" by_itself LIMIT_COUNT 1
         REGEX "^(# *define|# *include \".*[.]inc\"|extern \"C\"|template <> *$|namespace (shardwise|std|doctest)( |:|$))")
    if(by_itself OR SHARDWISE_TEST_TOGETHER LESS 2)
      list(APPEND units "${file}")
      set_source_files_properties("${file}" PROPERTIES SKIP_PRECOMPILE_HEADERS ON)  # what it defines comes first
    else()
      list(APPEND group "${file}")
    endif()
  endforeach()
  # As many units as it takes, of about the same size.
  list(LENGTH group count)
  math(EXPR parts "(${count} + ${SHARDWISE_TEST_TOGETHER} - 1) / ${SHARDWISE_TEST_TOGETHER}")
  set(part 0)
  while(part LESS parts)
    math(EXPR first "${count} * ${part} / ${parts}")
    math(EXPR length "${count} * (${part} + 1) / ${parts} - ${first}")
    list(SUBLIST group ${first} ${length} files)
    math(EXPR part "${part} + 1")
    if(length EQUAL 1)
      list(APPEND units ${files})
      continue()
    endif()
    set(includes "")
    set(bodies "")
    foreach(file IN LISTS files)
      file(STRINGS "${tests}/${file}" lines REGEX "^# *include ")
      list(APPEND includes ${lines})
      string(MAKE_C_IDENTIFIER "${file}" namespace)
      string(APPEND bodies "namespace ${namespace} {\n#include \"${file}\"\n}\n")
    endforeach()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${files})  # a new include is moved up at the next build
    list(REMOVE_DUPLICATES includes)
    list(JOIN includes "\n" includes)
    set(unit "${CMAKE_CURRENT_BINARY_DIR}/together/${target}_${part}.cpp")
    file(CONFIGURE OUTPUT "${unit}" CONTENT "@includes@\n\n@bodies@" @ONLY)
    list(APPEND units "${unit}")
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # which warns of types without linkage outside the main file
      set_source_files_properties("${unit}" PROPERTIES COMPILE_OPTIONS -Wno-subobject-linkage)
    endif()
  endwhile()
  set(${out} "${units}" PARENT_SCOPE)
endfunction()
