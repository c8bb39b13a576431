"""What all rooms of this wing do with batches: eval mode, answers of a tail, a random number for each sample."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearn_lib.networks import run_on_zeros, unwrap

BATCH = 500  # samples in one pass without gradients

OnStep = Callable[[int, Tensor], object]  # gets a step and the inputs after it


def in_eval_mode(function: Callable) -> Callable:
    """Decorate a function: its networks are in eval mode while it runs, and in their own mode afterwards."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        networks = [given for given in (*args, *kwargs.values()) if isinstance(given, nn.Module)]
        modes = [(part, part.training) for network in networks for part in network.modules()]
        try:
            for network in networks:
                network.eval()
            return function(*args, **kwargs)
        finally:
            for part, is_training in modes:
                part.training = is_training

    return run


def count_classes(model: nn.Module) -> int:
    """Return the number of a network's logits."""
    return run_on_zeros(unwrap(model), model).shape[1]


@torch.no_grad()
def predict_in_batches(tail: nn.Module, x: Tensor, device: torch.device) -> Tensor:
    """Return the classes [N] that a tail gives to its inputs x, on the CPU."""
    return torch.cat([tail(batch.to(device)).argmax(1).cpu() for batch in x.split(BATCH)])


def draw_for_each(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a number from 0 to 1 for each sample of x [N, ...], in the shape [N, 1, ...] that multiplies x."""
    return torch.rand(len(x), *[1] * (x.dim() - 1), generator=generator)
