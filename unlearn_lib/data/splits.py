"""A split: pictures and their labels, of which parts are taken by class masks or held out by a seed."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import interpolate

from unlearn_lib.common import free_memory
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.store import digest


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, C, H, W], in memory or on disk, and their labels int64 [N].

    unreadable: names of pictures that belong here and did not open.
    """

    images: torch.Tensor | Pictures
    labels: torch.Tensor
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, classes: Collection[int]) -> "Split":
        """The pictures of these classes, by a mask."""
        return self.take(self._among(classes))

    def without(self, classes: Collection[int]) -> "Split":
        """The pictures of all other classes, by a mask."""
        return self.take(~self._among(classes))

    def take(self, index: torch.Tensor) -> "Split":
        """The pictures at `index` (positions or a boolean mask, on any device)."""
        on_disk = isinstance(self.images, Pictures)
        images = self.images.take(index) if on_disk else self.images[index.to(self.images.device)]
        return Split(images, self.labels[index.to(self.labels.device)])

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoded pictures and labels at `index` (on any device); those on disk that do not open are left out."""
        labels = self.labels[index.to(self.labels.device)]
        if not isinstance(self.images, Pictures):
            return self.images[index.to(self.images.device)], labels
        images, good = self.images[index], self.images.readable[index.cpu()]
        return images[good], labels[good.to(labels.device)]

    def to(self, device: torch.device) -> "Split":
        """On the device, or itself where the pictures would take more than half of what is free there."""
        if not isinstance(self.images, Pictures) and self.images.numel() > free_memory(device) / 2:
            return self
        return Split(self.images.to(device), self.labels.to(device))

    @property
    def readable(self) -> torch.Tensor:
        """bool [N]: False for a picture on disk of which it is known that it does not open."""
        on_disk = isinstance(self.images, Pictures)
        return self.images.readable if on_disk else torch.ones(len(self), dtype=torch.bool)

    @cached_property
    def fingerprint(self) -> str:
        """What the pictures and labels are: of those in memory every value, of those on disk what a listing tells."""
        on_disk = isinstance(self.images, Pictures)
        return digest(self.images.fingerprint() if on_disk else self.images, self.labels)

    def _among(self, classes: Collection[int]) -> torch.Tensor:
        wanted = torch.tensor(sorted(classes), dtype=torch.int64, device=self.labels.device)
        return torch.isin(self.labels, wanted)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split in two, `share` of every class going to the second; the same seed, the same pictures.

    At least one of two goes there, however small the share is; the only picture of a class does not.
    """
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        least = 1 if share > 0 and len(members) > 1 else 0
        held[members[order[: max(least, round(share * len(members)))]]] = True
    return split.take(~held), split.take(held)


def reshape(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """uint8 pictures at another size, grey made colour or colour grey, in chunks."""
    result = torch.empty(len(images), *shape, dtype=torch.uint8, device=images.device)
    grey = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    for start in range(0, len(images), 4096):
        chunk = images[start : start + 4096].float()
        if chunk.shape[1] == 3 and shape[0] == 1:
            chunk = (chunk * grey).sum(1, keepdim=True)
        if chunk.shape[-2:] != tuple(shape[1:]):
            chunk = interpolate(chunk, shape[1:], mode="bilinear", antialias=True, align_corners=False)
        result[start : start + 4096] = chunk.round().clamp(0, 255).to(torch.uint8)  # grey spreads over channels
    return result
