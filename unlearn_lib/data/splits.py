"""A split: pictures and their labels, selected by class masks or held out by a seed."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torchvision.transforms import functional as T

from unlearn_lib.common import free_memory
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.store import digest


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, C, H, W], in memory or on disk, and their labels int64 [N].

    Example:
        >>> zeros = load_data("digits").test.only([0])
    """

    images: torch.Tensor | Pictures
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_on_disk(self) -> bool:
        return isinstance(self.images, Pictures)

    def only(self, classes: Collection[int]) -> "Split":
        """Return the pictures of these classes."""
        return self.take(self._select(classes))

    def without(self, classes: Collection[int]) -> "Split":
        """Return the pictures of all other classes."""
        return self.take(~self._select(classes))

    def _select(self, classes: Collection[int]) -> torch.Tensor:
        return torch.isin(self.labels, self.labels.new_tensor(list(classes)))

    def take(self, index: torch.Tensor) -> "Split":
        """Return the pictures at `index` (positions or a boolean mask, on any device), not decoded yet."""
        labels = self.labels[index.to(self.labels.device)]
        if self.is_on_disk:
            return Split(self.images.take(index), labels)
        return Split(self.images[index.to(self.images.device)], labels)

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return decoded pictures and labels at `index`, as `take`; pictures that do not open are left out."""
        part = self.take(index)
        if not self.is_on_disk:
            return part.images, part.labels
        images = self.images[index]
        opened = self.images.readable[index.cpu()]
        return images[opened], part.labels[opened.to(part.labels.device)]

    def load(self) -> "Split":
        """Decode pictures on disk into memory; those that do not open are left out."""
        loaded = Split(torch.cat(list(self.images.split(500))), self.labels)
        return loaded if self.readable.all() else loaded.take(self.readable)

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device; itself where it is on disk or takes over half of the free memory there."""
        if self.is_on_disk or self.images.numel() > free_memory(device) / 2:
            return self
        return Split(self.images.to(device), self.labels.to(device))

    @property
    def readable(self) -> torch.Tensor:
        """bool [N]: False for a picture on disk that did not open when it was read."""
        return self.images.readable if self.is_on_disk else torch.ones(len(self), dtype=torch.bool)

    @property
    def unreadable(self) -> list[str]:
        """Names of the pictures on disk that did not open when they were read."""
        return [self.images.name(i) for i in (~self.readable).nonzero().flatten().tolist()]

    @cached_property
    def fingerprint(self) -> str:
        """Digest labels and pictures: every value of those in memory, the file listing of those on disk."""
        return digest(self.images.fingerprint() if self.is_on_disk else self.images, self.labels)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split in two, stratified: the second part gets `share` of every class, drawn from `seed`.

    It gets at least one picture of a class that has two.
    """
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        least = 1 if share > 0 and len(members) > 1 else 0
        held[members[order[: max(least, round(share * len(members)))]]] = True
    return split.take(~held), split.take(held)


def resize_pictures(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Resize pictures uint8 [N, C, H, W] to `shape`; colour becomes grey, grey fills all channels."""
    result = torch.empty(len(images), *shape, dtype=torch.uint8, device=images.device)
    luminance = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]  # ITU-R BT.601
    for before, after in zip(images.split(4096), result.split(4096), strict=True):  # floats take four times the memory
        pixels = before.float()
        if before.shape[1] == 3 and shape[0] == 1:
            pixels = (pixels * luminance).sum(1, keepdim=True)
        after.copy_(T.resize(pixels, shape[1:]).round())
    return result
