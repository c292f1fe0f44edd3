#!/usr/bin/env bash
# Runs on a machine with an NVIDIA GPU all that waits for one, from nothing in less than 8 minutes: the build for its architecture, every
# test that needs a device, launched processes as ranks (which share the device where there is only one), the benchmark with its gates, the
# demo. One report: gpu_check.sh [FILE] (default: build/gpu_check/report.txt), its last line `N passed, N failed, N skipped`.
# Without NCCL (its folder may be named in NCCL_HOME) the ranks are left out, and that is said. What has no package manager names the
# folders of CMake's packages Eigen3 and doctest in CMAKE_PREFIX_PATH.
# Status: 0 good; 1 something failed; 2 wrong arguments; 77 no CUDA device here, 78 no CUDA toolkit or no tools: nothing was run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
if (($# > 1)) || [[ ${1-} == -* ]]; then
  printf 'gpu_check: wants one file for the report at most\n' >&2
  exit 2
fi
build=build/gpu_check
report=${1:-$build/report.txt}

began=$SECONDS
limit=470  # seconds for everything
# Where the driver does not answer it says so in place of the list, with a status.
devices() { command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null; }
names=()
if found=$(devices name) && [[ -n $found && $found != 'No devices'* ]]; then mapfile -t names <<<"$found"; fi
count=${#names[@]}
# CUDA sees those that this names alone; nvidia-smi sees all.
if [[ -n ${CUDA_VISIBLE_DEVICES-} ]]; then
  seen=${CUDA_VISIBLE_DEVICES//[^,]/}
  if ((${#seen} + 1 < count)); then count=$((${#seen} + 1)); fi
elif [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
  count=0
fi
if ((count == 0)); then
  printf 'skipped: no CUDA device: gpu_check.sh runs what needs an NVIDIA GPU, and nvidia-smi shows none here\n'
  exit 77
fi
if ! scripts/setup.sh cuda; then
  printf 'skipped: no CUDA toolkit: there is a GPU (%s), but nothing can be built for it\n' "${names[0]}"
  exit 78
fi
if ! scripts/setup.sh build gpu; then
  printf 'skipped: tools are missing: there is a GPU (%s), but nothing can be built for it\n' "${names[0]}"
  exit 78
fi

passed=0 failed=0 skipped=0
mkdir -p "$build" "$(dirname "$report")"
: >"$report" || exit 1
tell() { # FORMAT ARGUMENTS...
  # shellcheck disable=SC2059
  printf "$@" | tee -a "$report"
}

# step <name> <seconds at most> <command...>: its output goes into the report. A last line `N passed, N failed, N skipped` is added to
# the sum; without one, the step counts as one; status 77 and `skipped: ` say that it was left out.
step() {
  local name=$1 most=$2 start=$SECONDS left=$((limit - SECONDS + began)) status=0 output last
  shift 2
  ((most < left)) || most=$left
  tell '\n==== %s\n' "$name"
  if ((most < 5)); then
    tell 'no time is left for it\n'
    failed=$((failed + 1))
    return 1
  fi
  output=$build/step.log
  timeout -k 5 "$most" bash -c '"$@"' step "$@" >"$output" 2>&1 || status=$?
  tee -a "$report" <"$output"
  last=$(tail -n 1 "$output")
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
    if ((status != 0 && BASH_REMATCH[2] == 0)); then failed=$((failed + 1)); fi
  elif ((status == 0)); then
    passed=$((passed + 1))
  elif ((status == 77)); then
    skipped=$((skipped + 1))
  else
    failed=$((failed + 1))
  fi
  if ((status == 124)); then tell 'did not end within %d s\n' "$most"; fi
  tell '==== %s: status %d, %d s\n' "$name" "$status" $((SECONDS - start))
  return "$status"
}

configure() {
  local architecture
  architecture=$(devices compute_cap | sort -Vu | tr -d . | paste -sd ';')
  cmake -S . -B "$build" -G Ninja -D CMAKE_BUILD_TYPE=Release -D SHARDWISE_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$architecture" \
    -D SHARDWISE_DOCTEST=ON -D SHARDWISE_GLOO=OFF -D SHARDWISE_MPI=OFF -D SHARDWISE_TEST_LAYERS=cuda \
    -D SHARDWISE_TEST_PROJECTS=OFF -D SHARDWISE_INSTALL=OFF -D SHARDWISE_BUILD_BENCH=ON -D SHARDWISE_BUILD_EXAMPLES=ON
}
tests() { # NAME: as a regular expression; of what is built
  local log=$build/Testing/Temporary/LastTest.log status=0
  rm -f "$log"
  ctest --test-dir "$build" -R "$1" --output-on-failure || status=$?
  python3 scripts/count_tests.py "$log" || status=1
  return "$status"
}
# Ranks on devices of their own, or two that share one.
launched() { scripts/launch.sh -n $((count > 1 ? count : 2)) --backend nccl "$build/tests/launched_ranks"; }
bench() { scripts/launch.sh -n "$count" --backend nccl --no-prefix "$build/bench/bench_redistribute" --backend nccl "$@"; }
# Under NVIDIA's checker, where it is there, as far as a minute takes it: threads of a team that race for shared memory, and accesses
# beyond what was allocated, which no result need show.
sanitized() { # TOOL CASES
  local tool=$1 cases=$2 status=0
  if ! command -v compute-sanitizer >/dev/null && [[ ! -x /usr/local/cuda/bin/compute-sanitizer ]]; then
    printf 'skipped: compute-sanitizer is not here: a part of the CUDA toolkit\n'
    return 77
  fi
  PATH=$PATH:/usr/local/cuda/bin timeout 55 compute-sanitizer --tool "$tool" --error-exitcode 9 \
    "$build/tests/simulated_cuda/test_cuda" --test-case="$cases" || status=$?
  if ((status == 124)); then
    printf 'skipped: %s found nothing in 55 s, and was not done\n' "$tool"
    return 77
  fi
  return "$status"
}
demo() { scripts/launch.sh -n "$count" --backend nccl --no-prefix "$build/examples/names_nccl"; }
export -f devices configure tests launched bench sanitized demo
export build count

tell 'gpu_check of shardwise %s, %s\n' "$(git rev-parse --short HEAD 2>/dev/null || echo 'without git')" "$(date -u +%Y-%m-%d)"
tell '%s\n' "${names[@]}"
devices driver_version | head -n 1 | sed 's/^/driver /' | tee -a "$report"
# The tests first: where the machine is slow, at least they have run.
nccl=no on_four=()
if ((count >= 4)); then on_four=(acceptance_cuda random_programs_cuda); fi
if step 'configure' 60 configure; then
  if grep -q 'components:.*nccl' "$build/step.log"; then nccl=yes; fi
  if step 'build: tests' 240 cmake --build "$build" --target test_cuda; then
    step 'tests on the device' 100 tests '^cuda$'
  fi
  if [[ $nccl == no ]]; then
    tell '\nskipped: no NCCL: ranks, benchmark and demo are left out; name its folder in NCCL_HOME\n'
    skipped=$((skipped + 4))
  elif step 'build: ranks, benchmark, demo' 240 cmake --build "$build" --target launched_ranks bench_redistribute names_nccl \
    "${on_four[@]}"; then
    step 'launched processes as ranks' 90 launched
    step 'benchmark: gates' 60 bench --gates
    step 'benchmark: every transition' 60 bench --size 4K:64M:128 --repeat 5
    step 'demo' 60 demo
    if ((count >= 4)); then step 'acceptance and random programs' 100 tests '^(acceptance|random_programs)_cuda$'; fi
  fi
  if [[ -x $build/tests/simulated_cuda/test_cuda ]]; then
    step 'races in shared memory' 60 sanitized racecheck '*softmax*,*norm*,*cross entropy*,*sums*,*transpose*'
    step 'accesses' 60 sanitized memcheck '*'
  fi
fi
tell '\n%d s\n' $((SECONDS - began))
tell '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
printf 'report: %s\n' "$report" >&2
((failed == 0 && passed > 0))
