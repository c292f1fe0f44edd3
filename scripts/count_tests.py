#!/usr/bin/env python3
"""Counts test cases in the logs of ctest runs and prints `N passed, N failed, N skipped`.

count_tests.py LOG...      each a Testing/Temporary/LastTest.log. Exits with 1 where something failed or nothing ran.

A doctest program counts with its cases: a case left out by a filter is skipped (but for those of other suites than -ts
names: they run elsewhere), and so is one that says
`SKIPPED: <reason>` on a line of its own (missing hardware) although doctest calls it passed. A script that prints
a line `N passed, N failed, N skipped` counts with these; any other test counts as one, passed, failed or, where it
says `SKIPPED: `, skipped. Of ranks that are processes (their lines begin with `[2] `) rank 0 counts. A test that ends
badly (a crash, a deadline) without a failed case of its own counts as one failure more.
"""
import pathlib
import re
import sys

DOCTEST = re.compile(r"\[doctest\] test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed \|\s*(\d+) skipped")
SCRIPT = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
SKIPPED = re.compile(r"^SKIPPED: ", re.M)
OTHER_RANK = re.compile(r"^\[[1-9]\d*\] .*\n", re.M)
TEST = re.compile(r"^ *\d+/\d+ Test: (.+?)$(.*?)^\"\1\" end time:", re.M | re.S)


def count(text):
    passed = failed = skipped = 0
    for _, test in TEST.findall(text):
        head, _, body = test.partition("\nOutput:\n")
        body = re.sub(r"^\[0\] ", "", OTHER_RANK.sub("", body), flags=re.M)
        good = re.search(r"^<end of output>$(?:(?!^<end of output>$).)*^Test Passed\.$", body, re.M | re.S)
        good = good and not re.search(r'^Command: ""$', head, re.M)  # ctest calls a missing program passed here
        failed_before = failed
        left_out = len(SKIPPED.findall(body))
        programs = DOCTEST.findall(re.sub(r"\x1b\[[0-9;]*m", "", body))
        scripts = SCRIPT.findall(body)
        if programs:
            others = re.search(r'^Command: .*"-ts=', head, re.M)
            for p, f, s in programs:
                passed, failed, skipped = passed + int(p), failed + int(f), skipped + (0 if others else int(s))
            passed, skipped = passed - left_out, skipped + left_out
        elif scripts:
            p, f, s = map(int, scripts[-1])
            passed, failed, skipped = passed + p, failed + f, skipped + s
        elif good and left_out:
            skipped += 1
        elif good:
            passed += 1
        if not good and failed == failed_before:
            failed += 1
    return passed, failed, skipped


def main():
    total = [0, 0, 0]
    empty = False
    for name in sys.argv[1:]:
        log = pathlib.Path(name)
        numbers = count(log.read_text(errors="replace")) if log.exists() else (0, 0, 0)
        empty = empty or sum(numbers[:2]) == 0
        total = [a + b for a, b in zip(total, numbers)]
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] or empty or not sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
