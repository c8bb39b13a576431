"""Whether mirroring, which training does to widen its pictures, would turn pictures of one class into another's."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from unlearn_lib.data.splits import Split

SIDE = 16  # pixels of a thumbnail
SAMPLES = 2_000  # pictures looked at, the same number of each class
SHARE = 0.5  # of a class's mirrored pictures whose nearest one is of the other class


def mirrored_alike(split: Split, num_classes: int) -> list[tuple[int, int]]:
    """Pairs of classes (one, other) where a picture of `one` is nearest to its own class, and mirrored to `other`.

    Nearest among the others by the correlation of grey thumbnails; what is told apart by chance is left out.
    """
    each = max(2, SAMPLES // num_classes)
    members = [(split.labels == c).nonzero().flatten() for c in range(num_classes)]
    chosen = torch.cat([part[torch.linspace(0, len(part) - 1, min(each, len(part))).long()] for part in members])
    labels = split.labels[chosen]
    images = torch.cat([adaptive_avg_pool2d(p.float().mean(1), SIDE) for p in split.images[chosen].split(256)])
    upright, mirrored = (_units(x) for x in (images, images.flip(-1)))
    answers = []
    for queries in (upright, mirrored):
        likeness = queries @ upright.T
        likeness.fill_diagonal_(-2)  # not itself
        answers.append(labels[likeness.argmax(1)])
    counts = [torch.zeros(num_classes, num_classes).index_put_((labels, a), torch.ones(()), True) for a in answers]
    share, turned = (count / count.sum(1, keepdim=True).clamp(min=1) for count in counts)
    shift = (share.diag()[:, None] >= SHARE) & (turned >= SHARE) & (turned >= share + SHARE)
    return shift.nonzero().tolist()


def _units(images: torch.Tensor) -> torch.Tensor:
    """Pictures [N, H, W] as vectors of mean 0 and length 1."""
    x = images.flatten(1)
    x = x - x.mean(1, keepdim=True)
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
