"""DTensor.redistribute of PyTorch over Gloo, one process a rank, against the same processes' copy_ of the larger local side, in
turns: the values, checks and lines of JSON of the other peers.

    torch_redistribute.py [ROWS COLUMNS] [float|double] [PAIRS] [RANKS]"""
import json
import os
import statistics
import sys
import tempfile
import time


def place(text):
    from torch.distributed.tensor import Partial, Replicate, Shard
    return {"R": Replicate(), "P": Partial(), "S0": Shard(0), "S1": Shard(1)}[text]


def quantile(values, q):
    return sorted(values)[round(q * (len(values) - 1))]


def rank_main(rank, ranks, rows, columns, dtype, pairs, store, at_most=4.0):
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {rank % os.cpu_count()})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=ranks)
    side = round(ranks ** 0.5)
    base = (torch.arange(rows).reshape(-1, 1) * 31 + torch.arange(columns).reshape(1, -1) * 17) % 1021
    term = lambda r: ((base + 7 * r) % 1021).to(dtype)
    total = sum(term(r) for r in range(ranks))

    def local(tensor, mesh, placements):
        for axis, p in enumerate(placements):
            if p.is_shard():
                tensor = tensor.chunk(mesh.size(axis), p.dim)[mesh.get_coordinate()[axis]]
        return tensor.contiguous()

    def timed(f, batch):
        dist.barrier()
        start = time.perf_counter()
        for _ in range(batch):
            f()
        dist.barrier()
        return (time.perf_counter() - start) / batch

    def agreed(number):
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, 0)
        return float(box)

    line, grid = init_device_mesh("cpu", (ranks,)), None
    names = ["S0->S1", "S1->S0", "S0->R", "S1->R", "P->R", "P->S0", "P->S1"]
    if side * side == ranks:
        grid = init_device_mesh("cpu", (side, side))
        names.append("(S0,S1)->(S1,S0)")
    for name in names:
        before, after = ([place(p) for p in part.strip("()").split(",")] for part in name.split("->"))
        mesh = line if len(before) == 1 else grid
        partial = any(p.is_partial() for p in before)
        mine = local(term(rank if partial else 0), mesh, before)
        expected = local(total if partial else term(0), mesh, after)
        x = DTensor.from_local(mine, mesh, before, run_check=False)
        source = mine if mine.numel() >= expected.numel() else expected
        copy = torch.empty_like(source)
        with torch.no_grad():
            result = x.redistribute(mesh, after).to_local()
            wrong = torch.tensor([(result != expected).sum()], dtype=torch.int64)
            dist.all_reduce(wrong)
            once = timed(lambda: x.redistribute(mesh, after), 1)
            batch = int(agreed(min(1000.0, max(1.0, 0.05 / once))))
            times, spent = [], 0.0
            while agreed(len(times) < pairs and (len(times) < 5 or spent < at_most)):
                moved = timed(lambda: x.redistribute(mesh, after), batch)
                copied = timed(lambda: copy.copy_(source), batch)
                spent += (moved + copied) * batch
                times.append((moved, copied))
        ratios = [moved / copied for moved, copied in times]
        if rank == 0:
            print(json.dumps({"peer": "PyTorch", "transition": name, "ratio": quantile(ratios, 0.5),
                              "ratio_25": quantile(ratios, 0.25), "ratio_75": quantile(ratios, 0.75),
                              "time_s": statistics.median(t[0] for t in times), "pairs": len(times),
                              "wrong": int(wrong)}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main():
    import torch
    import torch.multiprocessing as mp
    arguments = dict(enumerate(sys.argv))
    rows, columns = int(arguments.get(1, 4096)), int(arguments.get(2, 4096))
    dtype = {"float": torch.float32, "double": torch.float64}[arguments.get(3, "float")]
    pairs, ranks = int(arguments.get(4, 15)), int(arguments.get(5, 4))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, args=(ranks, rows, columns, dtype, pairs, os.path.join(folder, "store")), nprocs=ranks)


if __name__ == "__main__":
    main()
