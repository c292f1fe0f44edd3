# Warnings are errors in our own tests, benchmarks and examples; a user's flags are the user's.
function(shardwise_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wconversion -Wshadow -Werror)
endfunction()
