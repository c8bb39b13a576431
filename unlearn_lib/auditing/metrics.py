"""Metrics: numbers that compare the answers or the weights of two networks.

F: forget classes. R: retain classes. Golden: a network that never saw F. Logits [N, K] may be on any device, in any
precision.
"""

import math

import torch
from torch import nn

from unlearn_lib.common import UserError
from unlearn_lib.evaluation import confusion_matrix


def js_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence of two networks' softmax, one value a picture.

    JS = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2 (Lin, IEEE Trans. Information Theory 1991). A widely
    copied version computes KL(m || p) and averages over the classes too. That version has no such bound.

    Args:
        first, second: logits [N, K].

    Returns:
        float64 [N], in nats, symmetric, 0 to ln 2.

    Raises:
        UserError: the logits make no distribution (NaN, +inf, a row of -inf alone).
    """
    log_p = torch.stack([first.cpu().double(), second.cpu().double()]).log_softmax(2)  # of p and q, [2, N, K]
    if log_p.isnan().any():
        raise UserError("logits: got NaN or +inf; expected finite numbers, or -inf in some of the classes")
    log_m = torch.logaddexp(*log_p) - math.log(2)
    terms = (log_p.exp() * (log_p - log_m)).where(log_p > -torch.inf, 0.0)  # 0 log 0 = 0
    return terms.sum(2).mean(0).clamp(0, math.log(2))


def agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the share of pictures, 0 to 1, to which two networks give the same answer (argmax of logits [N, K]).

    Trap: two golden networks of different seeds disagree too. Compare with their agreement.
    """
    return (first.argmax(1).cpu() == second.argmax(1).cpu()).double().mean().item()


def zrf(logits: torch.Tensor, random_logits: torch.Tensor) -> float:
    """Return zero retrain forgetting, 1 - mean JS to a randomly initialised network on pictures of F.

    1 means as ignorant as an untrained network, 1 - ln 2 the opposite (Chundawat et al., AAAI 2023). Trap: golden
    knows R and scores below many methods. Compare with golden's value.
    """
    return 1 - js_divergence(logits, random_logits).mean().item()


def misplaced_answers(
    answers: torch.Tensor, golden_answers: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> float:
    """Return the share of pictures that must change their answer to be distributed as golden's answers are.

    It is half the L1 distance (total variation) between two networks' answer shares, class by class, averaged over
    the classes of `labels`. Trap: it compares counts. Two networks at 0 may differ on every picture; see `agreement`.

    Args:
        answers, golden_answers, labels: classes, int64 [N], of pictures of F.

    Returns:
        0 to 1.
    """
    present = labels.cpu().unique()
    shares = []
    for given in (answers, golden_answers):
        counts = confusion_matrix(given.cpu(), labels.cpu(), num_classes)[present].double()
        shares.append(counts / counts.sum(1, keepdim=True))
    return ((shares[0] - shares[1]).abs().sum(1) / 2).mean().item()


def weight_changes(model: nn.Module, original: nn.Module) -> dict[str, float]:
    """Return |new - old| / |old|, from 0 on, of every parameter and buffer that differs from the original's.

    Trap: |old| counts as at least 1e-12, so a tensor of zeros, such as a new bias, changes by a huge factor.
    """
    state = model.state_dict()
    changes = {}
    for name, tensor in original.state_dict().items():
        old = tensor.cpu().double()
        changes[name] = (state[name].cpu().double() - old).norm() / old.norm().clamp(min=1e-12)
    return {name: change.item() for name, change in changes.items() if change != 0}
