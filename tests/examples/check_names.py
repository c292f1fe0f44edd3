#!/usr/bin/env python3
"""examples/names on small texts: the shape of its output, and what it says where something is wrong.

check_names.py --program FILE
"""
import argparse
import os
import pathlib
import pty
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

NUMBER = r"[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?"
AGREEMENT = re.compile(rf"^agreement: max relative loss difference ({NUMBER}) over (\d+) steps on (\d+) ranks$")
WORDS = ["anna", "anton", "berta", "bertil", "café", "cäsar", "dora", "doris", "emil", "emilia", "straße", "søren",
         "Ωmega", "日本", "naïve", "zoë", "otto", "ottilie", "paul", "paula", "quinn", "rosa", "rosalie", "ute"]
PATTERN = ["ab" * n for n in range(1, 40)]  # as good as known after a few steps


class Checks:
    def __init__(self, program, folder):
        self.program, self.folder, self.passed, self.failed = program, folder, 0, 0

    def run(self, *arguments):
        command = [self.program, *map(str, arguments)]
        return subprocess.run(command, text=True, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def expect(self, what, good, done):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"{what}: status {done.returncode}\n{done.stdout}{done.stderr}")

    def refused(self, what, status, words, *arguments):
        """Ends with this status, says each of these words in one line on standard error, and nothing else."""
        done = self.run(*arguments)
        said = done.stderr.startswith("names: ") and done.stderr.count("\n") == 1 and not done.stdout
        self.expect(what, done.returncode == status and said and all(word in done.stderr for word in words), done)


def agreement(done):
    lines = done.stdout.splitlines()
    return AGREEMENT.match(lines[-1]) if lines else None


def check_runs(checks):
    names = checks.file("words", "\n".join(WORDS) + "\n")
    picture = checks.folder / "losses.svg"
    done = checks.run("--steps", 20, "--hidden", 16, "--text", names, "--plot", picture)
    found = agreement(done)
    checks.expect("the last line", found and found[4] == "20" and found[5] == "4" and float(found[1]) <= 1e-4, done)
    for part in ("step 20 of 20:", "Held-out loss", "uniform", "unigram", "Invented words:", "all_reduce", "embedding",
                 "bytes", "Steps per second:", "one device"):
        checks.expect(f"'{part}' in the output", part in done.stdout, done)
    progress = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    checks.expect("some ten lines of progress", 8 <= len(progress) <= 12, done)
    checks.expect("no control characters", not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout), done)
    tokens = 2 + len(set("".join(WORDS)))
    checks.expect("a token is a code point", f"; {tokens} tokens" in done.stdout, done)
    drawn = xml.etree.ElementTree.parse(picture).getroot() if picture.exists() else None
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")] if drawn is not None else []
    curves = [element for element in drawn.iter() if element.tag.endswith("polyline")] if drawn is not None else []
    checks.expect("a picture", len(curves) == 2 and "training step" in texts and "one device" in texts, done)

    words = re.search(r"^Invented words:\n (.*)$", done.stdout, re.M)
    checks.expect("ten invented words", words and len(words[1][1:].split(" ")) == 10, done)
    check_terminal(checks, names)

    pattern = checks.file("pattern", "\r\n".join(PATTERN) + "\r\n")
    for ranks, dtype in ((1, "float"), (3, "float"), (7, "double")):  # 4 tokens: some ranks hold none
        done = checks.run("--steps=60", "--hidden=5", "--text", pattern, "--ranks", ranks, "--dtype", dtype)
        found = agreement(done)
        checks.expect(f"{ranks} ranks, {dtype}", done.returncode == 0 and found and found[5] == str(ranks), done)

    # fewer steps than it takes: the status says so, and so does a line
    done = checks.run("--steps", 1, "--hidden", 1, "--text", names)
    checks.expect("not learned", done.returncode == 1 and agreement(done)
                  and "names: failed: the held-out loss" in done.stderr, done)


def check_terminal(checks, text):
    """On a terminal a bar is drawn over itself, and no line of progress is left."""
    ours, theirs = pty.openpty()
    command = [checks.program, "--steps", "20", "--hidden", "16", "--text", str(text)]
    program = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux says so when the last writer is gone
        pass
    os.close(ours)
    _, errors = program.communicate()
    done = subprocess.CompletedProcess(command, program.returncode, shown.decode(errors="replace"), errors)
    bars = re.findall(r"\[#+\] 20/20", done.stdout)
    plain = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    checks.expect("a bar on a terminal", bars and not plain and "agreement:" in done.stdout, done)


def check_refusals(checks):
    missing = checks.folder / "missing"
    checks.refused("no file", 1, [f"{missing}: no such file"], "--text", missing)
    checks.refused("a folder", 1, [f"{checks.folder}: a folder"], "--text", checks.folder)
    for name, content in (("empty", b""), ("blank", b"\n\n\r\n")):
        path = checks.file(name, content)
        checks.refused(f"{name} file", 1, [f"{path}: no words"], "--text", path)
    path = checks.file("one", b"word\nword\n")
    checks.refused("one word", 1, [f"{path}: one word"], "--text", path)
    for name, line in (("latin1", "café".encode("latin1")), ("cut", "café".encode()[:-1]), ("stray", b"caf\x80"),
                       ("overlong", b"\xc0\xaf"), ("overlong3", b"\xe0\x80\xaf"), ("surrogate", b"\xed\xa0\x80"),
                       ("beyond", b"\xf4\x90\x80\x80"), ("byte", b"\xff")):
        path = checks.file(name, b"anna\nberta\n" + line + b"\nemil\n")
        checks.refused(f"not UTF-8: {name}", 1, [f"{path}:3: not UTF-8"], "--text", path)
    words = checks.file("few", "\n".join(WORDS))
    nowhere = checks.folder / "missing" / "plot.svg"
    checks.refused("a picture nowhere", 1, [f"{nowhere}: cannot be opened for writing"], "--text", words, "--plot", nowhere)

    checks.refused("unknown flag", 2, ["'--step'", "did you mean --steps?"], "--step", 5)
    checks.refused("nothing like a flag", 2, ["'file.txt'", "--help"], "file.txt")
    checks.refused("no value", 2, ["--steps needs a value"], "--steps")
    for flag, value, hint in (("--steps", "0", "from 1"), ("--steps", "many", "whole number"), ("--steps", "3x", "'3x'"),
                              ("--hidden", "-1", "from 1"), ("--ranks", "65", "1 to 64"), ("--ranks", "", "''"),
                              ("--ranks", "99999999999", "1 to 64"), ("--dtype", "half", "float or double"),
                              ("--seed", "1.5", "whole number"), ("--text", "", "name of a file")):
        checks.refused(f"{flag} {value}", 2, [flag, hint], flag, value)
    done = checks.run("--help")
    flags = ("--help", "--steps", "--hidden", "--dtype", "--ranks", "--text", "--plot", "--seed")
    checks.expect("--help", done.returncode == 0 and all(flag in done.stdout for flag in flags), done)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(parser.parse_args().program, pathlib.Path(folder))
        check_runs(checks)
        check_refusals(checks)
    print(f"{checks.passed} passed, {checks.failed} failed, 0 skipped")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
