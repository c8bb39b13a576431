"""Pictures on disk: found in folders, decoded in parallel, and only when they are needed where there are many.

What does not open is left out, counted and named; it stops nothing.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import functional as T

from unlearn_lib.common import UserError, progress
from unlearn_lib.networks import Framing

IN_MEMORY = 2**31  # bytes of decoded pictures, above which they stay on disk
LARGE = 20_000  # bytes of a file: handing out smaller pictures to threads costs more than it wins


def open_picture(path: Path, colour: bool = True) -> Image.Image:
    """A picture upright, in RGB or grey, what is transparent on white. Raises ValueError where it does not open."""
    try:
        with Image.open(path) as picture:
            picture = ImageOps.exif_transpose(picture)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB" if colour else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what damaged files raise
        raise UserError(f"data: the picture {path} does not open") from error


def decode(path: Path, framing: Framing) -> np.ndarray | None:
    """One picture, uint8 [C, H, W], as `framing` has it; None where it does not open."""
    channels, height, width = framing.shape
    try:
        picture = open_picture(path, channels == 3)
    except ValueError:
        return None
    if framing.resize is not None:
        picture = T.resize(picture, framing.resize, framing.interpolation)
        picture = T.center_crop(picture, [height, width])
    elif picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(height, width, -1).transpose(2, 0, 1)


class Pictures:
    """Pictures on disk that stand where a tensor uint8 [N, C, H, W] could: what is indexed is decoded, in parallel.

    opened: bool [N], False once a picture has turned out not to open; it then reads as zeros.
    """

    def __init__(self, paths: list[Path], framing: Framing):
        self.paths, self.framing = paths, framing
        self.shape = torch.Size((len(paths), *framing.shape))
        self.opened = torch.ones(len(paths), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> torch.Tensor:
        index = torch.arange(len(self))[index]
        return self._read(index.flatten().tolist()).view(*index.shape, *self.framing.shape)

    def split(self, size: int) -> Iterable[torch.Tensor]:
        """The pictures in order, `size` at a time."""
        parts = torch.arange(len(self)).split(size)
        return (self._read(part.tolist()) for part in progress(parts, "reading pictures"))

    def take(self, index: torch.Tensor) -> "Pictures":
        """The pictures at `index` (positions or a mask), not decoded yet."""
        chosen = torch.arange(len(self))[index].tolist()
        part = Pictures([self.paths[i] for i in chosen], self.framing)
        part.opened = self.opened[chosen]
        return part

    def to(self, device: torch.device) -> "Pictures":
        """Itself: pictures on disk are on no device."""
        return self

    def _read(self, chosen: list[int]) -> torch.Tensor:
        images = torch.zeros(len(chosen), *self.framing.shape, dtype=torch.uint8)
        paths = [self.paths[i] for i in chosen]
        for place, pixels in enumerate(_decode_all(paths, self.framing)):
            if pixels is None:
                self.opened[chosen[place]] = False
            else:
                images[place] = torch.from_numpy(pixels.copy())
        return images


def read_pictures(
    paths: list[Path], framing: Framing, description: str = "pictures", lazy: bool | None = None
) -> tuple[torch.Tensor | Pictures, torch.Tensor, list[str]]:
    """Pictures uint8 [N, C, H, W], the positions among `paths` that they have, and the names of those left out.

    Too many for memory (`lazy`: any number of them), they stay on disk, and nobody knows yet which do not open.
    """
    pictures = Pictures(paths, framing)
    if lazy or (lazy is None and pictures.shape.numel() > IN_MEMORY):
        return pictures, torch.arange(len(paths)), []
    images, found = torch.empty(pictures.shape, dtype=torch.uint8), torch.ones(len(paths), dtype=torch.bool)
    for i, pixels in enumerate(progress(_decode_all(paths, framing), f"reading {description}", len(paths))):
        if pixels is None:
            found[i] = False
        else:
            images[i] = torch.from_numpy(pixels.copy())
    if found.all():
        return images, torch.arange(len(paths)), []
    return images[found], found.nonzero().flatten(), [paths[i].name for i in (~found).nonzero().flatten().tolist()]


def first_framing(paths: list[Path]) -> Framing:
    """The shape of the first picture that opens. Raises ValueError where none does."""
    for path in paths:
        try:
            with Image.open(path) as first:
                return Framing((1 if first.mode in ("1", "L", "I;16") else 3, first.height, first.width))
        except (OSError, SyntaxError, ValueError):
            continue
    raise UserError(f"data: none of the {len(paths)} pictures below {paths[0].parents[1]} opens")


def find_pictures(folder: Path, classes: list[str]) -> tuple[list[Path], torch.Tensor]:
    """The paths and labels of all pictures in `<folder>/<class>/`, sorted. Raises ValueError on other folders there."""
    unknown = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")} - set(classes)
    paths = [p for c in classes for p in sorted((folder / c).glob("*")) if p.suffix.lower() in IMG_EXTENSIONS]
    if unknown or not paths:
        what = f"classes that train has not: {', '.join(sorted(unknown))}" if unknown else "no pictures"
        raise UserError(f"data: {folder} has {what}; <class>/*.jpg, .png and the like are accepted")
    index = {name: i for i, name in enumerate(classes)}
    return paths, torch.tensor([index[p.parent.name] for p in paths])


def _decode_all(paths: list[Path], framing: Framing) -> Iterable[np.ndarray | None]:
    """`decode` of every path, in order; by threads where the files are large."""
    if not paths or paths[0].stat().st_size <= LARGE:
        yield from (decode(path, framing) for path in paths)
        return
    with ThreadPoolExecutor() as pool:
        yield from pool.map(decode, paths, [framing] * len(paths))
