"""Attacks: real pictures show what a network still knows of the forget classes. `audit` runs all of them.

Attacks change copies alone, and draw from `seed` alone. Pictures that do not open are left out.
"""

import copy
from collections.abc import Collection, Iterator
from itertools import islice

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from unlearn_lib.auditing.metrics import agreement, js_divergence, misplaced_answers, zrf
from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.data import Data, Pictures, iterate_batches, predict_logits
from unlearn_lib.evaluation import logits_and_labels
from unlearn_lib.networks import find_memory_format, split

LIMIT = 1000  # mini-batches of relearning at most
BATCH = 128  # pictures a mini-batch of relearning
FOLDS = 5  # of the membership attack's cross-validation


def membership(member_losses: torch.Tensor, other_losses: torch.Tensor, seed: int = 0) -> float | None:
    """Return the accuracy of a logistic regression that tells training from test pictures by their loss.

    Membership inference (Shokri et al., IEEE S&P 2017) in its loss form (Yeom et al., IEEE CSF 2018), with five-fold
    cross-validation on equally many pictures of both kinds, drawn from `seed`. Trap: for classes that were forgotten
    as a whole only the gap to golden's value has a meaning.

    Args:
        member_losses, other_losses: losses [N] of training and of test pictures.

    Returns:
        0 to 1; 0.5 is chance. None for fewer than five pictures of either kind.
    """
    count = min(len(member_losses), len(other_losses))
    if count < FOLDS:
        return None
    generator = torch.Generator().manual_seed(seed)
    drawn = [x.cpu()[torch.randperm(len(x), generator=generator)[:count]] for x in (member_losses, other_losses)]
    order = torch.randperm(2 * count, generator=generator)
    losses = torch.cat(drawn).double()[order, None]
    is_member = order < count
    attacker = make_pipeline(StandardScaler(), LogisticRegression())
    with threadpool_limits(1, "blas"):
        return float(cross_val_score(attacker, losses.numpy(), is_member.numpy(), cv=FOLDS).mean())


def membership_forget(model: nn.Module, data: Data, forget: Collection[int], *, seed: int = 0) -> float | None:
    """Return `membership` of at most 2,000 training pictures of F against the test pictures of F."""
    members = data.train.only(forget)
    members = members.take(_draw(len(members), 2000, torch.Generator().manual_seed(seed)))
    losses = [
        F.cross_entropy(*logits_and_labels(model, pictures, data), reduction="none")
        for pictures in (members, data.test.only(forget))
    ]
    return membership(*losses, seed=seed)


