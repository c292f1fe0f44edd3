#!/usr/bin/env python3
"""Runs the tests of MPI under its launcher: 1 to 7 processes, with shared memory and without, as several hosts, and runs that fail.

run_mpi.py --program FILE --mpirun FILE
"""
import argparse
import os
import pathlib
import signal
import subprocess
import sys

LIMIT = 600  # seconds: what hangs becomes a failure
SIZES = (1, 2, 3, 4, 5, 7)


class Runs:
    def __init__(self, program, mpirun):
        self.program, self.mpirun, self.passed, self.failed = program, mpirun, 0, 0
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SHARDWISE_")}
        version = subprocess.run([mpirun, "--version"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        self.open_mpi = any(name in version.lower() for name in ("open mpi", "open-mpi", "openrte"))
        self.flags = ["--oversubscribe"] if self.open_mpi else []
        if self.open_mpi and os.geteuid() == 0:
            self.env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

    def run(self, command, **variables):
        """Its own session: what a run leaves behind is ended with it."""
        process = subprocess.Popen([str(part) for part in command], env=self.env | variables, text=True, errors="replace",
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            output, _ = process.communicate(timeout=LIMIT)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0] + f"\nhung for {LIMIT} s"

    def under_mpirun(self, ranks, *arguments, enter=(), **variables):
        return self.run([self.mpirun, *self.flags, "-n", ranks, *enter, self.program, "--no-colors", *arguments], **variables)

    def expect(self, what, good, output):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}\n{output[-4000:]}")


def check_cases(runs):
    for ranks in SIZES:
        for shared in "10":
            some = [] if ranks in (2, 4) else ["--test-case=*every communicator*,payloads*"]
            code, output = runs.under_mpirun(ranks, *some, SHARDWISE_SHARED_MEMORY=shared)
            runs.expect(f"{ranks} ranks, shared memory {shared}", code == 0 and output.count("SUCCESS") == ranks, output)


def check_hosts(runs):
    """Two ranks a host, as their variables say: where they meet goes round by MPI, and a token with it."""
    enter = ["sh", "-c", 'export SHARDWISE_HOST_ID=$((${OMPI_COMM_WORLD_RANK-$PMI_RANK} / 2)); exec "$@"', "sh"]
    code, output = runs.under_mpirun(4, enter=enter)
    runs.expect("two hosts of two", code == 0 and output.count("SUCCESS") == 4, output)


def check_ends(runs):
    """mpirun ends the other ranks itself, maybe before they can say why: but nothing hangs, and the run has failed."""
    for case in ("a rank is killed", "a rank is stopped", "a rank throws"):
        for shared in "10":
            code, output = runs.under_mpirun(4, "--no-skip", f"--test-case={case}", SHARDWISE_SHARED_MEMORY=shared,
                                             SHARDWISE_TIMEOUT_MS="2000")
            runs.expect(f"{case}, shared memory {shared}", code not in (0, None), output)
            if case == "a rank is stopped":
                runs.expect("who is stopped is named", "missing: rank 1" in output, output)


def check_other_launchers(runs):
    """As under another MPI's launcher: its variables are there, and MPI knows of no other rank."""
    name = "OMPI_COMM_WORLD_" if runs.open_mpi else "PMI_"
    code, output = runs.run([runs.program, "--no-colors", "--test-case=*every communicator*"],
                            **{name + "RANK": "0", name + "SIZE": "4"})
    runs.expect("a world of one under a launcher of four",
                code not in (0, None) and "rank 0 of 4, but MPI says that this is rank 0 of 1" in output, output)
    code, output = runs.run([runs.program, "--no-colors", "--test-case=*every communicator*"])
    runs.expect("no launcher", code not in (0, None) and "start it with mpirun" in output, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--mpirun", required=True)
    options = parser.parse_args()
    runs = Runs(options.program, options.mpirun)
    for check in (check_cases, check_hosts, check_ends, check_other_launchers):
        check(runs)
    print(f"{runs.passed} passed, {runs.failed} failed, 0 skipped")
    return 1 if runs.failed else 0


if __name__ == "__main__":
    sys.exit(main())
