#!/usr/bin/env python3
"""scripts/gpu_check.sh without a GPU, and its steps and sums with programs that stand in for the compiler, the tests and the driver."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
PROGRAMS = {
    "cmake": """case $1 in
  --version) echo "cmake version 3.30.0" ;;
  --build) mkdir -p "$2/tests/simulated_cuda" "$2/bench" "$2/examples"
    for p in tests/launched_ranks tests/simulated_cuda/test_cuda bench/bench_redistribute examples/names_nccl; do
      cp "$0.$(basename $p)" "$2/$p"
    done ;;
  *) echo "-- shardwise: components: core;cuda$NCCL_FOR_TEST" ;;
esac""",
    "cmake.test_cuda": "exit 4",
    "compute-sanitizer": "[ \"$2\" = memcheck ] || exit 124",
    "cmake.launched_ranks": "echo good; [ -n \"$SHARDWISE_RANK\" ] && [ \"$SHARDWISE_SIZE\" = 2 ]",
    "cmake.bench_redistribute": "echo 'skipped: one CUDA device'; exit 77",
    "cmake.names_nccl": "echo the loss is NaN; exit 3",
    "ctest": "echo \"tested $4\"; exit 8",
    "nvcc": "exit 1",
}


def run(folder, devices, **environment):
    environment = {"NCCL_FOR_TEST": ";nccl"} | environment
    tools = folder / "tools"
    tools.mkdir()
    for name, body in ({"nvidia-smi": devices} | PROGRAMS).items():
        (tools / name).write_text("#!/bin/sh\n" + body + "\n")
        (tools / name).chmod(0o755)
    shutil.copytree(SCRIPTS, folder / "scripts")
    return subprocess.run([folder / "scripts" / "gpu_check.sh"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "CUDACXX": str(tools / "nvcc")} | environment)


def expect(output, words):
    if words not in output:
        sys.exit(f"expected '{words}' in:\n{output}")


def main():
    for devices, seen in (("echo 'No devices were found'; exit 6", {}), ("echo 'No devices were found'", {}),
                          ("echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9", {}),
                          ("echo A; echo B", {"CUDA_VISIBLE_DEVICES": ""})):
        with tempfile.TemporaryDirectory() as work:
            none = run(pathlib.Path(work), devices, **seen)
            expect(none.stdout, "skipped: no CUDA device: gpu_check.sh runs what needs an NVIDIA GPU")
            if none.returncode != 77:
                sys.exit(f"without a device: status {none.returncode}, not 77")
    with tempfile.TemporaryDirectory() as work:
        some = run(pathlib.Path(work), "echo 9.0; echo 9.0", NCCL_FOR_TEST="")
        for words in ("==== build: tests: status 0", "tested ^cuda$", "==== tests on the device: status 1", "skipped: no NCCL"):
            expect(some.stdout, words)
        if "launched processes" in some.stdout or not some.stdout.endswith("\n3 passed, 1 failed, 5 skipped\n"):
            sys.exit(f"without NCCL:\n{some.stdout}")
    with tempfile.TemporaryDirectory() as work:
        four = run(pathlib.Path(work), "for i in 1 2 3 4; do echo 9.0; done")
        expect(four.stdout, "tested ^(acceptance|random_programs)_cuda$\n")
    with tempfile.TemporaryDirectory() as work:
        one = run(pathlib.Path(work), "echo 9.0; echo 9.0", CUDA_VISIBLE_DEVICES="1")
        report = (pathlib.Path(work) / "build" / "gpu_check" / "report.txt").read_text()
        if one.stdout != report:
            sys.exit(f"the report is not what was printed:\n{report}\n----\n{one.stdout}")
        for words in ("==== configure: status 0", "==== build: tests: status 0",
                      "==== build: ranks, benchmark, demo: status 0", "==== tests on the device: status 1",
                      "[1] good", "==== launched processes as ranks: status 0", "==== benchmark: gates: status 77",
                      "the loss is NaN", "==== demo: status 3", "skipped: racecheck found nothing in 55 s",
                      "==== races in shared memory: status 77", "==== accesses: status 0"):
            expect(report, words)
        if not report.endswith("\n5 passed, 2 failed, 3 skipped\n") or one.returncode != 1:
            sys.exit(f"status {one.returncode}, and the report ends with:\n{report[-300:]}")
    print("gpu_check.sh: good")


if __name__ == "__main__":
    main()
