"""Whether mirroring, which training does to widen its pictures, would turn pictures of one class into another's."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from unlearn_lib.data.splits import Split

SIDE = 16  # pixels of a thumbnail
SAMPLES = 2_000  # pictures looked at, the same number of each class


def mirrored_alike(split: Split, num_classes: int) -> list[tuple[int, int]]:
    """Pairs of classes (one, other): pictures of `one` are nearest to their own class and, mirrored, to `other`.

    Nearest by the correlation of grey thumbnails. At least half of a class, a quarter (and two standard deviations)
    more than without mirroring, and as close to what they are taken for as they were: a mirrored 3, which is
    nearest to an 8 but like no digit, does not count. Arrows to the left and to the right are found from ten pictures
    a class on where they lie still, from a hundred where they wander and are noisy; shapes, CIFAR-10, MNIST: none.
    """
    each = max(2, SAMPLES // num_classes)
    members = [(split.labels == c).nonzero().flatten() for c in range(num_classes)]
    chosen = torch.cat([part[torch.linspace(0, len(part) - 1, min(each, len(part))).long()] for part in members])
    labels, size = split.labels[chosen], max(1, 2**24 // max(1, split.images[0].numel()))
    images = torch.cat([_thumbnails(split.images[part]) for part in chosen.split(size)])
    count = labels.bincount(minlength=num_classes).clamp(min=1)
    shares, closeness = [], []
    for queries in (images, images.flip(-1)):
        likeness = queries.flatten(1) @ images.flatten(1).T
        best = likeness.fill_diagonal_(-2).max(1)  # not itself
        answers = torch.bincount(labels * num_classes + labels[best.indices], minlength=num_classes**2)
        shares.append(answers.view(num_classes, num_classes) / count[:, None])
        closeness.append(torch.bincount(labels, best.values, num_classes) / count)
    gain = shares[1] - shares[0]
    near, close = shares[0].diag() >= 0.5, closeness[1] >= 0.95 * closeness[0]
    alike = (near & close)[:, None] & (shares[1] >= 0.5) & (gain >= (2 / count.sqrt()).clamp(min=0.25)[:, None])
    return alike.fill_diagonal_(False).nonzero().tolist()


def _thumbnails(images: torch.Tensor) -> torch.Tensor:
    """Grey pictures [N, SIDE, SIDE] of mean 0 and length 1."""
    x = adaptive_avg_pool2d(images.float().mean(1), SIDE)
    x = x - x.mean((1, 2), keepdim=True)
    return x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-6)
