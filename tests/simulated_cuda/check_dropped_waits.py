#!/usr/bin/env python3
"""Runs test programs against the simulated CUDA runtime with every wait of a stream for an event dropped. Cases that need waits must
fail: else the simulation would not notice a wait that is missing.

check_dropped_waits.py PROGRAM [ACCEPTANCE]

ACCEPTANCE: the programs of tests/acceptance, which read results on a stream of its own.
"""
import os
import re
import subprocess
import sys

CASES = ["a stream that waits for another one reads what it wrote", "an event holds its point, wherever its stream goes on to",
         "memory goes back when the other streams that use it have come so far"]
EIGEN_CASES = ["an operator on another stream that waits reads what is there, and its operand may go"]
ACCEPTANCE_CASES = ["PA-1 column-wise twice", "PA-11 wildcards in the middle of a path", "PA-12 the root and its children"]
NCCL_CASES = ["a part stays until the current stream has moved it, wherever it was made"]


def run(program, case, **environment):
    result = subprocess.run([program, f"--test-case={case.replace(',', '*')}", "--no-colors"], capture_output=True, text=True,
                            env={**os.environ, **environment}, timeout=600)
    counts = re.search(r"test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed", result.stdout)
    return tuple(map(int, counts.groups())) if counts else (0, 0)


def main():
    passed = failed = 0
    listed = subprocess.run([sys.argv[1], "--list-test-cases"], capture_output=True, text=True, timeout=600).stdout
    with_nccl = "GPUs do what every communicator does" in listed
    with_eigen = "products of tensors on a device are the host's" in listed
    cases = CASES + (EIGEN_CASES if with_eigen else []) + (NCCL_CASES if with_nccl else [])
    runs = [(sys.argv[1], case) for case in cases] + [(program, case) for program in sys.argv[2:] for case in ACCEPTANCE_CASES]
    for program, case in runs:
        if run(program, case) != (1, 0):
            print(f"with its waits, this does not pass: {case}")
            failed += 1
        # Again where a busy machine happened to do everything in order.
        elif not any(run(program, case, SHARDWISE_SIMULATION_DROP_WAITS="1") == (0, 1) for _ in range(20)):
            print(f"without its waits, this does not fail: {case}")
            failed += 1
        else:
            passed += 1
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
