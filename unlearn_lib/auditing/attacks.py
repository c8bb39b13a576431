"""Attacks: what a network still knows of the forget classes, asked with real pictures; and the whole audit of one.

Attacks work on copies, and their randomness comes from `seed` alone. Pictures that do not open are left out.
"""

import copy
import itertools
from collections.abc import Collection, Iterator

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
from unlearn_lib.data import Data, Pictures, Split, iterate_batches, predict_logits
from unlearn_lib.evaluation import logits_and_labels
from unlearn_lib.networks import find_memory_format, split

LIMIT = 1000  # mini-batches after which relearning is given up
FOLDS = 5  # of the membership attack's cross-validation


def membership(member_losses: torch.Tensor, other_losses: torch.Tensor, seed: int = 0) -> float | None:
    """Accuracy, 0 to 1, with which a logistic regression tells training pictures from test pictures by their loss [N].

    0.5 is a coin's toss. Cross-validated five-fold on equally many of both, drawn from `seed` (Shokri et al., IEEE S&P
    2017, in its loss form: Yeom et al., IEEE CSF 2018). None for fewer than five pictures of either kind.
    Trap: of whole forgotten classes only the gap to golden's value means anything.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(len(member_losses), len(other_losses))
    if n < FOLDS:
        return None
    parts = [x.cpu()[torch.randperm(len(x), generator=generator)[:n]] for x in (member_losses, other_losses)]
    x, y = torch.cat(parts).double()[:, None].numpy(), [1] * n + [0] * n
    order = torch.randperm(2 * n, generator=generator).tolist()
    attacker = make_pipeline(StandardScaler(), LogisticRegression())
    with threadpool_limits(1, "blas"):
        return float(cross_val_score(attacker, x[order], [y[i] for i in order], cv=FOLDS).mean())


def membership_forget(model: nn.Module, data: Data, forget: Collection[int], *, seed: int = 0) -> float | None:
    """`membership` of at most 2,000 training pictures of F against the test pictures of F."""
    members = _some(data.train.only(forget), 2000, torch.Generator().manual_seed(seed))
    losses = [
        F.cross_entropy(*logits_and_labels(model, pictures, data), reduction="none")
        for pictures in (members, data.test.only(forget))
    ]
    return membership(*losses, seed=seed)


def linear_probe(
    train: torch.Tensor, train_labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor
) -> float:
    """Test accuracy, 0 to 1, of a logistic regression over all classes of `train_labels` on frozen features [N, D].

    Linear probe (Alain and Bengio, ICLR workshop 2017): what can be read off the features, whatever the head says.
    Trap: given the test pictures of F, read it against golden's own probe, never against 0.
    """
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    train, train_labels, test, test_labels = (part.cpu().numpy() for part in (train, train_labels, test, test_labels))
    with threadpool_limits(1, "blas"):  # more threads wait for each other, six times as long on small features
        return float(reader.fit(train, train_labels).score(test, test_labels))


@torch.no_grad()
def extract_features(model: nn.Module, images: torch.Tensor | Pictures, data: Data, layer: str) -> torch.Tensor:
    """What enters `layer`, flattened to float32 [N, D], on the CPU, for uint8 pictures."""
    body, _ = split(model, layer)
    return torch.cat([body(batch).flatten(1).float().cpu() for batch in iterate_batches(model, images, data)])


def probe_forget_classes(
    model: nn.Module, data: Data, forget: Collection[int], layer: str, *, samples: int = 1000, seed: int = 0
) -> float:
    """Return the accuracy of `linear_probe` at the input of `layer` on the test pictures of F.

    It is fitted on `samples` training pictures of every class, forget classes included.

    Raises UserError where a forget class has no training picture that opens, which no probe could find.
    """
    generator, train, places = torch.Generator().manual_seed(seed), data.train, torch.arange(len(data.train))
    members = [_draw(places[train.labels == c], samples, generator) for c in range(data.num_classes)]
    parts = []
    for pictures in (train.take(torch.cat(members)), data.test.only(forget)):
        features = extract_features(model, pictures.images, data, layer)
        parts += [features[pictures.readable], pictures.labels[pictures.readable]]  # known now that all have been read
    _check_pictures(data, forget, parts[1], parts[3])
    return linear_probe(*parts)


def relearn_curve(
    model: nn.Module, data: Data, forget: Collection[int], target: float, *, seed: int = 0, limit: int = LIMIT
) -> list[float]:
    """Forget accuracy, 0 to 1, before the first mini-batch and after each, until it reaches `target`; `limit` at most.

    All train pictures in a fixed order, batch 128, Adam 1e-3, all weights of a copy; forget accuracy on 1,000 fixed
    test pictures of F (relearn time: Tarun et al., IEEE TNNLS 2023, in mini-batches in place of epochs).
    Trap: a masked head is not relearned within the limit, though its features know F: read it beside the probe.
    Raises UserError where a forget class has no training picture to learn from.
    """
    model = copy.deepcopy(model).float().requires_grad_(True).to(memory_format=torch.channels_last)
    device, generator = get_device(model), torch.Generator().manual_seed(seed)
    test = _some(data.test.only(forget), 1000, generator)
    images, labels = test.batch(torch.arange(len(test)))
    _check_pictures(data, forget, data.train.labels, labels)
    model.to(memory_format=find_memory_format(model.eval(), data.normalise(images[:2].to(device))))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    curve = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dropout
        for index in itertools.chain([None], itertools.islice(_batches(len(data.train), generator), limit)):
            if index is not None and not _learn(model, optimiser, *data.train.batch(index), data):
                continue
            with fast_arithmetic(device):
                right = predict_logits(model, images, data).argmax(1) == labels
            curve.append(right.double().mean().item())
            if curve[-1] >= target:
                break
    return curve


def _batches(count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Positions of `count` pictures, 128 at a time, epoch after epoch, each epoch in an order of its own.

    A last batch of one picture, of which BatchNorm has no statistics, joins the one before it.
    """
    while True:
        order = torch.randperm(count, generator=generator)
        alone = count % 128 == 1 and count > 1
        parts = order[:-1].split(128) if alone else order.split(128)
        yield from parts[:-1]
        yield torch.cat([parts[-1], order[-1:]]) if alone else parts[-1]


