#!/usr/bin/env python3
"""Compile time against Eigen, in one run: user seconds of `g++ -std=c++20 -O2 -c`, units taken in turns. A unit is the same work every time,
so that its least time is the one that the machine disturbed least: figures are made of those; quartiles are those of rounds.

    times.py [--compiler g++] [--include DIR] [--eigen DIR] [--rounds 5]

What our headers add is the time of a unit that includes them less that of a unit with the same standard (and Eigen)
headers and nothing of ours."""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

PROGRAM = """#include <shardwise/shardwise.hpp>
using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
  auto operator()(const auto& x) const { return net2(relu(net1(x))); }
};

constexpr auto plan = parallelize_plan(
    "net1"_path = ColwiseParallel{},
    "net2"_path = RowwiseParallel{.output_layouts = Replicate{}});

int main() {
  Mlp<> model{nn::linear(10, 16), nn::linear(16, 10)};
  run_ranks(4, [&](ThreadCommunicator world) {
    auto mesh = init_device_mesh<"tp">(world, {4});
    auto tp = parallelize_module<plan>(model, mesh);
    auto x = rand<float>({12, 10});
    auto y = tp(x);
    backward(sum(y));
    optim::SGD(parameters(tp), {.lr = 0.25}).step();
  });
}
"""
PLAN = """#include <shardwise/core.hpp>
using namespace shardwise;
using From = Placements<Shard<0>, Shard<1>, Partial<>, Shard<0>>;
using To = Placements<Shard<1>, Replicate, Shard<0>, Shard<1>>;
constexpr auto steps = plan_redistribute<From, To>({4, 2, 8, 2}, {4096, 4096});
static_assert(steps.size() > 0);
"""
PRODUCT = """#include <Eigen/Core>
Eigen::MatrixXf product(const Eigen::MatrixXf& a, const Eigen::MatrixXf& b) { return a * b; }
"""


def outside_headers(args, header):
    """The headers that are not ours which `header` reaches through ours."""
    found, seen, waiting = [], set(), [header]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for kind, inner in re.findall(r"^#\s*include\s*([<\"])([^>\"]+)[>\"]", (pathlib.Path(args.include) / name).read_text(), re.M):
            if inner.startswith("shardwise/"):
                waiting.append(inner)
            elif kind == "<" and inner not in found:
                found.append(inner)
    have = []
    for inner in found:  # headers of other systems stand behind #if
        test = subprocess.run([args.compiler, "-std=c++20", "-isystem", args.eigen, "-E", "-x", "c++", "-", "-o", os.devnull],
                              input=f"#include <{inner}>\n", text=True, capture_output=True)
        if test.returncode == 0 and inner != "cblas.h":
            have.append(inner)
    return sorted(have)


def user_seconds(args, source, folder):
    before = os.times().children_user
    done = subprocess.run([args.compiler, "-std=c++20", "-O2", "-I", args.include, "-isystem", args.eigen, "-c", str(source), "-o",
                           str(folder / "unit.o")], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"times: {source.name} does not compile\n{done.stderr[:3000]}")
    return os.times().children_user - before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--include", default=str(HERE.parent.parent / "include"))
    parser.add_argument("--eigen", default="/usr/include/eigen3")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    lines = lambda headers: "".join(f"#include <{h}>\n" for h in headers)
    units = {
        "eigen": "#include <Eigen/Core>\n",
        "core": "#include <shardwise/core.hpp>\n",
        "core_std": lines(outside_headers(args, "shardwise/core.hpp")),
        "all": "#include <shardwise/shardwise.hpp>\n",
        "all_std": lines(outside_headers(args, "shardwise/shardwise.hpp")),
        "program": PROGRAM,
        "product": PRODUCT,
        "plan": PLAN,
    }
    times = {name: [] for name in units}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for unit, text in units.items():
            (folder / f"{unit}.cpp").write_text(text)
        for _ in range(args.rounds):
            for unit in units:
                times[unit].append(user_seconds(args, folder / f"{unit}.cpp", folder))

    # The ratios of one round are made of its times, so that a slower minute of the machine slows both sides.
    least = {unit: min(all) for unit, all in times.items()}
    of_round = lambda i: {unit: all[i] for unit, all in times.items()}
    rows = [
        ("core.hpp adds, against <Eigen/Core>", lambda t: (t["core"] - t["core_std"]) / t["eigen"], 0.25, "x", ("core", "core_std", "eigen")),
        ("shardwise.hpp adds, against <Eigen/Core>", lambda t: (t["all"] - t["all_std"]) / t["eigen"], 0.40, "x", ("all", "all_std", "eigen")),
        ("the first program, against one Eigen product", lambda t: t["program"] / t["product"], 3.0, "x", ("program", "product")),
        ("planning a redistribute over 4 axes, priced, adds", lambda t: t["plan"] - t["core"], 0.3, "s", ("plan", "core")),
    ]
    print(f"\nCompile time, {args.compiler} -O2, user seconds, {args.rounds} rounds")
    print(f"{'what':58} {'figure':>10}  {'quartiles':16} {'limit':8} least times")
    for what, ratio, limit, unit, names in rows:
        ratios = sorted(ratio(of_round(i)) for i in range(args.rounds))
        quarter = lambda q: ratios[round(q * (len(ratios) - 1))]
        spread = f"{quarter(0.25):.2f} to {quarter(0.75):.2f}"
        seconds = ", ".join(f"{n} {least[n]:.2f}" for n in names)
        print(f"{what:58} {ratio(least):9.2f}{unit}  {spread:16} {limit:<7.2f}{unit} {seconds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
