#!/usr/bin/env python3
"""What our headers make a compiler read: preprocessed lines of our own, and functions that a unit with nothing but the
header instantiates or defines. Both are counts, equal on every machine with the same compiler; growth of more than 3 %
over budget.json fails, so that it is changed in the same commit or not at all.

    budget.py [--compiler g++] [--include DIR] [--eigen DIR] [--update]

Status 77 (skipped) where the compiler is not the one that the budget names."""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
UNITS = {  # name: headers
    "base": ["base/dtype.hpp", "base/error.hpp", "base/name.hpp", "base/reflect.hpp", "base/buffer.hpp"],
    "placement": ["placement/placement.hpp", "placement/transition.hpp"],
    "mesh": ["mesh/device_mesh.hpp"],
    "plan": ["plan/plan.hpp"],
    "core": ["core.hpp"],
    "shardwise": ["shardwise.hpp"],
}
GROWTH = 1.03


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"budget: failed: {' '.join(command)}\n{done.stderr[:3000]}")
    return done.stdout


def preprocessed_lines(text, include):
    """Lines that are not blank, by the file they come from: ours, and all."""
    ours = total = 0
    mine = False
    for line in text.splitlines():
        marker = re.match(r'# \d+ "([^"]*)"', line)
        if marker:
            mine = marker.group(1).startswith(include)
        elif line.strip():
            total += 1
            ours += mine
    return ours, total


def measure(args, name, folder):
    source = folder / f"{name}.cpp"
    source.write_text("".join(f"#include <shardwise/{header}>\n" for header in UNITS[name]))
    command = [args.compiler, "-std=c++20", "-I", args.include, str(source)]
    if args.eigen:
        command[2:2] = ["-isystem", args.eigen]
    ours, total = preprocessed_lines(run(command + ["-E"]), args.include)
    # Every function that the front end gave a body, one heading each: templates only where they are instantiated.
    dump = folder / f"{name}.original"
    run(command + ["-S", "-O0", "-o", str(folder / f"{name}.s"), f"-fdump-tree-original={dump}"])
    functions = dump.read_text(errors="replace").count("\n;; Function ") if dump.exists() else 0
    return {"own_lines": ours, "all_lines": total, "functions": functions}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--include", default=str(HERE.parent.parent / "include"))
    parser.add_argument("--eigen", default="/usr/include/eigen3")
    parser.add_argument("--update", action="store_true", help="write budget.json")
    args = parser.parse_args()

    version = run([args.compiler, "--version"]).splitlines()[0]
    major = re.search(r"\b(\d+)\.\d+\.\d+", version)
    compiler = ("clang " if "clang" in version else "g++ ") + (major.group(1) if major else "?")
    path = HERE / "budget.json"
    budget = json.loads(path.read_text()) if path.exists() else {"compiler": compiler, "units": {}}
    if not args.update and budget["compiler"] != compiler:
        print(f"budget: counted with {budget['compiler']}, this is {compiler}: skipped")
        return 77

    failures = []
    measured = {}
    print(f"{'unit':12}{'own lines':>12}{'budget':>10}{'all lines':>12}{'budget':>10}{'functions':>12}{'budget':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name in UNITS:
            if name == "shardwise" and not args.eigen:
                continue
            now = measured[name] = measure(args, name, pathlib.Path(folder))
            allowed = budget["units"].get(name, {})
            row = f"{name:12}"
            for key in ("own_lines", "all_lines", "functions"):
                row += f"{now[key]:>12}{allowed.get(key, '-'):>10}"
                # The standard library's and Eigen's lines move with their versions: shown, not judged.
                if key != "all_lines" and now[key] > allowed.get(key, 0) * GROWTH:
                    failures.append(f"{name}: {key} grew from {allowed.get(key, 0)} to {now[key]}")
            print(row)
    if args.update:
        path.write_text(json.dumps({"compiler": compiler, "units": measured}, indent=2) + "\n")
        return 0
    for failure in failures:
        print(f"budget: {failure}, more than 3 %")
    if failures:
        print("budget: make it smaller, or run bench/compile/budget.py --update and commit budget.json with the change")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
