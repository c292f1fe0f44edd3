#!/usr/bin/env python3
"""Checks the includes of every header against the table in docs/layers.md.

check_layers.py [ROOT]     ROOT is a checkout (default: the one this file lies in). `--self-test` shows on small
                           trees that each kind of violation is found.
Rejected: an include from a folder that the table does not list, an umbrella header included from a folder, a
third party outside its folder, a costly standard header, a header that does not exist, a cycle among files.
"""
import pathlib
import re
import sys
import tempfile

COSTLY = {"iostream", "functional", "regex", "format", "complex", "sstream"}
COSTLY_ALLOWED = ("backends/", "debug/", "io/")
THIRD_PARTY = [  # pattern of the include, folders that may use it
    (r"(unsupported/)?Eigen/", ("tensor", "redistribute", "ops", "nn", "parallel", "optim", "io", "debug")),
    (r"doctest/", ("testing",)),
    (r"gloo/", ("backends/gloo",)),
    (r"mpi\.h$", ("backends/mpi",)),
    (r"nccl\.h$", ("backends/nccl",)),
    (r"cu(da|blas|fft|rand|sparse)", ("cuda", "backends/nccl", "ops")),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*(<([^>]+)>|"([^"]+)")')


def read_table(text):
    """Folder -> the folders that it may include, itself among them."""
    allowed = {}
    above = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3 or not cells[0].startswith("`"):
            continue
        folders = []
        for name in re.findall(r"`([^`]+)/`", cells[0]):
            group = re.fullmatch(r"([^{]*)\{([^}]*)\}", name)
            folders += [group[1] + part for part in group[2].split(",")] if group else [name]
        rights = cells[2]
        if rights.startswith("all above"):
            but = re.search(r"but (.*)", rights)
            may = set(above) - set(re.findall(r"\w+", but[1]) if but else [])
        else:
            may = {word for word in re.findall(r"\w+", rights) if word in above}
        may |= set(re.findall(r"`(backends/\w+)/`", rights)) & set(allowed)
        for folder in folders:
            allowed[folder] = may | {folder}
        if "backends" not in rights and not cells[0].startswith("`backends"):
            above += folders
    backends = {folder for folder in allowed if folder.startswith("backends/")}
    if "testing" in allowed:
        allowed["testing"] |= backends
    return allowed


def folder_of(path, allowed):
    """The layer of include/shardwise/<path>: the longest folder of the table; "" for an umbrella header."""
    candidates = [f for f in allowed if path.startswith(f + "/") or path == f + ".hpp"]
    if candidates:
        return max(candidates, key=len)
    return "" if "/" not in path else None


def check(root):
    errors = []
    base = root / "include" / "shardwise"
    allowed = read_table((root / "docs" / "layers.md").read_text())
    graph = {}
    for file in sorted(p for p in base.rglob("*") if p.suffix in (".hpp", ".cuh")):
        path = file.relative_to(base).as_posix()
        graph[path] = []
        layer = folder_of(path, allowed)
        if layer is None:
            errors.append(f"{path}: its folder is not in the table of docs/layers.md")
            continue
        lines = file.read_text().splitlines()
        if file.suffix == ".hpp" and "#pragma once" not in lines:
            errors.append(f"{path}: no #pragma once")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            where = f"{path}:{number}"
            if match[3]:
                errors.append(f'{where}: "{match[3]}": headers are included as <shardwise/...>')
                continue
            name = match[2]
            if name.startswith("shardwise/"):
                target = name[len("shardwise/"):]
                graph[path].append(target)
                if not (base / target).exists():
                    errors.append(f"{where}: <{name}> does not exist")
                    continue
                other = folder_of(target, allowed)
                if layer == "" or (other and other in allowed[layer]):
                    continue
                if other == "":
                    errors.append(f"{where}: {layer}/ must not include the umbrella header <{name}>")
                else:
                    listed = ", ".join(sorted(allowed[layer] - {layer})) or "std only"
                    errors.append(f"{where}: {layer}/ must not include <{name}> (it may include: {listed})")
                continue
            if name in COSTLY and not path.startswith(COSTLY_ALLOWED):
                errors.append(f"{where}: <{name}> is too costly to parse for this folder")
            for pattern, folders in THIRD_PARTY:
                if re.match(pattern, name) and layer not in folders:
                    errors.append(f"{where}: {layer}/ must not include <{name}> (only: {', '.join(folders)})")
    return errors + cycles(graph), len(graph)


def cycles(graph):
    errors = []
    state = {}

    def visit(node, trail):
        state[node] = "open"
        for target in graph.get(node, []):
            if state.get(target) == "open":
                loop = trail[trail.index(target):] if target in trail else [node]
                errors.append("cycle: " + " -> ".join(loop + [target]))
            elif target not in state:
                visit(target, trail + [target])
        state[node] = "done"

    for node in graph:
        if node not in state:
            visit(node, [node])
    return errors


def self_test(table):
    """One small tree a rule; each must be found, and a correct tree must pass."""
    ok = "#pragma once\n"
    trees = [
        ({"base/a.hpp": ok, "placement/b.hpp": ok + "#include <shardwise/base/a.hpp>\n"}, None),
        ({"core.hpp": ok + "#include <shardwise/base/a.hpp>\n", "base/a.hpp": ok}, None),
        ({"base/a.hpp": ok + "#include <shardwise/placement/b.hpp>\n", "placement/b.hpp": ok}, "must not include"),
        ({"ops/a.hpp": ok + "#include <shardwise/plan/b.hpp>\n", "plan/b.hpp": ok}, "must not include"),
        ({"core.hpp": ok, "base/a.hpp": ok + "#include <shardwise/core.hpp>\n"}, "umbrella"),
        ({"base/a.hpp": ok + "#include <shardwise/base/b.hpp>\n",
          "base/b.hpp": ok + "#include <shardwise/base/a.hpp>\n"}, "cycle"),
        ({"base/a.hpp": ok + "#include <shardwise/base/b.hpp>\n"}, "does not exist"),
        ({"base/a.hpp": ok + "#include <iostream>\n"}, "too costly"),
        ({"mesh/a.hpp": ok + "#include <Eigen/Core>\n"}, "must not include"),
        ({"base/a.hpp": ok + '#include "b.hpp"\n'}, "included as"),
        ({"backends/gloo/a.hpp": ok + "#include <shardwise/backends/process/b.hpp>\n", "backends/process/b.hpp": ok}, None),
        ({"backends/thread/a.hpp": ok + "#include <shardwise/backends/process/b.hpp>\n",
          "backends/process/b.hpp": ok}, "must not include"),
        ({"other/a.hpp": ok}, "not in the table"),
        ({"base/a.hpp": "int x;\n"}, "pragma once"),
    ]
    failures = 0
    for files, expected in trees:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "docs" / "layers.md").write_text(table)
            for name, text in files.items():
                file = root / "include" / "shardwise" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            errors, _ = check(root)
            good = not errors if expected is None else any(expected in error for error in errors)
            if not good:
                failures += 1
                print(f"self-test: {sorted(files)}: expected {expected or 'no error'}, got {errors}")
    return failures, len(trees)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    arguments = [a for a in sys.argv[1:] if a != "--self-test"]
    if "--self-test" in sys.argv:
        failures, count = self_test((root / "docs" / "layers.md").read_text())
        print(f"{count - failures} passed, {failures} failed, 0 skipped")
        return 1 if failures else 0
    errors, count = check(pathlib.Path(arguments[0]).resolve() if arguments else root)
    for error in errors:
        print(error)
    print(f"{count} headers, {len(errors)} violations")
    return 1 if errors or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
