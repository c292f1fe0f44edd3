#!/usr/bin/env bash
# Builds the benchmarks in release mode (with a BLAS where one is installed) and prints one table: each figure a ratio of
# two times of this run, with its limit. SHARDWISE_TORCH_PYTHON names a Python with PyTorch to stand beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh build
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

build=build/bench
log=$build/build.log
mkdir -p "$build"
options=(-D CMAKE_BUILD_TYPE=Release -D SHARDWISE_BUILD_TESTS=OFF -D SHARDWISE_BUILD_EXAMPLES=OFF -D SHARDWISE_INSTALL=OFF
         -D SHARDWISE_BUILD_BENCH=ON -D SHARDWISE_BLAS=AUTO)
if command -v ccache >/dev/null; then
  options+=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
printf 'bench: building\n' >&2
if ! { cmake -S . -B "$build" -G Ninja "${options[@]}" && cmake --build "$build"; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
grep -h 'matrix products' "$log" | sed 's/^-- //' || true
printf 'cores: %s, load before: %s\n' "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null || echo unknown)"

"$build/bench/bench_step"
"$build/bench/bench_step" large
if [ -n "${SHARDWISE_TORCH_PYTHON:-}" ]; then
  python3 bench/peers/mlp_pairs.py "$build/bench/bench_step" "$SHARDWISE_TORCH_PYTHON"
else
  printf 'PyTorch is left out: SHARDWISE_TORCH_PYTHON names no Python that has it\n'
fi

"$build/bench/bench_dispatch"
if command -v valgrind >/dev/null; then
  count() { valgrind --tool=none --log-file=/dev/null true 2>/dev/null && valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    "$build/bench/bench_dispatch" "$1" 2>&1 | sed -n 's/.*Collected : *\([0-9]*\).*/\1/p'; }
  same=$(count same || true) copy=$(count copy || true)
  if [ -n "$same" ] && [ -n "$copy" ]; then
    printf '%-58s %10s  %-16s %-8s\n' 'instructions of such a redistribute beyond the copy' "$(((same - copy) / 20000))" '' 0
  fi
fi

if [ -x "$build/bench/bench_parallelize_api" ]; then
  printf '\nThe seed suite, PA-1 to PA-16, as a process\n'
  for _ in 1 2 3; do
    start=$(date +%s%N)
    "$build/bench/bench_parallelize_api" >/dev/null
    printf '%-58s %7s ms  %-16s %-8s\n' 'wall time' "$((($(date +%s%N) - start) / 1000000))" '' '1000 ms'
  done
fi

"$build/bench/bench_redistribute_thread"
python3 bench/compile/times.py
