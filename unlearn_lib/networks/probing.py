"""Helpers that try a network out: unwrapped, on pictures of zeros, in a copy that protects the network itself."""

from contextlib import suppress

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unlearn_lib.common import UserError, get_device

LARGE = 3 * 64 * 64  # numbers in a picture; above this a forward pass computes shapes alone (FakeTensorMode)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside torch.compile's wrapper. Raises UserError for other wrappers."""
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("model: got a scripted network; expected the nn.Module that was scripted")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UserError(f"model: got a {type(model).__name__}; expected the network in it, its .module")
    return getattr(model, "_orig_mod", model)


def copy_in_eval_mode(model: nn.Module, copies: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """Return a copy of the model in eval mode that shares its parameters, buffers and hooks.

    Modules are copied, tensors are not. The copy's mode is its own, and so is every attribute and buffer that a
    forward pass creates. Scripted parts cannot be copied like this; the copy holds the same ones.

    Args:
        copies: modules copied so far, for a module that stands at two places.
    """
    copies = {} if copies is None else copies
    if isinstance(model, torch.jit.ScriptModule):
        return model
    if model not in copies:
        copies[model] = copied = object.__new__(type(model))
        vars(copied).update(vars(model), training=False, _buffers=dict(model._buffers))
        children = {name: child and copy_in_eval_mode(child, copies) for name, child in model._modules.items()}
        vars(copied).update(_modules=children)
    return copies[model]


def zero_pictures(model: nn.Module, batch: int = 2) -> torch.Tensor:
    """Return pictures of zeros [batch, C, H, W], of the type and on the device of the model's parameters.

    Raises:
        UserError: the model has no `input_shape`.
    """
    if not hasattr(model, "input_shape"):
        name = type(model).__name__
        raise UserError(f"model: {name} has no input_shape; set it to (channels, height, width)")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    return torch.zeros(batch, *model.input_shape, dtype=dtype, device=get_device(model))


def run_on_zeros(module: nn.Module, model: nn.Module, batch: int = 2):
    """Return what `module`, the model or a part of it, computes for zero pictures, in eval mode without gradients.

    Large pictures run through fake tensors, faster and with right shapes, unless a part needs real numbers.
    """
    x = zero_pictures(model, batch)
    with torch.no_grad():
        if x[0].numel() > LARGE:
            with suppress(Exception), FakeTensorMode(allow_non_fake_inputs=True):
                return copy_in_eval_mode(module)(torch.zeros_like(x))
        return copy_in_eval_mode(module)(x)


@torch.no_grad()
def find_memory_format(net: nn.Module, x: torch.Tensor) -> torch.memory_format:
    """Return the faster memory format for pictures like x: channels last, unless the network's code refuses it.

    `x.view(-1, 400)`, as many textbooks write, does refuse it.
    """
    try:
        net(x.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
