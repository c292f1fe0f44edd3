#!/usr/bin/env bash
# Builds everything and runs every test once: test.sh [PRESET] (default: dev). The last line of the output is
# `N passed, N failed, N skipped`; the status is 0 only if something ran and nothing failed. `test.sh cuda` is skipped, and says so, without
# the CUDA toolkit. SHARDWISE_TEST_TOGETHER=6 compiles so many test files as one unit: quicker from nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${1:-dev}

if [ "$preset" = dev ]; then
  scripts/setup.sh build test
else
  scripts/setup.sh build test ci
fi
if [ "$preset" = cuda ] && ! scripts/setup.sh cuda; then
  echo "SKIPPED: the kernels for GPUs are neither compiled nor tested without the CUDA toolkit"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
if [ "$preset" = mpich ]; then scripts/setup.sh mpich; fi
options=()
if [ -n "${SHARDWISE_TEST_TOGETHER:-}" ]; then
  options+=(-D "SHARDWISE_TEST_TOGETHER=$SHARDWISE_TEST_TOGETHER")
fi
if command -v ccache >/dev/null; then
  options+=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
log=build/$preset/Testing/Temporary/LastTest.log
rm -f "$log"
cmake --preset "$preset" "${options[@]}"
if ! cmake --build --preset "$preset"; then
  echo "test.sh: the build failed, so no test was run"
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi
status=0
ctest --preset "$preset" || status=$?
python3 scripts/count_tests.py "$log" || status=1
exit "$status"
