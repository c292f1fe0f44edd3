"""PyTorch's time of one training step (zero_grad, forward, sum, backward, SGD), as foundation/step.cpp takes it: on one
device with one thread, and tensor-parallel in two processes over Gloo with one thread each.

    torch_mlp.py [--width 1024 --hidden 4096 --batch 256 --steps 9]

Prints `result: one_device_ms X two_ranks_ms Y`. Needs PyTorch; no GPU."""
import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        torch.manual_seed(5)
        self.net1 = nn.Linear(width, hidden)
        self.net2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.net2(torch.relu(self.net1(x)))


def time_of_step(model, args, wait=lambda: None):
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4, foreach=False)
    x = torch.rand(args.batch, args.width)
    times = []
    for _ in range(args.steps + 3):
        wait()
        start = time.perf_counter()
        sgd.zero_grad()
        model(x).sum().backward()
        sgd.step()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:]) * 1e3


def rank_main(rank, ranks, port, args, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    model = parallelize_module(
        Mlp(args.width, args.hidden), mesh, {"net1": ColwiseParallel(), "net2": RowwiseParallel()}
    )
    took = time_of_step(model, args, dist.barrier)
    if rank == 0:
        results.put(took)
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 1024), ("hidden", 4096), ("batch", 256), ("steps", 9)):
        parser.add_argument("--" + name, type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    alone = time_of_step(Mlp(args.width, args.hidden), args)
    context = mp.get_context("spawn")
    results = context.Queue()
    port = 29500 + os.getpid() % 1000
    workers = [context.Process(target=rank_main, args=(r, 2, port, args, results)) for r in range(2)]
    for worker in workers:
        worker.start()
    together = results.get(timeout=300)
    for worker in workers:
        worker.join()
    print(f"result: one_device_ms {alone:.3f} two_ranks_ms {together:.3f}")


if __name__ == "__main__":
    main()
