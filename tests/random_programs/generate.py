#!/usr/bin/env python3
"""Random programs of operators and moves: each runs on one device and, the same text, on a mesh.

generate.py FIRST LAST   prints a unit with the programs of the seeds FIRST to LAST - 1

A program is a function of four matrices, a vector and a vector of indices, whose placements are drawn too, on meshes of one
and two axes. Every line is an operator whose operands' placements fit (the rules of ops/rules.hpp, said here once more), or a
move that makes them fit; values are used as often as it comes. Sizes do not divide. Loss and gradients of all leaves must be
those of one device: so each way in which contributions can meet (whole, pending, settled by a move) is met.
"""
import random
import sys

# A placement of one mesh axis: R, P (a pending sum), S0 and S1, C0 and C1 (block-cyclic).
NAMES = {"R": "Replicate", "P": "Partial<>", "S0": "Shard<0>", "S1": "Shard<1>", "C0": "BlockCyclic<0, 2>", "C1": "BlockCyclic<1, 2>"}
SIZES = (4, 5, 7)
ROWS = 7  # of the indices
MESHES = ((2,), (3,), (4,), (2, 2), (2, 3), (3, 2))
LEAVES = ("a", "b", "c", "d", "e")


def listed(placements):
    return ", ".join(NAMES[p] for p in placements)


class Value:
    def __init__(self, name, shape, placements):
        self.name, self.shape, self.placements = name, shape, placements

    def has(self, kind):
        return any(p.startswith(kind) for p in self.placements)


