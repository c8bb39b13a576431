"""What a network is, out of its wrapper, and what shapes it gives for pictures of zeros."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unlearn_lib.common import UserError, get_device

LARGE = 3 * 64 * 64  # numbers in a picture, up to which a pass through the network is cheap


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, out of torch.compile's wrapper. Raises UserError for wrappers that hide it."""
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("model: a scripted network given; the nn.Module that was scripted is accepted")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UserError(f"model: a {type(model).__name__} given; the network in it, its .module, is accepted")
    return getattr(model, "_orig_mod", model)


def zero_pictures(model: nn.Module, batch: int = 2) -> torch.Tensor:
    """Pictures of zeros, of the type and on the device of the model's parameters; two, which nothing squeezes away.

    Raises UserError where the model does not tell the shape of a picture.
    """
    if not hasattr(model, "input_shape"):
        name = type(model).__name__
        raise UserError(f"model: {name} does not tell what it takes; set its input_shape = (channels, height, width)")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return torch.zeros(batch, *model.input_shape, dtype=dtype, device=get_device(model))


@contextmanager
def restore_attributes(model: nn.Module) -> Iterator[None]:
    """Undo what a pass leaves behind in the model's parts: what they keep for the next one would be no real tensor."""
    parts = [part for part in model.modules() if not isinstance(part, torch.jit.ScriptModule)]
    states = [(held, {**held}) for part in parts for held in (vars(part), part._buffers)]
    try:
        yield
    finally:
        for held, before in states:
            for name in held.keys() - before.keys():
                del held[name]
            held.update(before)


def run_on_zeros(run: Callable[[torch.Tensor], object], model: nn.Module, batch: int = 2):
    """`run` of a probe, without gradients: of a large one by shapes alone where all parts can, which is faster."""
    x = zero_pictures(model, batch)
    with torch.no_grad():
        if x[0].numel() > LARGE:
            # a part may want real numbers
            with suppress(Exception), restore_attributes(model), FakeTensorMode(allow_non_fake_inputs=True):
                return run(torch.zeros_like(x))
        return run(x)


@torch.no_grad()
def find_memory_format(net: nn.Module, x: torch.Tensor) -> torch.memory_format:
    """The order in memory in which a network takes pictures like x fastest: channels last, unless its own code refuses.

    `x.view(-1, 400)`, as many textbooks write, does.
    """
    try:
        net(x.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
