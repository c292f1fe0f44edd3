#!/usr/bin/env bash
# Makes sure that what the named tasks need is installed: setup.sh [build] [test] [demo] [gloo] [mpi] [mpich] [bench] [peers] [slurm] [cuda] [gpu] [ci] (default: build).
# Says what is missing and why. Installs Debian packages as root or with a password-free sudo; without those rights
# it prints the names and stops with status 1. Changes nothing where nothing is missing.
set -euo pipefail

missing=()
# need <package> <why> <command that succeeds when it is there...>
need() {
  local package=$1 why=$2
  shift 2
  if ! "$@" >/dev/null 2>&1; then
    printf 'setup: %s is missing: %s\n' "$package" "$why"
    missing+=("$package")
  fi
}
have_compiler() {
  "${CXX:-g++}" -std=c++20 -fsyntax-only -x c++ - <<'END'
#if defined __clang__ ? __clang_major__ < 17 : __GNUC__ < 12
#error too old
#endif
#include <concepts>
END
}
at_least() {  # at_least <wanted> <found>
  [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}
have_cmake() { command -v cmake && at_least 3.24 "$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')"; }
any_file() {
  local file
  for file in "$@"; do
    if [ -e "$file" ]; then return 0; fi
  done
  return 1
}
have_tool() { command -v "$1" || any_file "/usr/sbin/$1" "/sbin/$1"; }
have_header() { echo "#include <$1>" | "${CXX:-g++}" -I/usr/include/eigen3 -fsyntax-only -x c++ -; }

need_gloo() {
  need libgloo-dev "ranks as processes over Gloo" \
    any_file /usr/share/cmake/Gloo/GlooConfig.cmake /usr/lib*/cmake/Gloo/GlooConfig.cmake
}

need_mpi() {  # Open MPI, which is the system's own where MPICH is installed too
  need libopenmpi-dev "ranks as processes over MPI" command -v mpicxx.openmpi
  need openmpi-bin "the launcher of processes over MPI" command -v mpirun.openmpi
}

need_slurm() {
  need slurmctld "the test under srun: the controller" have_tool slurmctld
  need slurmd "the test under srun: the node" have_tool slurmd
  need slurm-client "the test under srun" command -v srun
  need munge "the test under srun: its credentials" have_tool munged
}

for task in "${@:-build}"; do
  case $task in
    build)
      need g++ "a C++20 compiler: g++ 12 or newer" have_compiler
      need cmake "the build: CMake 3.24 or newer" have_cmake
      need ninja-build "the build" command -v ninja
      need libeigen3-dev "matrix products" have_header Eigen/Core
      ;;
    test)
      need python3 "tests that are scripts, and counting results" command -v python3
      need doctest-dev "the tests" have_header doctest/doctest.h
      need pkg-config "the test of the pkg-config files" command -v pkg-config
      need meson "the test of the Meson build" command -v meson
      need_gloo
      need_mpi
      ;;
    demo)
      need wamerican "the word list that the demo trains on" any_file /usr/share/dict/american-english /usr/share/dict/words
      ;;
    gloo) need_gloo ;;
    slurm) need_slurm ;;
    mpi) need_mpi ;;
    mpich)
      need libmpich-dev "ranks as processes over MPI, with MPICH" command -v mpicxx.mpich
      need mpich "MPICH's launcher" command -v mpirun.mpich
      ;;
    cuda)
      # Not a Debian package: nothing is installed, the status says that it is missing.
      if ! command -v "${CUDACXX:-nvcc}" >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
        printf 'setup: nvcc is missing: the CUDA toolkit (12.4 or newer) comes from NVIDIA; put nvcc on the PATH or name it in CUDACXX\n' >&2
        exit 1
      fi
      ;;
    gpu)  # what scripts/gpu_check.sh builds with, beside the toolkit
      need python3 "counting results" command -v python3
      need doctest-dev "the tests" have_header doctest/doctest.h
      ;;
    bench)
      need valgrind "the gate that counts instructions" command -v valgrind
      need_gloo
      need_mpi
      ;;
    peers)
      need python3 "the table of peers" command -v python3
      need_mpi
      need libscalapack-openmpi-dev "peers of redistribute: ScaLAPACK's pdgemr2d" any_file /usr/lib/*/libscalapack-openmpi.so
      need libfftw3-dev "peers of redistribute: FFTW" any_file /usr/include/fftw3.h
      need libfftw3-mpi-dev "peers of redistribute: FFTW's transpose" any_file /usr/include/fftw3-mpi.h
      ;;
    ci)
      need_slurm
      need iproute2 "the test over two network namespaces" have_tool ip
      need git "the list of files whose format is checked" command -v git
      need clang-19 "the sanitizer runs" command -v clang++-19
      need libclang-rt-19-dev "the sanitizers' run-time library" sh -c 'ls "$(clang++-19 -print-resource-dir)"/lib/*/*asan*.a'
      need llvm-19 "readable stacks in sanitizer reports" command -v llvm-symbolizer-19
      need libopenblas-dev "matrix products through a BLAS" any_file /usr/lib/*/libopenblas.so /usr/lib*/libopenblas.so
      need clang-format-19 "the format check" command -v clang-format-19
      ;;
    *)
      printf "setup: unknown task '%s' (known: build test demo gloo mpi mpich bench peers slurm cuda gpu ci)\n" "$task" >&2
      exit 2
      ;;
  esac
done

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  printf 'setup: there is no apt-get here; install what these Debian packages hold: %s\n' "${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  printf 'setup: no rights to install; run: sudo apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
  exit 1
fi
printf 'setup: installing %s\n' "${missing[*]}"
run_apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@" >/dev/null; }
run_apt update
run_apt install -y --no-install-recommends "${missing[@]}"
