#!/usr/bin/env python3
"""The programs of README.md: every ```cpp block with a `main` compiles without warnings and runs, and prints what the ```text
block right behind it says.

run_readme.py --compiler CXX --include DIR --eigen DIR [README.md]
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--include", required=True)
    parser.add_argument("--eigen", required=True)
    parser.add_argument("readme", nargs="?", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[2] / "README.md")
    options = parser.parse_args()
    blocks = re.findall(r"^```cpp\n(.*?)^```\n(?:\n^```text\n(.*?)^```)?", options.readme.read_text(), re.M | re.S)
    programs = [(block, output) for block, output in blocks if re.search(r"\bint main\(", block)]
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pthread",
             f"-I{options.include}", "-isystem", options.eigen]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (program, output) in enumerate(programs):
            source, binary = pathlib.Path(folder) / f"program{number}.cpp", pathlib.Path(folder) / f"program{number}"
            source.write_text(program)
            for command in ([options.compiler, *flags, str(source), "-o", str(binary)], [str(binary)]):
                done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                if done.returncode != 0:
                    failures += 1
                    print(f"FAILED: program {number} of {options.readme.name}: {command[0]}\n{done.stdout}")
                    break
            else:
                if output and done.stdout != output:
                    failures += 1
                    print(f"FAILED: program {number} of {options.readme.name} prints\n{done.stdout}\nand not\n{output}")
    print(f"{len(programs) - failures} passed, {failures} failed, 0 skipped")
    return 1 if failures or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
