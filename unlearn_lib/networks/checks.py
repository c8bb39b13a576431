"""What a network of a user's own must be, found out before any work: each refusal names what is accepted instead."""

import torch
from torch import nn

from unlearn_lib.common import UserError
from unlearn_lib.networks.bounds import logit_bounds
from unlearn_lib.networks.probing import unwrap, zero_pictures


@torch.no_grad()
def check_network(model: nn.Module, name: str) -> None:
    """Raise UserError for a network that would fail later, or train and answer wrongly.

    Those are: wrappers that hide it, numbers of another kind than float32, no parameters, a batch of one whose axis is
    squeezed away, and answers that are no logits (softmax, sigmoid, tanh), on which training and unlearning hardly move
    or lose the retain classes. The picture's shape has to stand in `model.input_shape`.
    """
    model = unwrap(model)
    tensors = list(model.state_dict().values())
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise UserError(f"model: {name} is quantised or keeps more than tensors; a plain float32 network is accepted")
    kinds = {p.dtype for p in model.parameters()}
    if not kinds:
        raise UserError(f"model: {name} has no parameters; a network that can be trained is accepted")
    if kinds != {torch.float32}:
        found = ", ".join(sorted(map(str, kinds)))
        raise UserError(f"model: its weights are {found}; float32 is accepted (model.float() makes them so)")
    pictures = torch.rand(zero_pictures(model).shape, generator=torch.Generator().manual_seed(0)).to(
        zero_pictures(model)
    )
    answers, alone = model.eval()(pictures), model(pictures[:1])
    if not isinstance(answers, torch.Tensor) or answers.dim() != 2:
        return  # refused elsewhere
    if alone.shape != answers[:1].shape:
        raise UserError(
            f"model: {name} answers a single picture with {tuple(alone.shape)}, {tuple(answers[:1].shape)} is wanted; "
            "flatten(1) instead of squeeze() does it"
        )
    if answers.shape[1] > 1 and (answers >= 0).all() and (answers.sum(1) - 1).abs().max() < 1e-4:
        raise UserError(f"model: {name} returns probabilities (softmax); one that returns its logits is accepted")
    try:
        low, high = logit_bounds(model)
    except UserError:  # it cannot be traced
        return
    if low >= -1 and high <= 1:
        raise UserError(
            f"model: {name} returns numbers between {low:g} and {high:g}; one that returns its logits is accepted"
        )


def check_logits(logits: object, num_classes: int) -> None:
    """Raise UserError where what a network gives in training is not one logit a class."""
    if not isinstance(logits, torch.Tensor):
        kind = type(logits).__name__
        raise UserError(f"model: it returns a {kind} in training; one that returns its logits is accepted")
    if logits.shape[1:] != (num_classes,):
        outputs = "x".join(map(str, logits.shape[1:]))
        raise UserError(f"model: {outputs} outputs given; {num_classes} are wanted, one a class")
