#!/usr/bin/env python3
"""Two "hosts" of two ranks each, network namespaces with a cable between them, which is pulled while they communicate.

check_namespaces.py PROGRAM    (tests/launchers/endless_sum.cpp). Ends with 77 where namespaces are not allowed.
"""
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

DEADLINE_MS = 3000  # of sums, once all have met
LIMIT = 300  # seconds: what hangs becomes a failure
NAMES = [f"shardwise-{os.getpid()}-{host}" for host in "ab"]
CABLES = [f"sw{os.getpid() % 1000000}{host}" for host in "ab"]
ADDRESSES = ["10.254.77.1", "10.254.77.2"]
PORT = 29600


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def obstacle():
    if not shutil.which("ip"):
        return "ip is not installed (Debian: iproute2)"
    if os.geteuid() != 0:
        return "network namespaces are made by root alone"
    made = ip("netns", "add", NAMES[0], check=False)
    return f"no network namespace: {made.stdout.strip()}" if made.returncode != 0 else None


def lay_cable():
    made = ip("link", "add", CABLES[0], "netns", NAMES[0], "type", "veth", "peer", "name", CABLES[1], "netns", NAMES[1],
              check=False)
    if made.returncode != 0:
        return f"no virtual cable: {made.stdout.strip()}"
    for name, cable, address in zip(NAMES, CABLES, ADDRESSES):
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
        ip("-n", name, "link", "set", cable, "up")
    return None


def start(program, rank, output):
    host = rank // 2
    env = os.environ | {"SHARDWISE_RANK": str(rank), "SHARDWISE_SIZE": "4", "SHARDWISE_LOCAL_RANK": str(rank % 2),
                        "SHARDWISE_LOCAL_SIZE": "2", "SHARDWISE_ADDRESS": f"{ADDRESSES[0]}:{PORT}",
                        "SHARDWISE_RUN_ID": NAMES[0], "SHARDWISE_TOKEN": NAMES[1],
                        "SHARDWISE_GLOO_INTERFACE": CABLES[host]}
    return subprocess.Popen(["ip", "netns", "exec", NAMES[host], program, str(DEADLINE_MS)], env=env, stdin=subprocess.DEVNULL, stdout=output,
                            stderr=subprocess.STDOUT)


def said(output):
    output.seek(0)
    return output.read()


def check(program, stack):
    outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(4)]
    ranks = [start(program, rank, output) for rank, output in enumerate(outputs)]
    stack.callback(lambda: [process.kill() for process in ranks])

    end = time.monotonic() + LIMIT
    while not all("ready" in said(output) for output in outputs):
        if time.monotonic() > end or any(process.poll() is not None for process in ranks):
            print("not all ranks met\n" + "".join(map(said, outputs)))
            return 1
        time.sleep(0.05)
    time.sleep(0.3)
    ip("-n", NAMES[1], "link", "set", CABLES[1], "down")
    failures = 0
    for rank, (process, output) in enumerate(zip(ranks, outputs)):
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        words = said(output)
        heard = re.search(rf"^heard {rank}: (TimeoutError|PeerFailedError): .*\brank [0-3]\b", words, re.M)
        again = re.search(rf"^again {rank}: (\w+): ", words, re.M)
        good = (code == 3 and f"ready {rank}: nothing, 4" in words and heard and "on axis 'dp'" in words and again
                and again[1] == heard[1])
        if not good:
            failures += 1
            print(f"rank {rank} ended with {code}:\n{words}")
    print(f"{4 - failures} passed, {failures} failed, 0 skipped")
    return 1 if failures else 0


def main():
    with contextlib.ExitStack() as stack:
        reason = obstacle()
        if reason is None:
            stack.callback(lambda: [ip("netns", "del", name, check=False) for name in NAMES])
            second = ip("netns", "add", NAMES[1], check=False)
            reason = second.stdout.strip() if second.returncode != 0 else lay_cable()
        if reason is not None:
            print(f"SKIPPED: {reason}")
            return 77
        return check(sys.argv[1], stack)


if __name__ == "__main__":
    sys.exit(main())
