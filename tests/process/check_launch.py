#!/usr/bin/env python3
"""scripts/launch.sh: what ranks are told, whole lines, signals, codes, and that nothing is left behind.

check_launch.py [--launch FILE]
"""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LIMIT = 300  # seconds: what hangs becomes a failure

# Short of cores, writes come in pieces: lines of any length must come out whole all the same.
CHATTY = """
import os, sys
letter = "abcd"[int(os.environ["SHARDWISE_RANK"])]
for i in range(60):
    for piece in (letter * 3000, letter * (i * 50), "\\n"):
        os.write(1 + i % 2, piece.encode())
"""
SIGNALLED = """
import os, signal, sys, time
def come(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    if number != signal.SIGUSR1: sys.exit(9)
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP): signal.signal(s, come)
print("ready", flush=True)
while True: time.sleep(0.05)
"""
# As Hydra does it, which is what mpirun is where MPICH is: its own variables, output copied in pieces.
MPIRUN = """#!/usr/bin/env bash
[ "$1" = --version ] && { echo 'HYDRA build details:'; exit 0; }
[ "$1" = -n ] || exit 99
n=$2; shift 2
for ((r = 0; r < n; ++r)); do PMI_RANK=$r PMI_SIZE=$n "$@" & pids[r]=$!; done
code=0
for p in "${pids[@]}"; do wait "$p" || code=$?; done
exit "$code"
"""


class Checks:
    def __init__(self, launch, folder):
        self.launch, self.folder, self.passed, self.failed = launch, folder, 0, 0

    def run(self, *arguments, **options):
        command = [self.launch, *map(str, arguments)]
        options.setdefault("stdin", subprocess.DEVNULL)
        if "input" in options:
            del options["stdin"]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT, **options)

    def expect(self, what, good, done):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"{what}: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def gone(self, what, ranks, done):
        """All ranks wrote a process id to a file, and none of these processes is there any more."""
        ids = [int(file.read_text()) for file in self.folder.glob("pid*")]
        for file in self.folder.glob("pid*"):
            file.unlink()
        end = time.monotonic() + LIMIT  # they are killed, and may need a while to notice
        while left := [i for i in ids if is_alive(i)]:
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        for i in left:
            os.kill(i, signal.SIGKILL)
        self.expect(f"{what}: nothing is left", len(ids) == ranks and not left, done)


def is_alive(process):
    try:
        return ") Z " not in pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:  # it has gone
        return False


def lines(text):
    return sorted(text.splitlines())


def check_ranks(checks):
    names = "RANK SIZE LOCAL_RANK LOCAL_SIZE BACKEND".split()
    show = "echo " + " ".join(f"${{SHARDWISE_{name}}}" for name in names)
    done = checks.run("-n", 3, "sh", "-c", show, env={**os.environ, "SHARDWISE_RANK": "7", "SHARDWISE_LOCAL_RANK": "9"})
    checks.expect("what ranks are told", done.returncode == 0
                  and lines(done.stdout) == [f"[{r}] {r} 3 {r} 3 gloo" for r in range(3)] and not done.stderr, done)
    meet = 'echo "$SHARDWISE_ADDRESS $SHARDWISE_RUN_ID"'
    said = [checks.run("--ranks=2", "--no-prefix", "--", "sh", "-c", meet) for _ in range(2)]
    places = [lines(done.stdout) for done in said]
    checks.expect("one place for all ranks, another for each run",
                  all(len(p) == 2 and p[0] == p[1] for p in places) and places[0] != places[1], said[0])
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SHARDWISE_")}
    token = 'echo "$SHARDWISE_ADDRESS ${#SHARDWISE_TOKEN}"'
    for address, length in (("127.0.0.1:4000", 0), ("[::1]:4000", 0), ("node7:4000", 32), ("local:x", 0)):
        done = checks.run("-n", 1, "--address", address, "sh", "-c", token, env=clean)
        checks.expect(f"a token for {address}", done.stdout == f"[0] {address} {length}\n", done)
    done = checks.run("-n", 3, "cat", input="to rank 0\n")
    checks.expect("standard input goes to rank 0", done.stdout == "[0] to rank 0\n" and done.returncode == 0, done)
    done = checks.run("-n", 2, "printf", "%s|", "two words", "", "*")
    checks.expect("arguments arrive as they are", lines(done.stdout) == ["[0] two words||*|", "[1] two words||*|"], done)


def check_lines(checks):
    done = checks.run("-n", 4, sys.executable, "-c", CHATTY)
    for stream, first in ((done.stdout, 0), (done.stderr, 1)):
        want = sorted(f"[{r}] " + "abcd"[r] * (3000 + i * 50) for r in range(4) for i in range(first, 60, 2))
        checks.expect("lines are whole", lines(stream) == want and stream.endswith("\n"), done)
        ours = [line for line in stream.splitlines() if line.startswith("[2] ")]
        checks.expect("a rank's lines keep their order", ours == sorted(ours, key=len), done)


