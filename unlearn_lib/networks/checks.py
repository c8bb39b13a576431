"""Checks of a user's own network before any work. Each refusal names what is accepted instead."""

import torch
from torch import nn

from unlearn_lib.common import UserError
from unlearn_lib.networks.bounds import logit_bounds
from unlearn_lib.networks.probing import copy_in_eval_mode, unwrap, zero_pictures
from unlearn_lib.networks.tracing import describe_wrong_output


@torch.no_grad()
def check_network(model: nn.Module, name: str) -> None:
    """Raise UserError for a network that would fail later, or train and answer wrongly.

    Refused are: wrappers that hide the network, other types than float32, no parameters, a single picture whose batch
    axis is squeezed away, and outputs that are no logits (softmax, sigmoid, tanh). On such outputs training and
    unlearning hardly move or lose the retain classes. The model needs an `input_shape`.
    """
    model = unwrap(model)
    if not all(isinstance(tensor, torch.Tensor) for tensor in model.state_dict().values()):
        raise UserError(f"model: {name} is quantised or keeps more than tensors; expected a plain float32 network")
    types = {parameter.dtype for parameter in model.parameters()}
    if not types:
        raise UserError(f"model: {name} has no parameters; expected a network that can be trained")
    if types != {torch.float32}:
        found = ", ".join(sorted(map(str, types)))
        raise UserError(f"model: its weights are {found}; expected float32 (model.float() converts them)")
    zeros = zero_pictures(model)
    pictures = torch.rand(zeros.shape, generator=torch.Generator().manual_seed(0)).to(zeros)
    copied = copy_in_eval_mode(model)
    logits, single = copied(pictures), copied(pictures[:1])
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        return  # refused elsewhere
    if single.shape != logits[:1].shape:
        raise UserError(
            f"model: {name} returns {tuple(single.shape)} for a single picture; expected {tuple(logits[:1].shape)}; "
            "use flatten(1) instead of squeeze()"
        )
    if logits.shape[1] > 1 and (logits >= 0).all() and (logits.sum(1) - 1).abs().max() < 1e-4:
        raise UserError(f"model: {name} returns probabilities (softmax); expected its logits")
    try:
        low, high = logit_bounds(model)
    except UserError:  # it cannot be traced
        return
    if low >= -1 and high <= 1:
        raise UserError(f"model: {name} returns numbers between {low:g} and {high:g}; expected its logits")


def check_logits(logits: object, num_classes: int | None, name: str = "the network") -> None:
    """Raise UserError unless the output is a tensor [N, num_classes]; with None, [N, K] for any K."""
    if not isinstance(logits, torch.Tensor):
        raise UserError(describe_wrong_output(name, type(logits)))
    if logits.dim() != 2 or num_classes not in (None, logits.shape[1]):
        outputs = "x".join(map(str, logits.shape[1:]))
        raise UserError(f"model: {name} has {outputs} outputs; expected {num_classes or 'a row of them'}, one a class")
