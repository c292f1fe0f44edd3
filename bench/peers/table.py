"""Redistributions side by side: ours as threads, and whatever of raw MPI, ScaLAPACK, FFTW and PyTorch is here. Each is measured
against a copy of the larger local side by its own ranks in its own process group, in turns; the table holds medians of those
ratios and their quartiles, and times. A peer that is missing is left out with a sentence.

    table.py --ours BENCH_REDISTRIBUTE --build FOLDER [--torch PYTHON] [--shape 4096x4096] [--ranks 4] [--dtype float]"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TRANSITIONS = ["S0->S1", "S1->S0", "S0->R", "S1->R", "P->R", "P->S0", "P->S1", "(S0,S1)->(S1,S0)",
               "BlockCyclic<1,64>->S0"]
MPI_PEERS = [("MPI", "mpi_redistribute", [[]]),
             ("ScaLAPACK", "scalapack_redistribute", [["-lscalapack-openmpi"], ["-lscalapack-mpich"], ["-lscalapack"]]),
             ("FFTW", "fftw_redistribute", [["-lfftw3f_mpi", "-lfftw3f", "-lfftw3_mpi", "-lfftw3"]])]


def say(text):
    print(f"table: {text}", file=sys.stderr, flush=True)


def lines_of(peer, command, limit):
    """The lines of JSON that a peer prints; none, with a sentence, where it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired as late:
        say(f"{peer}: stopped after {limit} s; what it had printed counts")
        text = late.stdout or ""
        return [json.loads(l) for l in (text if isinstance(text, str) else text.decode()).splitlines() if l.startswith("{")]
    if done.returncode != 0:
        message = [l for l in done.stderr.splitlines() if l.strip("- ")] or ["no message"]
        say(f"{peer} ended with status {done.returncode}: {message[0].strip()}")
    return [json.loads(l) for l in done.stdout.splitlines() if l.startswith("{")]


def mpi_commands():
    """The compiler and the launcher of one MPI."""
    for suffix in (".openmpi", ".mpich", ""):
        compiler, launcher = shutil.which("mpicxx" + suffix), shutil.which("mpirun" + suffix)
        if compiler and launcher:
            version = subprocess.run([launcher, "--version"], stdout=subprocess.PIPE, text=True).stdout
            flags = ["--oversubscribe", "--bind-to", "none"] if "Open MPI" in version or "OpenRTE" in version else []
            if flags and hasattr(os, "geteuid") and os.geteuid() == 0:
                flags.append("--allow-run-as-root")
            return compiler, [launcher, *flags]
    return None, None


def build(compiler, name, libraries, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for choice in libraries:
        program = folder / name
        done = subprocess.run([compiler, "-std=c++20", "-O3", str(HERE / f"{name}.cpp"), "-o", str(program), *choice],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return program
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--torch", default="")
    parser.add_argument("--shape", default="4096x4096")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--dtype", default="float", choices=["float", "double"])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--limit", type=int, default=400, help="seconds that one peer may take")
    args = parser.parse_args()
    rows, columns = args.shape.split("x")
    ask = [rows, columns, args.dtype, str(args.repeat)]

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "ours.json"
        subprocess.run([args.ours, "--ranks", str(args.ranks), "--shape", args.shape, "--dtype", args.dtype, "--repeat",
                        str(args.repeat), "--transitions", ",".join(TRANSITIONS), "--json", str(out)],
                       stdout=subprocess.DEVNULL, check=True)
        results["shardwise"] = json.loads(out.read_text())
    compiler, launcher = mpi_commands()
    if compiler is None:
        say("MPI, ScaLAPACK and FFTW are left out: there is no mpicxx with its mpirun here (Debian: libopenmpi-dev, openmpi-bin)")
    for peer, name, libraries in MPI_PEERS if compiler else []:
        program = build(compiler, name, libraries, args.build)
        if program is None:
            say(f"{peer} is left out: {name}.cpp does not build here (Debian: libscalapack-openmpi-dev, libfftw3-dev, "
                "libfftw3-mpi-dev)")
            continue
        results[peer] = lines_of(peer, [*launcher, "-n", str(args.ranks), str(program), *ask], args.limit)
    if not args.torch:
        say("PyTorch is left out: SHARDWISE_TORCH_PYTHON names no Python that has it")
    elif subprocess.run([args.torch, "-c", "import torch.distributed.tensor"], stderr=subprocess.DEVNULL).returncode != 0:
        say(f"PyTorch is left out: {args.torch} has none with torch.distributed.tensor")
    else:
        results["PyTorch"] = lines_of("PyTorch", [args.torch, str(HERE / "torch_redistribute.py"), *ask, str(args.ranks)],
                                      args.limit)

    peers = [p for p in results if results[p]]
    by_name = {p: {l["transition"]: l for l in results[p]} for p in peers}
    print(f"redistribute of {args.shape} {args.dtype}, {args.ranks} ranks: time over that of a copy of the larger local side by "
          "the same ranks\n(threads for shardwise, processes for the others), median and quartiles of the pairs, and ms")
    print(f"{'':22}" + "".join(f"{p:>30}" for p in peers))
    wrong = 0
    for name in TRANSITIONS:
        cells = []
        for p in peers:
            l = by_name[p].get(name)
            wrong += l["wrong"] if l else 0
            cells.append(f"{l['ratio']:.2f} ({l['ratio_25']:.2f}..{l['ratio_75']:.2f}) {l['time_s'] * 1e3:.1f}" if l else "-")
        print(f"{name:22}" + "".join(f"{c:>30}" for c in cells))
    print(f"wrong results: {wrong}")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
