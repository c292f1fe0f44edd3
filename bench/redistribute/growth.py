"""How redistribute grows with ranks and with sizes: two tables in Markdown, each cell the median ratio to memcpy by the same ranks,
with the bandwidth. growth.py BENCH_REDISTRIBUTE [--ranks 1,2,4,8,16] [--sizes 4K:1G:8] [--repeat 15]"""
import argparse
import json
import pathlib
import subprocess
import tempfile

TRANSITIONS = ["S0->S1", "S0->R", "P->R", "P->S0", "P->S1", "(S0,S1)->(S1,S0)"]


def run(program, *flags):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "lines.json"
        subprocess.run([program, *flags, "--transitions", ",".join(TRANSITIONS), "--json", str(out)],
                       stdout=subprocess.DEVNULL, check=True)
        return json.loads(out.read_text())


def size_text(n):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if n >= unit:
            return f"{n // unit} {name}"
    return f"{n} B"


def table(head, rows):
    """rows: (label, {transition: line})"""
    print(f"| {head} | " + " | ".join(f"`{t}`" for t in TRANSITIONS) + " |")
    print("|" + " --- |" * (len(TRANSITIONS) + 1))
    for label, lines in rows:
        cells = []
        for t in TRANSITIONS:
            l = lines.get(t)
            time = l and (f"{l['time_s'] * 1e3:.3g} ms" if l["time_s"] >= 1e-3 else f"{l['time_s'] * 1e6:.3g} us")
            cells.append(f"{l['ratio']:.2f}, {time}" + (" **wrong**" if l["wrong"] else "") if l else "no memory")
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--ranks", default="1,2,4,8,16")
    parser.add_argument("--sizes", default="4K:1G:8")
    parser.add_argument("--repeat", default="15")
    args = parser.parse_args()
    rows = []
    for ranks in args.ranks.split(","):
        lines = run(args.program, "--ranks", ranks, "--shape", "4096x4096", "--repeat", args.repeat)
        rows.append((ranks, {l["transition"]: l for l in lines}))
    table("ranks, 4096 x 4096 float", rows)
    print()
    sizes = {}
    for l in run(args.program, "--ranks", "4", "--size", args.sizes, "--repeat", args.repeat):
        sizes.setdefault(l["rows"] * l["columns"] * 4, {})[l["transition"]] = l
    table("global size, 4 ranks", [(size_text(n), lines) for n, lines in sorted(sizes.items())])


if __name__ == "__main__":
    main()
