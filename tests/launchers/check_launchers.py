#!/usr/bin/env python3
"""The same test program under every launcher that is here.

check_launchers.py LAUNCHER --passing PROGRAM --failing PROGRAM [--launch FILE]

LAUNCHER: plain (processes that are told their ranks), launch (scripts/launch.sh), mpirun, mpirun.openmpi, mpirun.mpich, srun,
torchrun, agent (what torchrun's agent sets, while somebody holds its port). PASSING's cases with ranks succeed. Of FAILING's one
fails on rank 2: every rank must say so and end badly. Ends with 77 where the launcher is not here.
"""
import argparse
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # the checkout stays as it is
import slurm  # noqa: E402

LIMIT = 600  # seconds: what hangs becomes a failure
ALONE = ["-ts=*ranks", "--no-colors"]
RANKS = 4


class Skip(Exception):
    pass


def need(tool, package):
    path = shutil.which(tool)
    if path is None:
        raise Skip(f"{tool} is not installed ({package})")
    return path


def run(command, env):
    done = subprocess.run([str(part) for part in command], env=env, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT)
    return done.stdout, [done.returncode]


def clean_environment():
    ours = re.compile(r"(SHARDWISE|OMPI|PMI|PMIX|MPI|SLURM|TORCHELASTIC)_|(RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR|MASTER_PORT)$")
    return {name: value for name, value in os.environ.items() if not ours.match(name)}


def start_each(program, of_rank):
    """Ranks without a launcher: their output together, and how each ended."""
    with contextlib.ExitStack() as stack:
        started = []
        for rank in range(RANKS):
            env = clean_environment() | {name: str(value) for name, value in of_rank(rank).items()}
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            started.append((output, subprocess.Popen([program, *ALONE], env=env, stdin=subprocess.DEVNULL, stdout=output,
                                                     stderr=output)))
        try:
            codes = [process.wait(LIMIT) for _, process in started]
        finally:
            for _, process in started:
                process.kill()
        for output, _ in started:
            output.seek(0)
        return "".join(output.read() for output, _ in started), codes


# ---- launchers: each gives program -> (output, codes) -------------------------------------------------------------

def plain(options, stack):
    def start(program):
        name = f"local:plain-{os.getpid()}-{os.urandom(4).hex()}"
        return start_each(program, lambda rank: {"SHARDWISE_RANK": rank, "SHARDWISE_SIZE": RANKS, "SHARDWISE_ADDRESS": name})
    return start


def launch(options, stack):
    return lambda program: run([options.launch, "-n", RANKS, "--grace", 600, program, *ALONE], clean_environment())


def mpirun(options, stack):
    tool = need(options.launcher, "Debian: openmpi-bin or mpich")
    env = clean_environment() | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    version = subprocess.run([tool, "--version"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    flags = ["--oversubscribe"] if re.search("open.?mpi|openrte", version, re.I) else []
    return lambda program: run([tool, *flags, "-n", RANKS, program, *ALONE], env)


def srun(options, stack):
    obstacle = slurm.obstacle()
    if obstacle:
        raise Skip(obstacle)
    machine = stack.enter_context(slurm.Slurm(stack.enter_context(tempfile.TemporaryDirectory()), RANKS))
    env = clean_environment() | {name: machine.environment()[name] for name in ("SLURM_CONF", "PATH")}
    return lambda program: run(["srun", "-n", RANKS, "--kill-on-bad-exit=0", program, *ALONE], env)


def torchrun(options, stack):
    tool = need("torchrun", "it comes with PyTorch")
    return lambda program: run([tool, "--no-python", "--nproc-per-node", RANKS, program, *ALONE], clean_environment())


def agent(options, stack):
    """As torchrun: its agent listens at the port itself, with another protocol, and the ranks meet at one of the next."""
    def start(program):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            port = held.getsockname()[1]
            return start_each(program, lambda rank: {
                "RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": RANKS, "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": f"run-{os.getpid()}-{port}", "TORCHELASTIC_RESTART_COUNT": 0,
                "TORCHELASTIC_USE_AGENT_STORE": "True"})
    return start


LAUNCHERS = {"plain": plain, "launch": launch, "mpirun": mpirun, "mpirun.openmpi": mpirun, "mpirun.mpich": mpirun, "srun": srun,
             "torchrun": torchrun, "agent": agent}


def check(options, start):
    failures = 0

    def expect(what, holds, output, codes):
        nonlocal failures
        if not holds:
            failures += 1
            print(f"{options.launcher}: {what}; codes {codes}\n{output[-4000:]}")

    output, codes = start(options.passing)
    expect("all pass", not any(codes), output, codes)
    expect("every rank says so", output.count("Status: SUCCESS!") == RANKS, output, codes)
    output, codes = start(options.failing)
    expect("all ranks end badly", all(codes), output, codes)
    ended = len(re.findall(r"Status: FAILURE!|passed here, failed on another rank", output))
    expect("the failing assertion names its rank, once", output.count("rank 2 of 4, a process") == 1, output, codes)
    # torchrun and mpirun end the others when the first has ended badly
    kills = options.launcher.startswith(("mpirun", "torchrun"))
    expect("all ranks know", ended >= 1 if kills else ended == RANKS, output, codes)
    print(f"{5 - failures} passed, {failures} failed, 0 skipped")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("launcher", choices=LAUNCHERS)
    parser.add_argument("--passing", required=True)
    parser.add_argument("--failing", required=True)
    parser.add_argument("--launch", default=pathlib.Path(__file__).resolve().parents[2] / "scripts" / "launch.sh")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        try:
            start = LAUNCHERS[options.launcher](options, stack)
        except Skip as reason:
            print(f"SKIPPED: {reason}")
            return 77
        return check(options, start)


if __name__ == "__main__":
    sys.exit(main())