def check_ends(checks):
    # Nobody ends before all ids are written, in one move each: a rank that is killed first would leave an empty file.
    files = f"{checks.folder}/pid"
    written = f'echo $! >{checks.folder}/new$SHARDWISE_RANK && mv {checks.folder}/new$SHARDWISE_RANK {files}$SHARDWISE_RANK; '
    wait = written.replace("$!", "$$") + f'until set -- {files}* && [ $# = $SHARDWISE_SIZE ]; do sleep 0.02; done; '
    done = checks.run("-n", 4, "--grace", 0, "sh", "-c", wait + "[ $SHARDWISE_RANK = 2 ] && exit 7; sleep 3000")
    checks.expect("the first failure's code", done.returncode == 7 and "rank 2 ended with code 7" in done.stderr, done)
    checks.gone("after a failure", 4, done)
    done = checks.run("-n", 3, "--grace", 0, "sh", "-c",
                      "trap '' TERM; " + wait + "[ $SHARDWISE_RANK = 1 ] && kill -KILL $$; while :; do sleep 1; done")
    checks.expect("a killed rank", done.returncode == 137 and "rank 1 was ended by signal KILL" in done.stderr, done)
    checks.gone("who ignores TERM is killed", 3, done)
    done = checks.run("-n", 3, "--grace", 300, "sh", "-c",
                      "[ $SHARDWISE_RANK = 0 ] && exit 3; sleep 0.3; echo my last words; exit 1")
    checks.expect("the others may say why they end", done.returncode == 3
                  and lines(done.stdout) == ["[1] my last words", "[2] my last words"], done)
    done = checks.run("-n", 2, "sh", "-c", "sleep 3000 & " + written)
    checks.expect("children do not hold it up", done.returncode == 0, done)
    checks.gone("children that ranks forgot", 2, done)
    done = checks.run("-n", 2, "sh", "-c", "exit 0")
    checks.expect("success is silent", done.returncode == 0 and not done.stdout and not done.stderr, done)


def check_signals(checks):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = subprocess.Popen([checks.launch, "-n", "2", "--grace", "300", sys.executable, "-c", SIGNALLED], text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2):
            process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        told = sorted(process.stdout.readline() for _ in range(2))
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT)
        done = subprocess.CompletedProcess([], process.returncode, "".join(told) + out, err)
        name = signal.Signals(number).name
        checks.expect(f"{name} is passed on", done.returncode == 9 and told == ["[0] got SIGUSR1\n", "[1] got SIGUSR1\n"]
                      and lines(out) == [f"[0] got {name}", f"[1] got {name}"], done)


def check_mpi(checks):
    tools = checks.folder / "tools"
    tools.mkdir()
    (tools / "mpirun").write_text(MPIRUN)
    (tools / "mpirun").chmod(0o755)
    ours = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    show = 'echo "${PMI_RANK-$OMPI_COMM_WORLD_RANK} $SHARDWISE_BACKEND ${SHARDWISE_RANK-unset}"; echo error >&2'
    for what, environment in [("a stand-in for mpirun", ours)] + [("mpirun", None)] * (shutil.which("mpirun") is not None):
        done = checks.run("-n", 3, "--backend", "mpi", "sh", "-c", show, env=environment)
        checks.expect(f"{what} starts the ranks", done.returncode == 0
                      and lines(done.stdout) == [f"[{r}] {r} mpi unset" for r in range(3)]
                      and [line for line in lines(done.stderr) if line.startswith("[")] == [f"[{r}] error" for r in range(3)], done)
        done = checks.run("-n", 2, "--backend", "mpi", "sh", "-c", "exit 5", env=environment)
        checks.expect(f"{what}: the code", done.returncode == 5, done)
    (tools / "mpirun").rename(tools / "another_mpirun")
    named = {**os.environ, "SHARDWISE_MPIRUN": str(tools / "another_mpirun")}
    done = checks.run("-n", 2, "--backend", "mpi", "sh", "-c", 'echo "$PMI_RANK"', env=named)
    checks.expect("the mpirun that is named", lines(done.stdout) == ["[0] 0", "[1] 1"], done)
    done = checks.run("-n", 2, "--backend", "mpi", "true", env={**os.environ, "SHARDWISE_MPIRUN": "/nowhere"})
    checks.expect("a named one that is none", done.returncode == 2 and "'/nowhere'" in done.stderr, done)
    bare = checks.folder / "bare"  # no mpirun at all
    bare.mkdir()
    for tool in ("bash", "env", "sh", "od", "tr", "id", "grep"):
        (bare / tool).symlink_to(shutil.which(tool))
    done = checks.run("-n", 2, "--backend", "mpi", "sh", "-c", "true", env={"PATH": str(bare)})
    checks.expect("no mpirun", done.returncode == 2 and "needs mpirun or mpiexec" in done.stderr, done)


def check_refusals(checks):
    for arguments, words in ((["-n"], "-n needs a value"), (["-n", "0", "true"], "-n is '0'"), (["-n", "x", "true"], "-n is 'x'"),
                             (["-n", "4097", "true"], "-n is '4097'"), (["true"], "-n RANKS is missing"),
                             (["-n", "2"], "no program"), (["-n", "2", "/nowhere"], "'/nowhere'"),
                             (["--rank", "2", "true"], "unknown flag '--rank'"),
                             (["-n", "2", "--backend", "ucx", "true"], "--backend is 'ucx', not gloo, mpi or nccl"),
                             (["-n", "2", "--address", "node7", "true"], "--address is 'node7'"),
                             (["-n", "2", "--grace=soon", "true"], "--grace is 'soon'")):
        done = checks.run(*arguments)
        said = done.stderr.startswith("launch.sh: ") and done.stderr.count("\n") == 1 and not done.stdout
        checks.expect(f"{arguments} is refused", done.returncode == 2 and said and words in done.stderr, done)
    done = checks.run("--help")
    flags = ("--ranks", "--backend", "--address", "--grace", "--no-prefix", "--help")
    checks.expect("--help", done.returncode == 0 and all(flag in done.stdout for flag in flags), done)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launch", default=pathlib.Path(__file__).resolve().parents[2] / "scripts" / "launch.sh")
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(str(parser.parse_args().launch), pathlib.Path(folder))
        for check in (check_ranks, check_lines, check_ends, check_signals, check_mpi, check_refusals):
            check(checks)
    print(f"{checks.passed} passed, {checks.failed} failed, 0 skipped")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
