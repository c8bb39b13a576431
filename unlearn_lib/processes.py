"""Several processes that train one network, one device each. `torchrun` starts them.

    torchrun --nproc-per-node 4 -m unlearn_lib train --model resnet50 --data imagenet

The first process runs the program. The others are its helpers: they wait for the trainings that it begins, and take
part in them. So locks, run folders, evaluation and the screen are as with one process. Without `torchrun` nothing here
communicates.
"""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import distributed

PATIENCE = timedelta(days=30)  # for which helpers wait for the next training


def process_group() -> tuple[int, int]:
    """Return the rank of this process and the number of processes, (0, 1) without `torchrun`; join them if needed."""
    size = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if size == 1:
        return 0, 1
    if not distributed.is_initialized():
        has_cuda = torch.cuda.is_available()
        if has_cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo", timeout=PATIENCE)
    return distributed.get_rank(), size


def gather(thing: object) -> list:
    """Return what every process gives, by rank."""
    rank, size = process_group()
    things = [thing] * size
    if size > 1:
        distributed.all_gather_object(things, thing)
        things[rank] = thing  # not a copy of it
    return things


def sum_over_processes(tensors: Iterable[torch.Tensor]) -> None:
    """Replace the values of each tensor by their sums over all processes."""
    if process_group()[1] > 1:
        for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def release_helpers() -> None:
    """Let the helpers end. The first process calls it at its end, also after a failure."""
    if process_group()[1] > 1:
        gather(None)
        distributed.destroy_process_group()
