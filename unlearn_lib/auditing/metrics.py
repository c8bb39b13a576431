"""Metrics of two networks' answers and weights, each a function of its own.

F forget classes, R retain classes; a golden network never saw F. Logits [N, K] may be on any device, in any precision.
"""

import math

import torch
from torch import nn

from unlearn_lib.common import UserError
from unlearn_lib.evaluation import confusion_matrix


def js_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of the softmax of two sets of logits [N, K], in nats, [N]: 0 to ln 2, symmetric.

    JS = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2 (Lin, IEEE Trans. Information Theory 1991). A widely
    copied version computes KL(m || p), and its mean over classes too: it has no such bound.
    Raises UserError on logits that make no distribution (NaN, +inf, a row of -inf alone).
    """
    p, q = (logits.cpu().double().log_softmax(1) for logits in (first, second))
    if p.isnan().any() or q.isnan().any():
        raise UserError("logits: NaN or +inf given; numbers are accepted, and -inf in some classes")
    m = torch.logaddexp(p, q) - math.log(2)

    def kl(a: torch.Tensor) -> torch.Tensor:
        return torch.where(a == -torch.inf, 0.0, a.exp() * (a - m)).sum(1)  # 0 log 0 = 0

    return ((kl(p) + kl(q)) / 2).clamp(0, math.log(2))


def agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Share of pictures, 0 to 1, to which two sets of logits [N, K] give the same answer (argmax).

    Trap: two golden networks of different seeds do not agree in everything; read it beside theirs.
    """
    return (first.argmax(1).cpu() == second.argmax(1).cpu()).double().mean().item()


def zrf(logits: torch.Tensor, random_logits: torch.Tensor) -> float:
    """Zero retrain forgetting: 1 - mean JS to a randomly initialised network on pictures of F, 1 - ln 2 to 1.

    1 means: as ignorant as if never trained (Chundawat et al., AAAI 2023). Trap: golden itself, which knows what R
    look like, scores below many methods; read the gap to golden.
    """
    return 1 - js_divergence(logits, random_logits).mean().item()


def misplaced_answers(
    answers: torch.Tensor, golden_answers: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> float:
    """Share of pictures of F, 0 to 1, that would have to change their answer to be spread as golden spreads them.

    Half the L1 distance (total variation) of the two networks' answer shares, class by class, mean over the classes
    of `labels`; all three are classes, int64 [N]. Trap: it compares counts, so that two networks may be at 0 and yet
    differ on every single picture (`agreement` tells).
    """
    labels, shares = labels.cpu(), []
    for given in (answers, golden_answers):
        counts = confusion_matrix(given.cpu(), labels, num_classes).double()[labels.unique()]
        shares.append(counts / counts.sum(1, keepdim=True))
    return ((shares[0] - shares[1]).abs().sum(1) / 2).mean().item()


def weight_changes(model: nn.Module, original: nn.Module) -> dict[str, float]:
    """The tensors that differ from the original's, buffers included, and by how much: |new - old| / |old|, from 0 on.

    Trap: a tensor that was all zero, as a new bias is, has moved by |new - old| / 1e-12.
    """
    pairs = {name: (old.cpu(), model.state_dict()[name].cpu()) for name, old in original.state_dict().items()}
    return {
        name: ((new.double() - old.double()).norm() / old.double().norm().clamp(min=1e-12)).item()
        for name, (old, new) in pairs.items()
        if not torch.equal(old, new)
    }