class Program:
    def __init__(self, seed, operators=14):
        self.draw = random.Random(seed)
        self.mesh = self.draw.choice(MESHES)
        self.lines, self.values, self.losses, self.count = [], [], [], 0
        for name in LEAVES:
            shape = tuple(self.draw.choice(SIZES) for _ in range(1 if name == "e" else 2))
            self.values.append(Value(name, shape, self.some_placements(len(shape))))
        self.leaves = list(self.values)
        for _ in range(operators):
            self.draw.choice(OPERATORS)(self)
        for value in self.draw.sample(self.values[-8:], 4):
            self.draw.choice((self.loss_of_all, self.loss_of_sum))(value)
        self.lines.append(f"return {' + '.join(self.losses)};")

    # ---- values and moves --------------------------------------------------------------------------------------
    def some_placements(self, rank):
        kinds = ["R", "R"] + [f"S{d}" for d in range(rank)] * 2
        return tuple(self.draw.choice(kinds) for _ in self.mesh)

    def new_name(self):
        self.count += 1
        return f"v{self.count}"

    def made(self, expression, shape, placements):
        value = Value(self.new_name(), shape, tuple(placements))
        self.lines.append(f"const auto {value.name} = {expression};")
        self.values.append(value)
        return value

    def moved(self, value, placements, how="move"):
        if value.placements == tuple(placements):
            return value
        return self.made(f"{how}<{listed(placements)}>({value.name})", value.shape, placements)

    def replaced(self, value, unwanted, choices):
        """The value, moved where a placement of it is unwanted."""
        return self.moved(value, [self.draw.choice(choices(p)) if unwanted(p) else p for p in value.placements])

    def summed(self, value):
        return self.replaced(value, lambda p: p == "P", lambda p: ["R"] + [f"S{d}" for d in range(len(value.shape))])

    def whole_along(self, value, dim):
        return self.replaced(value, lambda p: p in ("P", f"S{dim}"), lambda p: "R")

    def chunked(self, value):
        return self.replaced(value, lambda p: p[0] == "C", lambda p: ("R", "S" + p[1]))

    def matrix(self, fits=lambda value: True, cyclic=False):
        found = [v for v in self.values if len(v.shape) == 2 and fits(v)]
        if not found:
            return None
        value = self.draw.choice(found[-6:] if self.draw.random() < 0.6 else found)
        return value if cyclic else self.chunked(value)

    def vector(self, size):
        return self.draw.choice([v for v in self.values if v.shape == (size,) and not v.has("C")] or [None])

    # ---- operators ---------------------------------------------------------------------------------------------
    def unary(self):
        x = self.summed(self.matrix(cyclic=True))
        f = self.draw.choice(("tanh({})", "silu({})", "gelu({})", "relu({})", "exp(tanh({}))", "tanh({}) + 0.25", "dropout({}, 0.3)"))
        self.made(f.format(x.name), x.shape, x.placements)

    def linear_unary(self):
        x = self.matrix(cyclic=True)
        self.made(self.draw.choice(("-{}", "0.5 * {}")).format(x.name), x.shape, x.placements)

    def move(self):
        x = self.matrix(cyclic=True)
        to = [("P" if p == "P" and self.draw.random() < 0.3 else q) for p, q in zip(x.placements, self.some_placements(2))]
        self.moved(x, to)

    def move_later(self):
        self.moved(self.matrix(cyclic=True), self.some_placements(2), "move_later")

    def move_both(self):
        x, y = self.matrix(cyclic=True), self.matrix(cyclic=True)
        to, other = self.some_placements(2), self.some_placements(2)
        names = self.new_name(), self.new_name()
        self.lines.append(f"const auto [{names[0]}, {names[1]}] = move_both<To<{listed(to)}>, To<{listed(other)}>>({x.name}, {y.name});")
        self.values += [Value(names[0], x.shape, to), Value(names[1], y.shape, other)]

    def move_to_cyclic(self):
        x = self.summed(self.matrix())
        axis, dim = self.draw.randrange(len(self.mesh)), self.draw.choice("01")
        to = ["R" if p == "S" + dim else p for p in x.placements]
        to[axis] = "C" + dim
        self.moved(x, to)

    def to_terms(self):
        x = self.matrix(cyclic=True)
        for axis, p in enumerate(x.placements):
            if p == "R" and self.draw.random() < 0.6:
                to = x.placements[:axis] + ("P",) + x.placements[axis + 1:]
                x = self.made(f'to_terms<"{"xy"[axis]}">({x.name})', x.shape, to)

    def sum_or_difference(self):
        x = self.matrix(cyclic=True)
        y = self.matrix(lambda v: v.shape == x.shape and v is not x, cyclic=True)
        if y is None:
            return
        if x.has("P") and x.placements != y.placements:
            x = self.summed(x)
        y = self.moved(self.summed(y) if not x.has("P") else y, x.placements)
        self.made(f"{x.name} {self.draw.choice('+-')} {y.name}", x.shape, x.placements)

    def product(self):
        x = self.summed(self.matrix(cyclic=True))
        y = self.matrix(lambda v: v.shape == x.shape and v is not x, cyclic=True)
        if y is None:
            return
        if all(p in "PR" for p in y.placements):  # a factor of every term
            x = self.moved(x, ["R"] * len(self.mesh))
            self.made(f"{x.name} * {y.name}", x.shape, y.placements)
        else:
            y = self.moved(self.summed(y), x.placements)
            f = self.draw.choice(("tanh({}) * {}", "{} / (1.5 + tanh({}))"))
            self.made(f.format(x.name, y.name), x.shape, x.placements)

    def matrix_product(self):
        transposed = self.draw.random() < 0.4  # as a linear layer takes its weight
        inner, outer = (1, 0) if transposed else (0, 1)
        x = self.matrix()
        y = self.matrix(lambda v: v.shape[inner] == x.shape[1] and not v.has("C"))
        if y is None:
            return
        placements = []
        for p, q in zip(x.placements, y.placements):
            rules = [("S1", f"S{inner}", "P"), ("S0", "R", "S0"), ("R", f"S{outer}", "S1"), ("R", "R", "R")]
            rules += [("P", "R", "P")] * (p == "P") + [("R", "P", "P")] * (q == "P")
            as_is = [r for r in rules if r[0] == p and r[1] == q]
            half = [r for r in rules if r[0] == p or r[1] == q]
            placements.append(self.draw.choice(as_is or half or rules))
        of_x, of_y, result = zip(*placements)
        if "P" in of_x and "P" in of_y:  # terms times terms
            return
        x, y = self.moved(x, of_x), self.moved(y, of_y)
        self.made(f"{'linear' if transposed else 'matmul'}(0.3 * {x.name}, {y.name})", (x.shape[0], y.shape[outer]), result)

    def transposition(self):
        x = self.matrix()
        other = {"S0": "S1", "S1": "S0"}
        self.made(f"transpose<0, 1>({x.name})", x.shape[::-1], [other.get(p, p) for p in x.placements])

    def sum_along(self):
        x, dim = self.matrix(cyclic=True), self.draw.choice((0, 1))
        result = [p if p in "RP" else "P" if p[1] == str(dim) else p[0] + "0" for p in x.placements]
        self.made(f"{self.draw.choice(('sum', 'mean'))}<{dim}>({x.name})", (x.shape[1 - dim],), result)

    def softmax(self):
        dim = self.draw.choice((0, 1))
        x = self.whole_along(self.matrix(), dim)
        self.made(f"{self.draw.choice(('softmax', 'log_softmax'))}<{dim}>({x.name})", x.shape, x.placements)

    def norm(self):
        x = self.whole_along(self.matrix(), 1)
        w = self.vector(x.shape[1])
        if w is None:
            self.made(f"rms_norm({x.name}, {{.eps = 1e-2}})", x.shape, x.placements)
            return
        w = self.moved(w, ["R"] * len(self.mesh)).name
        f = self.draw.choice((f"rms_norm({{}}, {w}, {{{{.eps = 1e-2}}}})", f"layer_norm({{}}, {w}, {w}, {{{{.eps = 1e-2}}}})"))
        self.made(f.format(x.name), x.shape, x.placements)

    def with_vector(self):
        x = self.summed(self.matrix())
        w = self.vector(x.shape[1])
        if w is not None:
            w = self.moved(w, ["S0" if p == "S1" else "R" for p in x.placements])
            self.made(f"{x.name} {self.draw.choice('+-*')} {w.name}", x.shape, x.placements)

    def concatenation(self):
        dim = self.draw.choice((0, 1))
        x = self.matrix()
        y = self.matrix(lambda v: v.shape[1 - dim] == x.shape[1 - dim])
        size = x.shape[dim] + y.shape[dim]
        if size <= 16:
            x = self.whole_along(x, dim)
            y = self.moved(y, x.placements)
            shape = (size, x.shape[1]) if dim == 0 else (x.shape[0], size)
            self.made(f"concat<{dim}>({x.name}, {y.name})", shape, x.placements)

    def embedding(self):
        table = self.summed(self.matrix())
        rules = {"R": (("R", "R"), ("S0", "S0")), "S0": (("R", "P"),), "S1": (("R", "S1"),)}
        index, result = zip(*(self.draw.choice(rules[p]) for p in table.placements))
        self.made(f"embedding({table.name}, move<{listed(index)}>(index))", (ROWS, table.shape[1]), result)

    def cross_entropy(self):
        x = self.matrix(lambda v: v.shape[0] == ROWS)
        if x is None:
            return
        x = self.whole_along(x, 1)
        how = self.draw.choice(("mean", "sum"))
        index = x.placements if how == "sum" and self.draw.random() < 0.5 else ["R"] * len(self.mesh)
        self.loss(f"cross_entropy<Reduction::{how}>({x.name}, move<{listed(index)}>(index))")

    # ---- losses ------------------------------------------------------------------------------------------------
    def loss(self, expression):
        name = self.new_name()
        self.lines.append(f"const auto {name} = move<{listed(['R'] * len(self.mesh))}>({expression});")
        self.losses.append(name)

    def loss_of_all(self, value):
        whole = self.moved(value, ["R"] * len(self.mesh))
        self.losses.append(self.made(f"sum(tanh({whole.name}))", (), whole.placements).name)

    def loss_of_sum(self, value):
        self.loss(self.draw.choice(("sum(0.1 * {})", "mean({})")).format(value.name))


