#!/usr/bin/env bash
# Builds the benchmarks in release mode (with a BLAS where one is installed) and runs them: bench.sh [TASK]
#   all     everything but the peers (the default): each figure a ratio of two times of this run
#   gates   the figures of redistribute that have limits, between threads and between processes, in under a minute once
#           built: GATE <name> <measured> <limit> ok|over; status 1 if one is over
#   start   how long processes take from their start to their first collective
#   switch  the ways of a collective over messages against each other, for 3 to 32 ranks over Gloo
#   peers   redistribute beside raw MPI, ScaLAPACK, FFTW and PyTorch, in one table; installs what Debian and the Python index have
#   growth  how redistribute grows with ranks and sizes, as tables
# SHARDWISE_TORCH_PYTHON names a Python with PyTorch to stand beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
task=${1:-all}
case $task in
  all | gates | start | switch | peers | growth) ;;
  *)
    printf "bench: unknown task '%s' (known: all gates start switch peers growth)\n" "$task" >&2
    exit 2
    ;;
esac
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

build=build/bench
build_target() {  # build_target <CMake target>...
  local log=$build/build.log
  mkdir -p "$build"
  local options=(-D CMAKE_BUILD_TYPE=Release -D SHARDWISE_BUILD_TESTS=OFF -D SHARDWISE_BUILD_EXAMPLES=OFF
                 -D SHARDWISE_INSTALL=OFF -D SHARDWISE_BUILD_BENCH=ON -D SHARDWISE_BLAS=AUTO)
  if command -v ccache >/dev/null; then
    options+=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  printf 'bench: building\n' >&2
  if ! { cmake -S . -B "$build" -G Ninja "${options[@]}" && cmake --build "$build" --target "$@"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
  fi
  grep -h 'matrix products' "$log" | sed 's/^-- //' >&2 || true
}
# What valgrind counts while this runs; nothing where valgrind is missing or cannot run.
instructions() {
  command -v valgrind >/dev/null || return 0
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 | sed -n 's/.*Collected : *\([0-9]*\).*/\1/p' || true
}
same_placement_gate() {
  local same none copy measured state=ok
  same=$(instructions "$build/bench/bench_redistribute" --count same)
  none=$(instructions "$build/bench/bench_redistribute" --count none)
  copy=$(instructions "$build/bench/bench_redistribute" --count copy)
  if [ -z "$same" ] || [ -z "$none" ] || [ -z "$copy" ]; then
    printf '# thread:same-placement: skipped, valgrind is missing or does not run here\n'
    return 0
  fi
  measured=$(((same - none + 10000) / 20000))
  if [ "$measured" -gt 20 ]; then state=over; fi
  printf 'GATE thread:same-placement %s 20 %s\n' "$measured" "$state"
  printf '# the call alone, its result not let go; a copied handle: %s instructions\n' "$(((copy - none + 10000) / 20000))"
  [ "$state" = ok ]
}

has_component() { grep -q "components:.*[ ;]$1\(;\|$\)" "$build/build.log"; }  # has_component gloo|mpi
# What needs a network library, as 4 processes: over shared memory, and over messages alone.
process_gates() {
  local status=0 backend net
  for backend in gloo mpi; do
    net=tcp
    if [ "$backend" = mpi ]; then net=net; fi
    if ! has_component "$backend"; then
      printf '# %s-shm, %s-%s: skipped, this build has no shardwise::%s (scripts/setup.sh %s installs what it needs)\n' \
        "$backend" "$backend" "$net" "$backend" "$backend"
      continue
    fi
    for memory in 1 0; do
      # The later, the less time for what is over.
      SHARDWISE_SHARED_MEMORY=$memory scripts/launch.sh -n 4 --no-prefix --backend "$backend" \
        "$build/bench/bench_redistribute" --backend "$backend" --gates \
        --within "$((SECONDS - began < 45 ? (55 - SECONDS + began) / 3 : 3))" || status=1
    done
  done
  return "$status"
}
# The same moves by PyTorch's DTensor over Gloo, where SHARDWISE_TORCH_PYTHON names a Python that has it: no gates.
torch_lines() {
  if [ -z "${SHARDWISE_TORCH_PYTHON:-}" ]; then
    printf "PyTorch's DTensor is left out: SHARDWISE_TORCH_PYTHON names no Python that has it\n"
    return 0
  fi
  local side
  for side in 4096 32; do
    "$SHARDWISE_TORCH_PYTHON" bench/peers/torch_redistribute.py "$side" "$side" float 5 4 | python3 -c '
import json, sys
for text in sys.stdin:
    line = json.loads(text)
    print("PyTorch, %s x %s, %-16s %8.1f of a copy by its processes, %8.2f ms" %
          (sys.argv[1], sys.argv[1], line["transition"], line["ratio"], line["time_s"] * 1e3))' "$side" ||
      printf 'PyTorch failed\n'
  done
}
start_times() {
  local ranks memory
  printf 'From the start of the launcher to the end of the first collective (aims: 0.3 s for 4 local ranks, 2 s for 32)\n'
  for ranks in 4 32; do
    for memory in 1 0; do
      if [ "$memory" = 0 ] && ! has_component gloo; then continue; fi
      SHARDWISE_SHARED_MEMORY=$memory SHARDWISE_BENCH_START=$(date +%s%N) \
        scripts/launch.sh -n "$ranks" --no-prefix "$build/bench/bench_start"
    done
  done
}

scripts/setup.sh build
if [ "$task" = gates ]; then
  scripts/setup.sh bench || printf 'bench: going on without\n' >&2
  build_target bench_redistribute bench_start
  status=0
  began=$SECONDS
  "$build/bench/bench_redistribute" --gates --within 25 || status=1
  same_placement_gate || status=1
  process_gates || status=1
  { start_times && torch_lines; } | sed 's/^/# /' || status=1
  exit "$status"
fi
if [ "$task" = start ]; then
  build_target bench_start
  start_times
  exit
fi
if [ "$task" = switch ]; then
  scripts/setup.sh gloo
  build_target bench_switch
  for ranks in 3 4 8 16 32; do scripts/launch.sh -n "$ranks" --no-prefix "$build/bench/bench_switch"; done
  exit
fi
if [ "$task" = peers ]; then
  scripts/setup.sh peers || printf 'bench: going on with the peers that are here\n' >&2
  if [ -z "${SHARDWISE_TORCH_PYTHON:-}" ]; then
    venv=$build/peers/torch
    printf 'bench: PyTorch stands beside in a virtual environment, %s\n' "$venv" >&2
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import torch' 2>/dev/null; then
      SHARDWISE_TORCH_PYTHON=$venv/bin/python
    elif python3 -m venv "$venv" && "$venv/bin/python" -m pip --quiet install torch numpy; then
      SHARDWISE_TORCH_PYTHON=$venv/bin/python
    else
      printf 'bench: PyTorch could not be installed and is left out; SHARDWISE_TORCH_PYTHON names a Python that has it\n' >&2
    fi
  fi
  build_target bench_redistribute
  exec python3 bench/peers/table.py --ours "$build/bench/bench_redistribute" --build "$build/peers" \
    --torch "${SHARDWISE_TORCH_PYTHON:-}"
fi
if [ "$task" = growth ]; then
  build_target bench_redistribute
  exec python3 bench/redistribute/growth.py "$build/bench/bench_redistribute"
fi

build_target all
printf 'cores: %s, load before: %s\n' "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null || echo unknown)"

"$build/bench/bench_step"
"$build/bench/bench_step" large
if [ -n "${SHARDWISE_TORCH_PYTHON:-}" ]; then
  python3 bench/peers/mlp_pairs.py "$build/bench/bench_step" "$SHARDWISE_TORCH_PYTHON"
else
  printf 'PyTorch is left out: SHARDWISE_TORCH_PYTHON names no Python that has it\n'
fi

"$build/bench/bench_dispatch"
same=$(instructions "$build/bench/bench_dispatch" same) copy=$(instructions "$build/bench/bench_dispatch" copy)
if [ -n "$same" ] && [ -n "$copy" ]; then
  printf '%-58s %10s  %-16s %-8s\n' 'instructions of such a redistribute beyond the copy' "$(((same - copy) / 20000))" '' 0
fi

if [ -x "$build/bench/bench_parallelize_api" ]; then
  printf '\nThe seed suite, PA-1 to PA-16, as a process\n'
  for _ in 1 2 3; do
    start=$(date +%s%N)
    "$build/bench/bench_parallelize_api" >/dev/null
    printf '%-58s %7s ms  %-16s %-8s\n' 'wall time' "$((($(date +%s%N) - start) / 1000000))" '' '1000 ms'
  done
fi

printf '\n'
"$build/bench/bench_redistribute"
if has_component gloo; then
  for memory in 1 0; do
    SHARDWISE_SHARED_MEMORY=$memory scripts/launch.sh -n 4 --no-prefix "$build/bench/bench_redistribute" --backend gloo
  done
fi
began=$SECONDS
"$build/bench/bench_redistribute" --gates || true
same_placement_gate || true
process_gates || true
printf '\n'
start_times
printf '\n'
"$build/bench/bench_redistribute_async"
scripts/launch.sh -n 4 --no-prefix "$build/bench/bench_redistribute_async"
python3 bench/compile/times.py
