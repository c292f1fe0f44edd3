#!/usr/bin/env python3
"""Lists headers and tests for Meson, which does not glob: one line each, `kind component path`.

list_sources.py headers    header core|eigen|doctest|gloo|mpi|cuda|nccl <path below include/>
list_sources.py kernels    exact|free <path below src/cuda/>   (exact: products and sums are not contracted)
list_sources.py tests      static|<layer> core|eigen|gloo|mpi <path below tests/> [ranks]   (with cases for ranks)
The sorting is that of cmake/ShardwiseHeaders.cmake and tests/CMakeLists.txt; a test compares the outcome.
"""
import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r"^\s*#\s*include\s*<((?:shardwise|Eigen|unsupported/Eigen)/[^>]+)>", re.M)
QUOTED = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)  # a header of the tests
NO_LAYER = {"acceptance", "consumers", "cuda", "data", "fail", "layers", "simulated_cuda"}  # CUDA: CMake only


@functools.lru_cache(None)
def includes(file):
    if not file.exists():
        return []
    text = file.read_text()
    return [ROOT / "include" / name for name in INCLUDE.findall(text)] + [ROOT / "tests" / name for name in QUOTED.findall(text)]


def reaches_eigen(file):
    queue, seen = [file], set()
    while queue:
        current = queue.pop()
        if current in seen:
            continue
        seen.add(current)
        for header in includes(current):
            if "Eigen" in header.relative_to(ROOT).parts[1:]:
                return True
            queue.append(header)
    return False


def headers():
    for file in sorted((ROOT / "include" / "shardwise").rglob("*.hpp")):
        path = file.relative_to(ROOT / "include").as_posix()
        if re.match(r"shardwise/(cuda|device)[/.]", path):
            yield "header", "cuda", path
        elif re.match(r"shardwise/backends/nccl[/.]", path):
            yield "header", "nccl", path
        elif path.startswith("shardwise/testing/"):
            yield "header", "doctest", path
        elif re.match(r"shardwise/backends/gloo[/.]", path):
            yield "header", "gloo", path
        elif re.match(r"shardwise/backends/mpi[/.]", path):
            yield "header", "mpi", path
        else:
            yield "header", "eigen" if reaches_eigen(file) else "core", path


def tests():
    for file in sorted((ROOT / "tests").rglob("*_test.cpp")):
        path = file.relative_to(ROOT / "tests").as_posix()
        layer = path.split("/")[0]
        if layer not in NO_LAYER:
            kind = "static" if path.endswith("_static_test.cpp") else layer
            with_ranks = re.search("^SHARDWISE_TEST_RANKS", file.read_text(), re.M)
            component = layer if layer in ("gloo", "mpi") else "eigen" if reaches_eigen(file) else "core"
            yield kind, component, path, *(["ranks"] if with_ranks else [])


def kernels():
    cmake = (ROOT / "cmake" / "ShardwiseCuda.cmake").read_text()
    units = lambda then: re.search(r"foreach\(unit ([\w ]+)\)\n[^\n]*" + then, cmake)[1].split()
    exact = units("-fmad=false")
    for unit in units("target_sources"):
        yield "exact" if unit in exact else "free", unit + ".cu"


if __name__ == "__main__":
    for line in {"headers": headers, "kernels": kernels, "tests": tests}[sys.argv[1]]():
        print(*line)