def _learn(model: nn.Module, optimiser, images: torch.Tensor, labels: torch.Tensor, data: Data) -> bool:
    """One step on a batch; False where fewer than two of its pictures open."""
    if len(labels) < 2:
        return False
    device = get_device(model)
    with fast_arithmetic(device):
        logits = model.train()(data.normalise(images.to(device)))
    optimiser.zero_grad()
    F.cross_entropy(logits.float(), labels.to(device)).backward()
    optimiser.step()
    return True


def relearn_time(curve: list[float], target: float) -> int | None:
    """Mini-batches until the curve reaches `target`, from 0 on; None where it never does."""
    return next((batches for batches, accuracy in enumerate(curve) if accuracy >= target), None)


def anamnesis_index(batches: int | None, golden_batches: int | None) -> float | None:
    """Anamnesis index, relearn time over golden's, from 0 on (Chundawat et al., IEEE TIFS 2023): 1 is ideal.

    Trap: both sides are bad. Far below 1 forgetting was shallow, far above it the network is over-unlearned. None where
    either time was not reached, or golden's is 0.
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
    """All metrics of one network, as numbers; the relearn curve too.

    golden: retrained without F, what js, agreement and misplaced compare with. stranger: a randomly initialised
    network, for zrf. target: the forget accuracy at which F count as relearned. layer: where the probe reads.
    Returns forget_accuracy, retain_accuracy, probe, relearn (None: not within LIMIT), curve, membership (None: too few
    pictures), js_forget, js_retain, agreement_forget, agreement_retain, misplaced, zrf.
    """
    test, numbers = {"forget": data.test.only(forget), "retain": data.test.without(forget)}, {}
    _check_pictures(data, forget, data.train.labels, test["forget"].labels)
    for part, pictures in test.items():
        (logits, labels), (golden_logits, _) = (logits_and_labels(m, pictures, data) for m in (model, golden))
        if not len(labels):
            raise UserError(
                f"data: {data.name} has no test picture of the {part} classes that opens; an audit needs some"
            )
        numbers[f"{part}_accuracy"] = (logits.argmax(1) == labels).double().mean().item()
        numbers[f"js_{part}"] = js_divergence(logits, golden_logits).mean().item()
        numbers[f"agreement_{part}"] = agreement(logits, golden_logits)
        if part == "forget":
            answers = logits.argmax(1), golden_logits.argmax(1)
            numbers["misplaced"] = misplaced_answers(*answers, labels, data.num_classes)
            numbers["zrf"] = zrf(logits, logits_and_labels(stranger, pictures, data)[0])
    numbers["probe"] = probe_forget_classes(model, data, forget, layer, seed=seed)
    numbers["curve"] = relearn_curve(model, data, forget, target, seed=seed, limit=LIMIT)
    numbers["relearn"] = relearn_time(numbers["curve"], target)
    numbers["membership"] = membership_forget(model, data, forget, seed=seed)
    return numbers


def _check_pictures(data: Data, forget: Collection[int], train_labels: torch.Tensor, test_labels: torch.Tensor) -> None:
    """Raise UserError where a forget class has no training picture, or none of them a test picture."""
    absent = sorted(set(forget) - set(train_labels.tolist()))
    if absent or not len(test_labels):
        part = f"training picture of {[data.classes[c] for c in absent]}" if absent else "test picture to forget"
        raise UserError(f"data: {data.name} has no {part} that opens; an audit needs some of every forget class")


def _draw(places: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """At most `count` of the places, drawn at random, in their old order."""
    return places[torch.randperm(len(places), generator=generator)[:count].sort().values]


def _some(pictures: Split, count: int, generator: torch.Generator) -> Split:
    """At most `count` of the pictures, drawn at random, in their old order."""
    return pictures.take(_draw(torch.arange(len(pictures)), count, generator))
