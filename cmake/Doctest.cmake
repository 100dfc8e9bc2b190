# sparsecore_add_tests_by_file(EXECUTABLE FILES test_a.cpp test_b.cpp)
#
# A test of ctest for each source file of a doctest executable, EXECUTABLE.a and so on: they run side by side, and a
# failure names its file. SUFFIX ends their names, ARGUMENTS go to the executable, TIMEOUT is in seconds, and
# ENVIRONMENT is theirs.
function(sparsecore_add_tests_by_file executable)
  cmake_parse_arguments(ARG "" "SUFFIX;TIMEOUT" "ARGUMENTS;ENVIRONMENT;FILES" ${ARGN})
  foreach(file ${ARG_FILES})
    string(REGEX REPLACE "^test_(.*)\\.cpp$" "\\1" name ${file})
    set(test ${executable}.${name}${ARG_SUFFIX})
    add_test(NAME ${test} COMMAND ${executable} --source-file=*/${file} ${ARG_ARGUMENTS})
    # A filter that meets no test passes, in doctest's opinion.
    set_tests_properties(${test} PROPERTIES FAIL_REGULAR_EXPRESSION "test cases: +0 ")
    if(ARG_TIMEOUT)
      set_tests_properties(${test} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
    endif()
    if(ARG_ENVIRONMENT)
      set_tests_properties(${test} PROPERTIES ENVIRONMENT "${ARG_ENVIRONMENT}")
    endif()
  endforeach()
endfunction()
