#!/usr/bin/env python3
"""scripts/setup.sh on machines where packages, rights or apt-get are missing; scripts/test.sh stops where it does. Nothing is installed."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
TEXT = (SCRIPTS / "setup.sh").read_text()
KNOWN = re.search(r"known: ([a-z ]+)", TEXT).group(1)
MPICH = {"mpicxx.mpich": "", "mpirun.mpich": ""}
ROOT, USER = {"id": "echo 0"}, {"id": "echo 1000"}
APT = {"apt-get": 'echo "apt-get $*" >> "$CALLED"'}
SUDO = {"sudo": '[ "$1" = -n ] || exit 1; shift; exec "$@"'}
SUDO_ASKS = {"sudo": "exit 1"}
WHY = ["setup: libmpich-dev is missing: ranks as processes over MPI, with MPICH", "setup: mpich is missing: MPICH's launcher"]
BY_HAND = ["setup: no rights to install; run: sudo apt-get install --no-install-recommends libmpich-dev mpich"]
OPTIONS = "apt-get -o DPkg::Lock::Timeout=120 "
INSTALLED = [OPTIONS + "update", OPTIONS + "install -y --no-install-recommends libmpich-dev mpich"]

CASES = [  # what it is, commands that the machine has, arguments, status, lines of the output, calls of apt-get
    ("nothing missing", {**USER, **MPICH}, ["mpich"], 0, [], []),
    ("no rights", {**USER, **APT}, ["mpich"], 1, WHY + BY_HAND, []),
    ("sudo asks for a password", {**USER, **APT, **SUDO_ASKS}, ["mpich"], 1, WHY + BY_HAND, []),
    ("root", {**ROOT, **APT}, ["mpich"], 0, WHY + ["setup: installing libmpich-dev mpich"], INSTALLED),
    ("sudo", {**USER, **APT, **SUDO}, ["mpich"], 0, WHY + ["setup: installing libmpich-dev mpich"], INSTALLED),
    ("one of two", {**USER, **APT, "mpicxx.mpich": ""}, ["mpich"], 1,
     [WHY[1], "setup: no rights to install; run: sudo apt-get install --no-install-recommends mpich"], []),
    ("no Debian", ROOT, ["mpich"], 1,
     WHY + ["setup: there is no apt-get here; install what these Debian packages hold: libmpich-dev mpich"], []),
    ("a server that fails", {**ROOT, "apt-get": APT["apt-get"] + "; exit 100"}, ["mpich"], 100,
     WHY + ["setup: installing libmpich-dev mpich"], INSTALLED[:1]),
    ("an old CMake", {**USER, **APT, "g++": "", "ninja": "", "cmake": "echo cmake version 3.18.4"}, [], 1,
     ["setup: cmake is missing: the build: CMake 3.24 or newer",
      "setup: no rights to install; run: sudo apt-get install --no-install-recommends cmake"], []),
    ("a compiler that is too old", {**USER, **APT, "g++": 'case "$*" in *-fsyntax-only*-std*|-std*) exit 1; esac', "ninja": "",
                                    "cmake": "echo cmake version 3.25.1"}, ["build"], 1,
     ["setup: g++ is missing: a C++20 compiler: g++ 12 or newer",
      "setup: no rights to install; run: sudo apt-get install --no-install-recommends g++"], []),
    ("an unknown task", USER, ["mpich", "tests"], 2,
     WHY + [f"setup: unknown task 'tests' (known: {KNOWN})"], []),
]


def outcome(commands, program, arguments):
    """Status, lines and calls of apt-get on a machine that has these commands and a few that every one has."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("bash", "cat", "dirname", "env", "head", "ls", "sed", "sh", "sort", "true"):
            (folder / name).symlink_to(shutil.which(name))
        for name, body in commands.items():
            (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
            (folder / name).chmod(0o755)
        called = folder / "called"
        done = subprocess.run([shutil.which("bash"), SCRIPTS / program, *arguments], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={"PATH": str(folder), "CALLED": str(called)})
        calls = called.read_text().splitlines() if called.exists() else []
        return done.returncode, done.stdout.splitlines(), calls


def main():
    failures = 0
    for name, commands, arguments, *expected in CASES:
        got = list(outcome(commands, "setup.sh", arguments))
        if got != expected:
            failures += 1
            print(f"{name}: expected {expected}, got {got}")
    # Not a word of a build: there is no cmake that could be called.
    status, lines, calls = outcome({**USER, **APT, "g++": ""}, "test.sh", [])
    first, last = (lines[0], lines[-1]) if lines else ("", "")
    if (status, calls) != (1, []) or not first.startswith("setup: cmake is missing") or not last.startswith("setup: no rights"):
        failures += 1
        print(f"test.sh: got {(status, lines, calls)}")
    tasks = sorted(re.findall(r"^    ([a-z]+)\)", TEXT, re.M))
    if sorted(KNOWN.split()) != tasks:
        failures += 1
        print(f"the tasks are {tasks}, said to be known are {KNOWN}")
    total = len(CASES) + 2
    print(f"{total - failures} passed, {failures} failed, 0 skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
