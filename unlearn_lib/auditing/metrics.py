"""The audit: is the knowledge gone, or only the answer?

Each metric is a function of its own. `audit` puts them together for one model beside golden; it works on copies, and
its randomness comes from `seed` alone. F forget classes, R retain classes; a golden model never saw F.
"""

import copy
import math
from collections.abc import Collection

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import fast_arithmetic
from unlearn_lib.data import Data, Split
from unlearn_lib.evaluation import confusion_of, logits_of
from unlearn_lib.networks import split

LIMIT = 1000  # mini-batches after which relearning is given up


def js_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of the softmax of two sets of logits [N, K], in nats, [N]: 0 to ln 2, symmetric.

    JS = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2 (Lin 1991).
    """
    p, q = first.double().log_softmax(1), second.double().log_softmax(1)
    m = torch.logaddexp(p, q) - math.log(2)

    def kl(a: torch.Tensor) -> torch.Tensor:
        return (a.exp() * (a - m)).nan_to_num(0.0).sum(1)  # 0 log 0 = 0

    return ((kl(p) + kl(q)) / 2).clamp(0, math.log(2))


def agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Share of pictures to which two sets of logits [N, K] give the same answer (argmax)."""
    return (first.argmax(1) == second.argmax(1)).double().mean().item()


def zrf(logits: torch.Tensor, random_logits: torch.Tensor) -> float:
    """Zero retrain forgetting: 1 - mean JS to a randomly initialised model on forget pictures (Chundawat et al. 2023).

    1 means: as ignorant as if never trained. Golden itself scores below many methods; read the gap to golden.
    """
    return 1 - js_divergence(logits, random_logits).mean().item()


def membership(member_losses: torch.Tensor, other_losses: torch.Tensor, seed: int = 0) -> float:
    """Accuracy with which a logistic regression tells training pictures from test pictures by their loss (0.5: not).

    Cross-validated five-fold on equally many of both, drawn from `seed` (Shokri et al. 2017 in its loss form, Yeom et
    al. 2018). Of whole forgotten classes only the gap to golden's value means anything.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(len(member_losses), len(other_losses))
    parts = [x[torch.randperm(len(x), generator=generator)[:n]] for x in (member_losses, other_losses)]
    x, y = torch.cat(parts).double()[:, None].numpy(), [1] * n + [0] * n
    order = torch.randperm(2 * n, generator=generator).tolist()
    attacker = make_pipeline(StandardScaler(), LogisticRegression())
    with threadpool_limits(1, "blas"):
        return float(cross_val_score(attacker, x[order], [y[i] for i in order], cv=5).mean())


def probe(train: torch.Tensor, train_labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor) -> float:
    """Test accuracy of a logistic regression over all classes of `train_labels` on frozen features [N, D].

    Linear probe (Alain and Bengio 2016): what can be read off the features, whatever the head says. Given the test
    pictures of F, read it against golden's own probe, never against 0.
    """
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with threadpool_limits(1, "blas"):  # more threads wait for each other, six times as long on small features
        return float(reader.fit(train.numpy(), train_labels.numpy()).score(test.numpy(), test_labels.numpy()))


def relearn_curve(
    model: nn.Module, data: Data, forget: Collection[int], target: float, *, seed: int = 0, limit: int = LIMIT
) -> list[float]:
    """Forget accuracy before the first mini-batch and after each, until it reaches `target` or `limit` is over.

    All train pictures in a fixed order, batch 128, Adam 1e-3, all weights of a copy; forget accuracy on 1,000 fixed
    test pictures of F (Tarun et al. 2023, in mini-batches).
    """
    model = copy.deepcopy(model).requires_grad_(True).to(memory_format=torch.channels_last)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    test = _some(data.test.only(forget), 1000, generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = [b for _ in range(limit) for b in torch.randperm(len(data.train), generator=generator).split(128)][:limit]
    curve = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dropout
        for index in [None, *batches]:
            if index is not None:
                part = data.train.take(index)
                with fast_arithmetic(device):
                    logits = model.train()(data.normalise(part.images.to(device)))
                optimiser.zero_grad()
                F.cross_entropy(logits.float(), part.labels.to(device)).backward()
                optimiser.step()
            with fast_arithmetic(device):
                right = logits_of(model, test.images, data).argmax(1) == test.labels
            curve.append(right.double().mean().item())
            if curve[-1] >= target:
                break
    return curve


def relearn_time(curve: list[float], target: float) -> int | None:
    """Mini-batches until the curve reaches `target`; None where it never does."""
    return next((batches for batches, accuracy in enumerate(curve) if accuracy >= target), None)


def ain(batches: int | None, golden_batches: int | None) -> float | None:
    """Anamnesis index, relearn time over golden's (Chundawat et al. 2023): 1 is ideal, far below it forgetting was
    shallow, far above it the model is over-unlearned. None where either was not reached, or golden's is 0."""
    return batches / golden_batches if batches is not None and golden_batches else None


