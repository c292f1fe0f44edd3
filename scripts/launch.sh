#!/usr/bin/env bash
# Starts a program on this machine as several processes, one a rank.
set -uo pipefail

usage() {
  cat <<'END'
launch.sh -n RANKS [OPTIONS] PROGRAM [ARGUMENTS...]

Starts PROGRAM as RANKS processes of this machine, rank 0 to RANKS - 1, that find each other. Each line of their output
is printed whole, with its rank before it. Signals (INT, TERM, HUP, QUIT, USR1, USR2) are passed on. When a rank fails
the others are ended, and launch.sh exits with the code of the first that failed.

  -n, --ranks RANKS    how many processes, 1 to 4096
  --backend BACKEND    gloo (default), mpi or nccl: mpi starts the ranks with mpirun or mpiexec, or what SHARDWISE_MPIRUN
                       names: that of the MPI which the program is linked with
  --address ADDRESS    where the ranks meet: HOST:PORT, [IPv6]:PORT or local:NAME (default: a fresh local name)
  --grace SECONDS      how long ranks may take to end by themselves after another failed (default 5)
  --no-prefix          print lines as they are, without the rank
  -h, --help           this text

Rank 0 reads standard input unless that is a terminal. SHARDWISE_TOKEN is made where the address is not this machine's
loopback and none is set. For ranks on several machines see docs/processes.md.
END
}

refuse() {
  printf 'launch.sh: %s (--help says more)\n' "$1" >&2
  exit 2
}

# ---- arguments ---------------------------------------------------------------------------------------------------
ranks='' backend=gloo address='' grace=5 prefix=yes
while [ $# -gt 0 ]; do
  flag=$1
  case $flag in
  --ranks=* | --backend=* | --address=* | --grace=*)
    value=${flag#*=} flag=${flag%%=*}
    shift
    ;;
  -n | --ranks | --backend | --address | --grace)
    [ $# -ge 2 ] || refuse "$flag needs a value"
    value=$2
    shift 2
    ;;
  -h | --help) usage && exit 0 ;;
  --no-prefix) prefix=no && shift && continue ;;
  --) shift && break ;;
  -*) refuse "unknown flag '$flag'" ;;
  *) break ;;
  esac
  case $flag in
  -n | --ranks)
    [[ $value =~ ^[1-9][0-9]{0,3}$ && $value -le 4096 ]] || refuse "$flag is '$value', not a whole number from 1 to 4096"
    ranks=$value
    ;;
  --backend)
    [[ $value == @(gloo|mpi|nccl) ]] || refuse "--backend is '$value', not gloo, mpi or nccl"
    backend=$value
    ;;
  --address)
    [[ $value =~ ^local:.+$ || $value =~ ^[^:]+:[0-9]+$ || $value =~ ^\[.+\]:[0-9]+$ ]] ||
      refuse "--address is '$value', not HOST:PORT, [IPv6]:PORT or local:NAME"
    address=$value
    ;;
  --grace)
    [[ $value =~ ^[0-9]{1,5}$ ]] || refuse "--grace is '$value', not a whole number of seconds"
    grace=$value
    ;;
  esac
done
[ -n "$ranks" ] || refuse 'how many ranks? -n RANKS is missing'
[ $# -gt 0 ] || refuse 'no program to start'
command -v -- "$1" >/dev/null || refuse "'$1' is no program that can be started"

random_letters() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

{ : <&0; } 2>/dev/null || exec </dev/null # closed
run_id=launch-$(random_letters)
[ -n "$address" ] || address=local:$run_id
case $address in
local:* | localhost:* | 127.* | '[::1]:'*) ;;
*)
  if [ -z "${SHARDWISE_TOKEN-}${SHARDWISE_TOKEN_FILE-}" ]; then
    SHARDWISE_TOKEN=$(random_letters)
    export SHARDWISE_TOKEN
  fi
  ;;
esac
export SHARDWISE_RUN_ID=$run_id SHARDWISE_ADDRESS=$address SHARDWISE_BACKEND=$backend
unset SHARDWISE_RANK SHARDWISE_SIZE SHARDWISE_LOCAL_RANK SHARDWISE_LOCAL_SIZE

say() { printf 'launch.sh: %s\n' "$1" >&2; }

# ---- output ------------------------------------------------------------------------------------------------------
# A pipe without a name: open_pipe READ WRITE sets two variables to its ends.
open_pipe() {
  local both to_read to_write
  exec {both}<> <(:)
  exec {to_read}<"/dev/fd/$both" {to_write}>"/dev/fd/$both" {both}>&-
  printf -v "$1" %d "$to_read"
  printf -v "$2" %d "$to_write"
}
close_all() {
  local fd
  for fd in "$@"; do exec {fd}>&-; done
}

# One byte in a pipe: who has it may print a line.
turn_in='' turn_out=''
open_pipe turn_in turn_out
printf x >&"$turn_out"

print_lines() { # PREFIX: standard input to standard output, line by line
  local line
  while IFS= read -r line || [ -n "$line" ]; do
    read -r -N 1 -u "$turn_in" _
    printf '%s%s\n' "$1" "$line"
    printf x >&"$turn_out"
  done
}

out=() err=() printers=() made=''
start_printer() { # PREFIX TO: `made` becomes the descriptor to write to
  local from
  open_pipe from made
  {
    trap '' INT TERM HUP QUIT USR1 USR2
    close_all "$made" "${out[@]}" "${err[@]}"
    LC_ALL=C print_lines "$1" <&"$from" >&"$2"
  } &
  printers+=($!)
  close_all "$from"
}
for ((r = 0; r < ranks; ++r)); do
  words=''
  [ "$prefix" = no ] || words="[$r] "
  start_printer "$words" 1 && out[r]=$made
  start_printer "$words" 2 && err[r]=$made
