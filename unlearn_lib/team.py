"""Several processes that train one network, a device each: `torchrun` starts them, the first does all but training.

    torchrun --nproc-per-node 4 -m unlearn_lib train --model resnet50 --data imagenet

The first process runs the program; the others wait for the trainings that it begins, and take part in them. So locks,
run folders, evaluation and the screen are as with one process.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

PATIENCE = timedelta(days=30)  # that helpers wait for the next training, while the first process does other things


@dataclass(frozen=True)
class Team:
    """This process among `size` of them, counted from 0."""

    rank: int = 0
    size: int = 1

    def share(self, thing: object) -> object:
        """What the first process gives here, on all of them."""
        if self.size == 1:
            return thing
        things = [thing]
        distributed.broadcast_object_list(things, src=0, device=torch.device("cpu"))
        return things[0]

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        """The numbers summed over all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Every parameter's gradient, summed over all processes; None where no process has one."""
        if self.size == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=grads[0].device)
        flat = self.total(torch.cat([*(grad.flatten() for grad in grads), there]))
        *parts, there = flat.split([*(grad.numel() for grad in grads), len(parameters)])
        for p, part, processes in zip(parameters, parts, there.tolist(), strict=True):
            p.grad = torch.empty_like(p).copy_(part.view(p.shape)) if processes else None  # in p's order of memory

    def average(self, model: nn.Module) -> None:
        """BatchNorm's running statistics, of which each process has seen its part: their mean."""
        for buffer in model.buffers() if self.size > 1 else ():
            if buffer.is_floating_point():
                buffer.copy_(self.total(buffer.clone()) / self.size)


def process_group() -> Team:
    """The processes that `torchrun` started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if size == 1:
        return Team()
    if not distributed.is_initialized():
        if cuda := torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    return Team(distributed.get_rank(), distributed.get_world_size())


def release_helpers() -> None:
    """Let the helpers end; the first process calls it at the end, whatever that was."""
    if (crew := process_group()).size > 1:
        crew.share(None)
        distributed.destroy_process_group()
