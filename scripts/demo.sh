#!/usr/bin/env bash
# Builds examples/names and runs it: a language model of letters, trained on one device and tensor-parallel on several
# ranks. Arguments go to the program (`demo.sh --help`). The build is quiet unless it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh build demo
build=build/demo
log=$build/build.log
mkdir -p "$build"
options=(-D CMAKE_BUILD_TYPE=Release -D SHARDWISE_BUILD_TESTS=OFF -D SHARDWISE_BUILD_BENCH=OFF -D SHARDWISE_INSTALL=OFF)
if command -v ccache >/dev/null; then
  options+=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
printf 'demo: building examples/names\n' >&2
if ! { cmake -S . -B "$build" -G Ninja "${options[@]}" && cmake --build "$build" --target names; } >"$log" 2>&1; then
  cat "$log" >&2
  printf 'demo: the build failed\n' >&2
  exit 1
fi
exec "$build/examples/names" "$@"