OPERATORS = ([Program.unary, Program.matrix_product, Program.sum_or_difference, Program.product] * 3
             + [Program.move, Program.move_both, Program.linear_unary, Program.to_terms, Program.move_to_cyclic] * 2
             + [Program.move_later, Program.transposition, Program.sum_along, Program.softmax, Program.norm, Program.with_vector,
                Program.concatenation, Program.embedding, Program.cross_entropy])


def written(seed):
    program = Program(seed)
    ranks, names = 1, ", ".join(f'"{axis}"' for axis, _ in zip("xy", program.mesh))
    for size in program.mesh:
        ranks *= size
    shapes = ", ".join("{" + ", ".join(map(str, v.shape)) + "}" for v in program.leaves)
    placements = ", ".join(f"To<{listed(v.placements)}>" for v in program.leaves)
    parameters = ", ".join(f"[[maybe_unused]] const auto& {name}" for name in ("index",) + LEAVES)
    lines = "\n".join("    " + line for line in program.lines)
    return f"""
struct Program{seed} {{
  auto operator()({parameters}) const {{
{lines}
  }}
}};
SHARDWISE_TEST_RANKS("random program {seed}", {ranks}) {{
  const auto mesh = init_device_mesh<{names}>(world, {{{", ".join(map(str, program.mesh))}}});
  check_program<Program{seed}, {placements}>(mesh, {seed}, {shapes});
}}
"""


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print('#include "random_programs/support.hpp"\n\nusing namespace test;')
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        print(written(seed), end="")


if __name__ == "__main__":
    main()
