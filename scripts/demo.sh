#!/usr/bin/env bash
# Builds examples/names and runs it: a language model of letters, trained on one device and tensor-parallel on several
# ranks. Arguments go to the program (`demo.sh --help`). `--backend thread|gloo|mpi|nccl`: ranks are threads (the default),
# processes, or GPUs, as many as there are; without one it says so and ends with status 77. The build is quiet unless it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

backend=thread
program=names
component=''
ranks=''
arguments=()
while (($# > 0)); do
  case $1 in
    --backend | --ranks)
      if (($# < 2)); then
        printf 'demo: %s wants a value\n' "$1" >&2
        exit 2
      fi
      if [[ $1 == --backend ]]; then
        backend=$2
      else
        ranks=$2
        arguments+=("$1" "$2")
      fi
      shift
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
case $backend in
  thread) scripts/setup.sh build demo ;;
  gloo | mpi) scripts/setup.sh build demo "$backend" ;;
  nccl)
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true)
    if ((gpus == 0)); then
      printf 'skipped: no CUDA device: demo.sh --backend nccl needs an NVIDIA GPU for each rank, and nvidia-smi shows none here\n'
      exit 77
    fi
    ranks=${ranks:-$gpus}
    scripts/setup.sh build demo cuda
    program=names_nccl component=CUDA
    ;;
  *)
    printf "demo: there is no backend '%s' here; known: thread, gloo, mpi, nccl\n" "$backend" >&2
    exit 2
    ;;
esac
build=build/demo
log=$build/build.log
mkdir -p "$build"
options=(-D CMAKE_BUILD_TYPE=Release -D SHARDWISE_BUILD_TESTS=OFF -D SHARDWISE_BUILD_BENCH=OFF -D SHARDWISE_INSTALL=OFF)
if [[ $backend != thread ]]; then
  options+=(-D "SHARDWISE_${component:-${backend^^}}=ON")
fi
if command -v ccache >/dev/null; then
  options+=(-D CMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
printf 'demo: building examples/names\n' >&2
if ! { cmake -S . -B "$build" -G Ninja "${options[@]}" && cmake --build "$build" --target "$program"; } >"$log" 2>&1; then
  cat "$log" >&2
  printf 'demo: the build failed\n' >&2
  exit 1
fi
if [[ $backend != thread ]]; then
  exec scripts/launch.sh -n "${ranks:-4}" --backend "$backend" "$build/examples/$program" "${arguments[@]}"
fi
exec "$build/examples/$program" "${arguments[@]}"
