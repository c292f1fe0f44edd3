#!/usr/bin/env python3
"""Compile-fail tests: what must not compile does not, says the right thing, and its twin compiles.

run_fail_tests.py --compiler g++ --include DIR [--eigen DIR] [--jobs 2] [--self-test] [--show] [FILE...]

A case is a file in this folder:
    // expect-error: <regex>            every one must match the compiler's output, the first one its first error
    // expect-error(clang): <regex>     only for that compiler (g++ or clang)
    // needs: eigen                     skipped where there is no Eigen
    #if SHARDWISE_EXPECT_FAIL
      ...                               must fail, with at most 8 lines of output before the first note
    #else
      ...                               must compile with warnings as errors
    #endif
Lines are counted as a user reads them without source excerpts: the errors and the chain of "In instantiation of",
"required from", "required by" that g++ prints before them count; "In file included from" and its continuation
(which say where a header was included, not what is wrong), lines that only say "N errors generated", and all from
the first "note:" on do not.

All cases share one precompiled header of the whole library, made at the start (g++ 12: a case costs 0.45 s instead of
1.9 s); what a case itself includes is then there already. The twins of several cases are compiled as one unit, each in a
namespace of its own; where a unit fails, each of its twins is compiled by itself. `--no-precompiled` compiles each case and
each twin alone.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 8
TWINS = 16  # in a unit
EXPECT = re.compile(r"^\s*//\s*expect-error(?:\((g\+\+|clang)\))?:\s*(.+?)\s*$", re.M)
NEEDS = re.compile(r"^\s*//\s*needs:\s*(\w+)\s*$", re.M)
ERROR = re.compile(r"^[^\n]*\berror:.*$", re.M)
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDE = re.compile(r"^# *include .*$", re.M)
UNCOUNTED = re.compile(r"^(In file included from|\s+from |\d+ (errors?|warnings?)|compilation terminated|\s*$)")


def lines_before_notes(output):
    count = 0
    for line in output.splitlines():
        if re.search(r"\bnote:", line):
            break
        if not UNCOUNTED.match(line):
            count += 1
    return count


def execute(command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ | {"LC_ALL": "C"})
    return done.returncode, done.stderr + done.stdout


class Compiler:
    def __init__(self, options):
        version = subprocess.run([options.compiler, "--version"], capture_output=True, text=True, check=True).stdout
        self.name = "clang" if "clang" in version else "g++"
        caret = "-fno-caret-diagnostics" if self.name == "clang" else "-fno-diagnostics-show-caret"
        self.command = [options.compiler, "-std=c++20", "-fsyntax-only", "-fdiagnostics-color=never", caret]
        self.command += [f"-I{folder}" for folder in [*options.include, HERE.parent]]
        self.forgotten = []
        self.good_twins = set()
        self.eigen = options.eigen
        if options.eigen:
            self.command += ["-isystem", options.eigen]

    def precompile(self, folder):
        """Everything in one header, compiled once; without it the cases are compiled as they are."""
        header = pathlib.Path(folder) / "library.hpp"
        names = ["shardwise.hpp" if self.eigen else "core.hpp", "backends/thread.hpp"]
        header.write_text("".join(f"#include <shardwise/{name}>\n" for name in names))
        clang = self.name == "clang"
        compiled = header.with_suffix(".hpp.pch" if clang else ".hpp.gch")
        command = [part for part in self.command if part != "-fsyntax-only"] + WARNINGS
        code, output = execute(command + ["-x", "c++-header", str(header), "-o", str(compiled)])
        if code != 0:
            raise SystemExit(f"the library does not compile:\n{output}")
        self.command += ["-include-pch", str(compiled)] if clang else ["-Winvalid-pch", "-include", str(header)]
        # g++ keeps no `#pragma GCC diagnostic` in a precompiled header; names_static_test.cpp is about the one of shardwise.hpp.
        self.forgotten = [] if clang else ["-Wno-shadow"]

    def run(self, file, fail):
        warnings = [] if fail else WARNINGS + self.forgotten
        return execute(self.command + warnings + [f"-DSHARDWISE_EXPECT_FAIL={int(fail)}", str(file)])

    def compile_twins(self, files, unit):
        """The twins of these files in one unit. Says nothing where it fails: judge() then compiles each by itself."""
        includes = dict.fromkeys(line for file in files for line in INCLUDE.findall(file.read_text()))
        bodies = [f'namespace twin_{number} {{\n#include "{file}"\n}}' for number, file in enumerate(files)]
        unit.write_text("\n".join([*includes, *bodies]) + "\n")
        linkage = [] if self.name == "clang" else ["-Wno-subobject-linkage"]  # g++ warns of it outside the main file
        code, _ = execute(self.command + WARNINGS + self.forgotten + linkage + ["-DSHARDWISE_EXPECT_FAIL=0", str(unit)])
        if code == 0:
            self.good_twins.update(files)


def judge(file, compiler):
    """(verdict, complaints, output): the verdict is passed, failed or skipped."""
    text = file.read_text()
    for need in NEEDS.findall(text):
        if need == "eigen" and not compiler.eigen:
            return "skipped", ["no Eigen"], ""
    expected = [regex for only, regex in EXPECT.findall(text) if only in ("", compiler.name)]
    complaints = []
    if not expected:
        complaints.append("it has no '// expect-error: <regex>' line")
    if "#if SHARDWISE_EXPECT_FAIL" not in text or "#else" not in text:
        complaints.append("it has no '#if SHARDWISE_EXPECT_FAIL' with an '#else'")
    if file not in compiler.good_twins:
        code, output = compiler.run(file, fail=False)
        if code != 0:
            return "failed", complaints + ["the twin under #else does not compile"], output
    code, output = compiler.run(file, fail=True)
    if code == 0:
        return "failed", complaints + ["the case compiles"], output
    for regex in expected:
        if not re.search(regex, output):
            complaints.append(f"no line matches: {regex}")
    first = ERROR.search(output)
    if expected and first and not re.search(expected[0], first.group()):
        complaints.append(f"the first error is another one: {first.group().strip()}")
    lines = lines_before_notes(output)
    if lines > LIMIT:
        complaints.append(f"{lines} lines of output before the notes (at most {LIMIT})")
    return ("failed" if complaints else "passed"), complaints, output


def run(files, compiler, jobs, show, folder=None):
    """With a folder for them, twins are compiled in units."""
    count = {"passed": 0, "failed": 0, "skipped": 0}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        if folder:
            able = [file for file in files if compiler.eigen or "eigen" not in NEEDS.findall(file.read_text())]
            groups = [able[first : first + TWINS] for first in range(0, len(able), TWINS)]
            units = [pathlib.Path(folder) / f"twins_{number}.cpp" for number in range(len(groups))]
            list(pool.map(compiler.compile_twins, groups, units))
        for file, (verdict, complaints, output) in zip(files, pool.map(lambda f: judge(f, compiler), files)):
            count[verdict] += 1
            if verdict == "skipped":
                print(f"SKIPPED: {file.name}: {complaints[0]}")
            elif verdict == "failed":
                print(f"FAILED: {file.name}: " + "; ".join(complaints))
            if verdict == "failed" or show:
                print("\n".join("    " + line for line in output.splitlines()[:30]))
            sys.stdout.flush()
    return count


SAMPLES = [  # verdict, code
    ("passed", "// expect-error: too big\n#if SHARDWISE_EXPECT_FAIL\nstatic_assert(false, \"too big\");\n"
               "#else\nstatic_assert(true);\n#endif\n"),
    ("failed", "// expect-error: too big\n#if SHARDWISE_EXPECT_FAIL\nint x;\n#else\nint x;\n#endif\n"),
    ("failed", "// expect-error: too small\n#if SHARDWISE_EXPECT_FAIL\nstatic_assert(false, \"too big\");\n"
               "#else\nint x;\n#endif\n"),
    ("failed", "// expect-error: too big\n#if SHARDWISE_EXPECT_FAIL\nstatic_assert(false, \"too big\");\n"
               "#else\nstatic_assert(false, \"too big\");\n#endif\n"),
    ("failed", "// expect-error: too big\n#if SHARDWISE_EXPECT_FAIL\nstatic_assert(false, \"too big\");\n"
               "#else\nint f() { int unused = 0; return 1; }\n#endif\n"),
    ("failed", "#if SHARDWISE_EXPECT_FAIL\nstatic_assert(false, \"too big\");\n#else\nint x;\n#endif\n"),
    ("failed", "// expect-error: undeclared|declared\n#if SHARDWISE_EXPECT_FAIL\n"
               + "".join(f"int v{i} = nowhere{i};\n" for i in range(9)) + "#else\nint x;\n#endif\n"),
    # the sentence stands behind another error
    ("failed", "// expect-error: too big\n#if SHARDWISE_EXPECT_FAIL\nint v = nowhere;\n"
               "static_assert(false, \"too big\");\n#else\nint x;\n#endif\n"),
    # a body that is instantiated only at the end of the unit
    ("passed", "// expect-error: too big\ntemplate <class T> int f() {\n#if SHARDWISE_EXPECT_FAIL\n"
               "static_assert(sizeof(T) == 0, \"too big\");\n#else\n#endif\nreturn 0; }\n"
               "int g() { return f<int>(); }\n"),
    ("skipped", "// needs: eigen\n// expect-error: x\n#if SHARDWISE_EXPECT_FAIL\n#else\n#endif\n"),
]


def self_test(compiler):
    compiler.eigen = None
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (expected, code) in enumerate(SAMPLES):
            file = pathlib.Path(folder) / f"sample{number}.cpp"
            file.write_text(code)
            verdict, complaints, output = judge(file, compiler)
            if verdict != expected:
                failures += 1
                print(f"self-test: sample {number}: expected {expected}, got {verdict} {complaints}\n{output}")
    print(f"{len(SAMPLES) - failures} passed, {failures} failed, 0 skipped")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--eigen")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--show", action="store_true", help="print the output of cases that pass, too")
    parser.add_argument("--no-precompiled", action="store_true", help="compile each case alone")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    compiler = Compiler(options)
    if options.self_test:
        return self_test(compiler)
    files = options.files or sorted(HERE.glob("*.cpp"))
    files = [file.resolve() for file in files]
    with tempfile.TemporaryDirectory() as folder:
        shared = not options.no_precompiled and len(files) > 4
        if shared:
            compiler.precompile(folder)
        count = run(files, compiler, options.jobs, options.show, folder if shared else None)
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] or not files else 0


if __name__ == "__main__":
    sys.exit(main())
