"""The 1024-4096-1024 MLP, batch 256, beside PyTorch: one training step of ours, one of PyTorch's, in turns, so that a busy
minute of the machine falls on both. Prints the median of the paired ratios and their quartiles.

    mlp_pairs.py OUR_BENCH_STEP PYTHON_WITH_TORCH [--pairs 21]"""
import argparse
import pathlib
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


class Program:
    """A program that does the step named on its standard input and answers with milliseconds."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self, kind):
        self.process.stdin.write(kind + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"mlp_pairs: {self.process.args[0]} ended with status {self.process.wait()}")
        return float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench_step")
    parser.add_argument("python")
    parser.add_argument("--pairs", type=int, default=21)
    args = parser.parse_args()
    ours = Program([args.bench_step, "serve"])
    theirs = Program([args.python, str(HERE / "torch_mlp.py")])
    for kind, what in (("one", "one thread, against PyTorch's"), ("two", "2 ranks, against PyTorch's 2 processes")):
        pairs = [(ours.step(kind), theirs.step(kind)) for _ in range(args.pairs + 3)][3:]  # three to warm up
        ratios = sorted(a / b for a, b in pairs)
        quarter = lambda q: ratios[round(q * (len(ratios) - 1))]
        times = " / ".join(f"{statistics.median(p[i] for p in pairs):.1f}" for i in range(2))
        print(f"{what:58} {quarter(0.5):9.2f}x  {quarter(0.25):.2f} to {quarter(0.75):<8.2f} {'0.90x':8} {times} ms")
    ours.close()
    theirs.close()


if __name__ == "__main__":
    main()