def moved(model: nn.Module, original: nn.Module) -> dict[str, float]:
    """The tensors that differ from the original's, buffers included, and by how much: |new - old| / |old|."""
    old, new = original.state_dict(), model.state_dict()
    return {
        name: ((new[name] - old[name]).double().norm() / old[name].double().norm().clamp(min=1e-12)).item()
        for name in old
        if not torch.equal(old[name], new[name])
    }


def misplaced(answers: torch.Tensor, golden_answers: torch.Tensor, labels: torch.Tensor, num_classes: int) -> float:
    """Share of forget pictures that would have to change their answer to be spread as golden spreads them.

    Half the L1 distance of the two models' answer shares, class by class, mean over the classes of `labels`.
    """
    shares = []
    for given in (answers, golden_answers):
        counts = confusion_of(given, labels, num_classes).double()[labels.unique()]
        shares.append(counts / counts.sum(1, keepdim=True))
    return ((shares[0] - shares[1]).abs().sum(1) / 2).mean().item()


@torch.no_grad()
def features_of(model: nn.Module, images: torch.Tensor, data: Data, layer: str) -> torch.Tensor:
    """What enters `layer`, flattened to [N, D], on the CPU, for uint8 pictures."""
    body, _ = split(model, layer)
    device = next(model.parameters()).device
    return torch.cat([body(data.normalise(part.to(device))).flatten(1).cpu() for part in images.split(500)])


def probe_forget(
    model: nn.Module, data: Data, forget: Collection[int], layer: str, *, samples: int = 1000, seed: int = 0
) -> float:
    """`probe` of the model's features at the input of `layer`: fitted on `samples` training pictures of each class,
    the forget classes too, and judged on the test pictures of F."""
    generator = torch.Generator().manual_seed(seed)
    parts = [_some(data.train.only([c]), samples, generator) for c in range(data.num_classes)]
    train = Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
    test = data.test.only(forget)
    features = [features_of(model, images, data, layer) for images in (train.images, test.images)]
    return probe(features[0], train.labels, features[1], test.labels)


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
    """All metrics of one model, as numbers; the relearn curve too.

    golden: retrained without F, what js, agreement and misplaced compare with. stranger: a randomly initialised
    model, for zrf. target: the forget accuracy at which the class counts as relearned. layer: where the probe reads.
    Returns forget_accuracy, retain_accuracy, probe, relearn (None: not within LIMIT), curve, membership, js_forget,
    js_retain, agreement_forget, agreement_retain, misplaced, zrf.
    """
    test, generator = {"forget": data.test.only(forget), "retain": data.test.without(forget)}, torch.Generator()
    ours, theirs = ({part: logits_of(m, s.images, data) for part, s in test.items()} for m in (model, golden))
    numbers = {f"{part}_accuracy": (ours[part].argmax(1) == test[part].labels).double().mean().item() for part in test}
    numbers["probe"] = probe_forget(model, data, forget, layer, seed=seed)
    numbers["curve"] = relearn_curve(model, data, forget, target, seed=seed)
    numbers["relearn"] = relearn_time(numbers["curve"], target)
    members = _some(data.train.only(forget), 2000, generator.manual_seed(seed))
    seen = logits_of(model, members.images, data)
    losses = [
        F.cross_entropy(z, labels, reduction="none")
        for z, labels in ((seen, members.labels), (ours["forget"], test["forget"].labels))
    ]
    numbers["membership"] = membership(*losses, seed=seed)
    for part in test:
        numbers[f"js_{part}"] = js_divergence(ours[part], theirs[part]).mean().item()
        numbers[f"agreement_{part}"] = agreement(ours[part], theirs[part])
    labels = test["forget"].labels
    answers = [logits["forget"].argmax(1) for logits in (ours, theirs)]
    numbers["misplaced"] = misplaced(*answers, labels, data.num_classes)
    numbers["zrf"] = zrf(ours["forget"], logits_of(stranger, test["forget"].images, data))
    return numbers


def _some(pictures: Split, count: int, generator: torch.Generator) -> Split:
    """At most `count` of the pictures, drawn at random, in their old order."""
    return pictures.take(torch.randperm(len(pictures), generator=generator)[:count].sort().values)