done

# ---- ranks -------------------------------------------------------------------------------------------------------
ended_in='' ended_out=''
open_pipe ended_in ended_out # lines "RANK CODE", in the order in which ranks end

# In a group of its own, so that a signal reaches all that a rank has started. The shell around it outlives signals, to say how
# the rank ended.
pids=() live=()
start() { # RANK OUT ERR COMMAND...
  local r=$1 to=$2 errors=$3
  shift 3
  set -m
  {
    set +m
    trap : INT TERM HUP QUIT USR1 USR2
    {
      (
        trap - INT TERM HUP QUIT USR1 USR2
        if [ "$r" != 0 ] || [ -t 0 ]; then exec </dev/null; fi
        exec >&"$to"
        exec 2>&"$errors"
        close_all "${out[@]}" "${err[@]}" "$turn_in" "$turn_out" "$ended_in" "$ended_out"
        exec -- "$@"
      )
    } 2>/dev/null
    printf '%d %d\n' "$r" $? >&"$ended_out"
  } <&0 &
  pids[r]=$!
  live[r]=1
  disown # its end is told by itself, not by the shell
  set +m
}

signal_all() { # SIGNAL
  local r
  for r in "${!live[@]}"; do kill -s "$1" -- "-${pids[r]}" 2>/dev/null; done
}

code=0 limit='' stage=TERM
give_time() { # the rest may end by itself until then
  [ -n "$limit" ] || limit=$((SECONDS + grace))
}
rank_ended() { # RANK CODE
  [ -n "${live[$1]-}" ] || return 0
  unset "live[$1]"
  [ "$2" -ne 0 ] || return 0
  if [ "$code" -eq 0 ]; then
    code=$2
    local how="ended with code $2"
    if [ "$2" -gt 128 ] && [ "$2" -le 192 ]; then how="was ended by signal $(kill -l $(($2 - 128)))"; fi
    if [ "$backend" = mpi ]; then say "mpirun $how"; else say "rank $1 $how"; fi
  fi
  give_time
}

trap 'signal_all INT; give_time' INT
trap 'signal_all TERM; give_time' TERM
trap 'signal_all HUP; give_time' HUP
trap 'signal_all QUIT; give_time' QUIT
trap 'signal_all USR1' USR1
trap 'signal_all USR2' USR2

start_local() {
  local r
  export SHARDWISE_SIZE=$ranks SHARDWISE_LOCAL_SIZE=$ranks
  for ((r = 0; r < ranks; ++r)); do
    SHARDWISE_RANK=$r SHARDWISE_LOCAL_RANK=$r start "$r" "${out[r]}" "${err[r]}" "$@"
  done
}

# mpirun copies its ranks' output as it comes; each rank rather writes to this shell's descriptors itself.
start_mpi() {
  local mpirun flags=()
  if [ -n "${SHARDWISE_MPIRUN-}" ]; then
    mpirun=$(command -v -- "$SHARDWISE_MPIRUN") || refuse "SHARDWISE_MPIRUN is '$SHARDWISE_MPIRUN', which is no program"
  else
    mpirun=$(command -v mpirun || command -v mpiexec) ||
      refuse '--backend mpi needs mpirun or mpiexec (Debian: openmpi-bin or mpich)'
  fi
  if "$mpirun" --version 2>&1 | grep -qi 'open mpi\|open-mpi\|openrte'; then
    flags=(--oversubscribe)
    [ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  # shellcheck disable=SC2016  # expanded by the rank's shell
  local enter='launcher=$1 out=($2) err=($3) rank=${OMPI_COMM_WORLD_RANK-${PMI_RANK-0}}
    shift 3
    exec >"/proc/$launcher/fd/${out[rank]}" 2>"/proc/$launcher/fd/${err[rank]}"
    exec -- "$@"'
  start 0 1 2 "$mpirun" "${flags[@]}" -n "$ranks" "$BASH" -c "$enter" rank $$ "${out[*]}" "${err[*]}" "$@"
}

if [ "$backend" = mpi ]; then
  start_mpi "$@"
else
  start_local "$@"
  close_all "${out[@]}" "${err[@]}"
fi

# A wait that is over in the middle of a line keeps its beginning. A shell that is gone has written its line before: one that
# is still gone when nothing more comes was killed, and cannot say so.
half='' gone=()
while [ "${#live[@]}" -gt 0 ]; do
  if IFS= read -r -t 0.2 -u "$ended_in" line; then
    read -r rank status <<<"$half$line"
    half=''
    rank_ended "$rank" "$status"
  else
    half+=$line
    for r in "${!live[@]}"; do
      if kill -0 "${pids[r]}" 2>/dev/null; then continue; fi
      if [ -n "${gone[r]-}" ]; then rank_ended "$r" 137; fi
      gone[r]=1
    done
  fi
  if [ -n "$limit" ] && [ "$SECONDS" -ge "$limit" ]; then
    signal_all "$stage"
    stage=KILL limit=$((SECONDS + 2))
  fi
done

# What ranks have left behind, then the last lines.
for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null; done
[ "$backend" != mpi ] || close_all "${out[@]}" "${err[@]}"
for ((i = 0; i < 100; ++i)); do
  left=()
  for pid in "${printers[@]}"; do kill -0 "$pid" 2>/dev/null && left+=("$pid"); done
  [ "${#left[@]}" -gt 0 ] || break
  read -r -t 0.02 -u "$ended_in" _
done
[ "${#left[@]}" -eq 0 ] || kill -KILL "${left[@]}" 2>/dev/null
exit "$code"
