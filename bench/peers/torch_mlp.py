"""PyTorch's time of one training step (zero_grad, forward, sum, backward, SGD), as foundation/step.cpp takes it: on one
device with one thread, and tensor-parallel in two processes over Gloo with one thread each.

    torch_mlp.py [--width 1024 --hidden 4096 --batch 256]

Reads `one` or `two` from standard input, a line each, does that step and answers with its milliseconds; between two lines
it waits without using a core, so that mlp_pairs.py can take turns with another program. Needs PyTorch; no GPU."""
import argparse
import os
import sys
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


class Trainer:
    def __init__(self, model, args):
        self.model = model
        self.sgd = torch.optim.SGD(model.parameters(), lr=1e-4, foreach=False)
        self.x = torch.rand(args.batch, args.width)

    def step(self):
        self.sgd.zero_grad()
        self.model(self.x).sum().backward()
        self.sgd.step()


def milliseconds(f):
    start = time.perf_counter()
    f()
    return (time.perf_counter() - start) * 1e3


def rank_main(rank, ranks, port, args, commands):
    """Does a step whenever this rank's pipe says so; rank 0 answers with the time between two barriers."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    trainer = Trainer(
        parallelize_module(Mlp(args.width, args.hidden), mesh, {"net1": ColwiseParallel(), "net2": RowwiseParallel()}), args
    )

    def step_and_meet():
        trainer.step()
        dist.barrier()

    while commands.recv():
        dist.barrier()
        commands.send(milliseconds(step_and_meet))
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 1024), ("hidden", 4096), ("batch", 256)):
        parser.add_argument("--" + name, type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    alone = Trainer(Mlp(args.width, args.hidden), args)
    context = mp.get_context("spawn")
    port = 29500 + os.getpid() % 1000
    pipes, workers = [], []
    for rank in range(2):
        here, there = context.Pipe()
        workers.append(context.Process(target=rank_main, args=(rank, 2, port, args, there)))
        workers[-1].start()
        pipes.append(here)
    for line in sys.stdin:
        if line.strip() == "one":
            took = milliseconds(alone.step)
        else:
            for pipe in pipes:
                pipe.send(True)
            took = max(pipe.recv() for pipe in pipes)
        print(f"{took:.6f}", flush=True)
    for pipe in pipes:
        pipe.send(False)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
