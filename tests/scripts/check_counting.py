#!/usr/bin/env python3
"""scripts/count_tests.py against a real ctest run of tests that end in every way."""
import pathlib
import re
import subprocess
import sys
import tempfile

COUNT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "count_tests.py"
SUMMARY = "[doctest] test cases: 4 | {} passed | {} failed | {} skipped"
TESTS = [  # name, shell command, passed, failed, skipped
    ("good", "true", 1, 0, 0),
    ("bad", "echo message; exit 3", 0, 1, 0),
    ("crash", "kill -SEGV $$$$", 0, 1, 0),
    ("slow", "exec sleep 600", 0, 1, 0),
    ("absent", None, 0, 1, 0),
    ("tool_missing", "echo SKIPPED: no meson; exit 77", 0, 0, 1),
    ("cases", "echo '" + SUMMARY.format(4, 0, 1) + "'", 4, 0, 1),
    ("bad_cases", "echo '" + SUMMARY.format(2, 2, 0) + "'; exit 1", 2, 2, 0),
    ("no_hardware", "echo SKIPPED: no CUDA device; echo '" + SUMMARY.format(4, 0, 0) + "'", 3, 0, 1),
    ("crash_at_exit", "echo '" + SUMMARY.format(4, 0, 0) + "'; kill -SEGV $$$$", 4, 1, 0),
    ("processes", "; ".join(f"echo [{r}] SKIPPED: small; echo [{r}] '" + SUMMARY.format(3, 0, 0) + "'" for r in (0, 1)),
     2, 0, 1),
    ("suite", "echo '" + SUMMARY.format(3, 0, 7) + "' $0\" \"-ts=*ranks", 3, 0, 0),
    ("script", "echo 7 passed, 0 failed, 2 skipped", 7, 0, 2),
    ("bad_script", "echo 7 passed, 1 failed, 2 skipped; exit 1", 7, 1, 2),
]


def counted(names, folder):
    """What count_tests.py says of a run of these tests, and its status."""
    lines = ["cmake_minimum_required(VERSION 3.24)", "project(counted LANGUAGES NONE)", "enable_testing()"]
    for name, command, *_ in names:
        program = f'sh -c "{command}"' if command else '"${CMAKE_BINARY_DIR}/absent"'
        limit = 1 if name == "slow" else 300  # the others end by themselves, on a busy machine too
        lines += [f"add_test(NAME {name} COMMAND {program})",
                  f"set_tests_properties({name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT {limit})"]
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text("\n".join(lines).replace("$$$$", "\\$\\$"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["cmake", "-S", folder, "-B", folder / "build"], check=True, **quiet)
    subprocess.run(["ctest", "--test-dir", folder / "build", "-j2"], **quiet)
    log = folder / "build" / "Testing" / "Temporary" / "LastTest.log"
    done = subprocess.run([sys.executable, COUNT, log], text=True, stdout=subprocess.PIPE)
    return tuple(map(int, re.findall(r"\d+", done.stdout))), done.returncode


def main():
    good = [test for test in TESTS if test[3] == 0]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (tests, status) in enumerate([(TESTS, 1), (good, 0), ([], 1)]):
            expected = tuple(sum(test[column] for test in tests) for column in (2, 3, 4))
            got = counted(tests, pathlib.Path(folder) / str(number))
            if got != (expected, status):
                failures += 1
                print(f"run {number}: expected {(expected, status)}, got {got}")
    print(f"{3 - failures} passed, {failures} failed, 0 skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