def linear_probe(
    train: torch.Tensor, train_labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor
) -> float:
    """Return the test accuracy, 0 to 1, of a logistic regression on frozen features.

    Linear probe (Alain and Bengio, ICLR workshop 2017): it shows what the features contain, even if the head hides it.
    Trap: on test pictures of F, compare with golden's probe, never with 0.

    Args:
        train, test: features [N, D].
        train_labels, test_labels: classes [N]. The probe knows all classes of `train_labels`.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with threadpool_limits(1, "blas"):  # on small features more threads take six times as long
        probe.fit(train.cpu().numpy(), train_labels.cpu().numpy())
        return float(probe.score(test.cpu().numpy(), test_labels.cpu().numpy()))


@torch.no_grad()
def extract_features(model: nn.Module, images: torch.Tensor | Pictures, data: Data, layer: str) -> torch.Tensor:
    """Return the inputs of `layer` for uint8 pictures, flattened to float32 [N, D], on the CPU."""
    body, _ = split(model, layer)
    return torch.cat([body(batch).flatten(1).float().cpu() for batch in iterate_batches(model, images, data)])


def probe_forget_classes(
    model: nn.Module, data: Data, forget: Collection[int], layer: str, *, samples: int = 1000, seed: int = 0
) -> float:
    """Return the accuracy of `linear_probe` at the input of `layer` on the test pictures of F.

    Args:
        samples: training pictures of each class, forget classes included, on which the probe is fitted.

    Raises:
        UserError: a forget class has no training picture that opens, or F has no test picture.
    """
    generator = torch.Generator().manual_seed(seed)
    places = [(data.train.labels == c).nonzero()[:, 0] for c in range(data.num_classes)]
    drawn = torch.cat([members[_draw(len(members), samples, generator)] for members in places])
    parts = []
    for pictures in (data.train.take(drawn), data.test.only(forget)):
        features = extract_features(model, pictures.images, data, layer)
        opened = pictures.readable  # known once all have been read
        parts += [features[opened], pictures.labels[opened]]
    _check_pictures(data, forget, parts[1], parts[3])
    return linear_probe(*parts)


def relearn_curve(
    model: nn.Module, data: Data, forget: Collection[int], target: float, *, seed: int = 0, limit: int = LIMIT
) -> list[float]:
    """Return the forget accuracy, 0 to 1, before the first mini-batch of relearning and after each.

    A copy of the model trains all its weights on all training pictures, in an order drawn from `seed`: batch 128, Adam
    1e-3. Forget accuracy is measured on 1,000 fixed test pictures of F (relearn time: Tarun et al., IEEE TNNLS 2023,
    here in mini-batches instead of epochs). Trap: a masked head does not relearn within the limit, though its features
    know F. Read the probe too.

    Args:
        target: the forget accuracy at which relearning stops.
        limit: mini-batches at most.

    Raises:
        UserError: a forget class has no training picture, or F has no test picture.
    """
    generator = torch.Generator().manual_seed(seed)
    test = data.test.only(forget)
    images, labels = test.batch(_draw(len(test), 1000, generator))
    _check_pictures(data, forget, data.train.labels, labels)
    model = copy.deepcopy(model).float().requires_grad_(True).eval().to(memory_format=torch.channels_last)
    device = get_device(model)
    model.to(memory_format=find_memory_format(model, data.normalise(images[:2].to(device))))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def measure() -> float:
        with fast_arithmetic(device):
            answers = predict_logits(model, images, data).argmax(1)
        return (answers == labels).double().mean().item()

    curve = [measure()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for dropout
        for index in islice(_draw_batches(len(data.train), generator), limit):
            if curve[-1] >= target:
                break
            batch, batch_labels = data.train.batch(index)
            if len(batch) < 2:  # BatchNorm has no statistics of one picture
                continue
            with fast_arithmetic(device):
                logits = model.train()(data.normalise(batch.to(device)))
            optimiser.zero_grad()
            F.cross_entropy(logits.float(), batch_labels.to(device)).backward()
            optimiser.step()
            curve.append(measure())
    return curve


def _draw_batches(count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield positions of `count` pictures, a mini-batch at a time, epoch after epoch, each in its own order.

    A last batch of one picture joins the one before it, since BatchNorm has no statistics of one picture.
    """
    while True:
        batches = [*torch.randperm(count, generator=generator).split(BATCH)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        yield from batches


def relearn_time(curve: list[float], target: float) -> int | None:
    """Return the mini-batches, from 0 on, until the curve reaches `target`; None if it never does."""
    return next((batches for batches, accuracy in enumerate(curve) if accuracy >= target), None)


def anamnesis_index(batches: int | None, golden_batches: int | None) -> float | None:
    """Return the anamnesis index, relearn time over golden's, from 0 on (Chundawat et al., IEEE TIFS 2023).

    1 is ideal. Trap: both sides are bad. Far below 1 forgetting was shallow. Far above 1 the network is over-unlearned,
    or only its head resists: relearn with a new head in both networks to see which.

    Returns:
        None if either network did not relearn, or golden's time is 0.
    """
    return batches / golden_batches if batches is not None and golden_batches else None


def audit(
    model: nn.Module,
    data: Data,
    forget: Collection[int],
    *,
    golden: nn.Module,
    stranger: nn.Module,
    target: float,
    layer: str,
    seed: int = 0,
) -> dict:
    """Return all metrics of one network as numbers, and its relearn curve.

    Args:
        golden: the network retrained without F; js, agreement and misplaced compare with it.
        stranger: a randomly initialised network, for zrf.
        target: the forget accuracy at which F counts as relearned.
        layer: the probe reads the inputs of this layer.

    Returns:
        forget_accuracy, retain_accuracy, js_forget, js_retain, agreement_forget, agreement_retain, misplaced, zrf,
        probe, curve, relearn (None: not within LIMIT), membership (None: too few pictures).

    Raises:
        UserError: the data has no training picture of a forget class, or no test picture of F or of R.
    """
    probe = probe_forget_classes(model, data, forget, layer, seed=seed)
    curve = relearn_curve(model, data, forget, target, seed=seed, limit=LIMIT)
    numbers = {"probe": probe, "curve": curve, "relearn": relearn_time(curve, target)}
    numbers["membership"] = membership_forget(model, data, forget, seed=seed)
    for part, pictures in (("forget", data.test.only(forget)), ("retain", data.test.without(forget))):
        logits, labels = logits_and_labels(model, pictures, data)
        golden_logits, _ = logits_and_labels(golden, pictures, data)
        if not len(labels):
            raise UserError(
                f"data: {data.name} has no test picture of the retain classes that opens; an audit needs some"
            )
        answers = logits.argmax(1)
        numbers[f"{part}_accuracy"] = (answers == labels).double().mean().item()
        numbers[f"js_{part}"] = js_divergence(logits, golden_logits).mean().item()
        numbers[f"agreement_{part}"] = agreement(logits, golden_logits)
        if part == "forget":
            stranger_logits, _ = logits_and_labels(stranger, pictures, data)
            numbers["zrf"] = zrf(logits, stranger_logits)
            numbers["misplaced"] = misplaced_answers(answers, golden_logits.argmax(1), labels, data.num_classes)
    return numbers


def _check_pictures(data: Data, forget: Collection[int], train_labels: torch.Tensor, test_labels: torch.Tensor) -> None:
    """Raise UserError if a forget class has no training picture, or all of them no test picture."""
    absent = [data.classes[c] for c in forget if c not in train_labels]
    if absent:
        raise UserError(f"data: {data.name} has no training picture of {absent} that opens; an audit needs some")
    if not len(test_labels):
        raise UserError(f"data: {data.name} has no test picture of the forget classes that opens; an audit needs some")


def _draw(count: int, most: int, generator: torch.Generator) -> torch.Tensor:
    """Return at most `most` of `count` positions, drawn at random, in ascending order."""
    return torch.randperm(count, generator=generator)[:most].sort().values
