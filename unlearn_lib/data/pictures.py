"""Pictures: opened whatever their depth, decoded in parallel, and only when they are needed where there are many.

What does not open is left out, counted and named; it stops nothing.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as T

from unlearn_lib.common import UserError, count_names, log, progress
from unlearn_lib.networks import Framing
from unlearn_lib.store import digest

IN_MEMORY = 2**31  # bytes of decoded pictures, above which they stay as they were found
LARGE = 20_000  # bytes of a file: handing out smaller pictures to threads costs more than it wins
FEW_BITS = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}  # what a PNG's value, its transparent one too, becomes
GREY = ("1", "L", "LA", "La", "F", "I")  # Pillow's modes, and I;16 in all byte orders


def open_picture(path: Path, colour: bool = True) -> Image.Image:
    """A picture upright, in RGB or grey, what is transparent on white; of several frames the first.

    More than eight bits are scaled by their own depth. Raises UserError where it does not open or has no known depth.
    """
    return _open(path, colour)[0]


def _open(path: Path, colour: bool) -> tuple[Image.Image, bool]:
    """`open_picture`, and whether the file has further frames."""
    try:
        with Image.open(path) as picture:
            frames = picture.format not in ("MPO", "PSD") and getattr(picture, "is_animated", False)
            return _plain(picture).convert("RGB" if colour else "L"), frames
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        raise UserError(f"data: the picture {path} does not open") from error


def _plain(picture: Image.Image) -> Image.Image:
    """An opened picture upright and opaque, in a mode that Pillow converts rightly."""
    tags, raw = getattr(picture, "tag_v2", {}), picture.tile[0].args if picture.tile else None
    if 2 in tags.get(339, ()):  # TIFF's tag of the kind of number
        raise UserError(f"data: the picture {picture.filename} has values with a sign, of no known depth")
    upright = ImageOps.exif_transpose(picture)
    if _deep(picture):
        return _eight_bits(upright, picture)
    if picture.mode in ("La", "RGBa"):  # premultiplied
        upright = upright.convert(picture.mode.upper())
    if raw in FEW_BITS and "transparency" in upright.info:
        clear, scale = upright.info["transparency"], FEW_BITS[raw]
        clear = tuple(int(value * scale) for value in (clear if isinstance(clear, tuple) else (clear,)))
        upright.info["transparency"] = clear if upright.mode == "RGB" else clear[0]
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB") if upright.mode == "LAB" else upright


def _deep(picture: Image.Image) -> bool:
    return picture.mode in ("F", "I") or picture.mode.startswith("I;16")


def _eight_bits(upright: Image.Image, picture: Image.Image) -> Image.Image:
    """A deep grey picture in eight bits: integers scaled by all their bits, floating-point numbers taken as 0 to 1.

    Raises UserError where the depth is not known: other numbers, 32-bit integers.
    """
    values, tags = np.asarray(upright, np.float64), getattr(picture, "tag_v2", {})
    known = picture.mode != "I" or picture.format == "PPM"  # of which Pillow makes 16 bits
    top = 1.0 if picture.mode == "F" else 2 ** tags.get(258, (16,))[0] - 1  # TIFF's tag of the number of bits
    if not (known and values.min() >= 0 and values.max() <= top):
        raise UserError(f"data: the picture {picture.filename} has grey values of no known depth")
    if tags.get(262) == 0:  # TIFF's tag for 0 as white
        values = top - values
    values = np.where(np.asarray(upright) == upright.info.get("transparency"), top, values)
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def _decode(path: Path, framing: Framing) -> tuple[np.ndarray | None, bool]:
    """One picture, uint8 [C, H, W], as `framing` has it (None: it does not open), and whether it has more frames."""
    channels, height, width = framing.shape
    try:
        picture, frames = _open(path, channels == 3)
    except UserError:
        return None, False
    if framing.resize is not None:
        longest = 16 * min(picture.size)  # no more than the middle is looked at; all of a thin one, scaled, is huge
        if max(picture.size) > longest:
            picture = T.center_crop(picture, [min(picture.height, longest), min(picture.width, longest)])
        picture = T.resize(picture, framing.resize, framing.interpolation)
        picture = T.center_crop(picture, [height, width])
    elif picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(height, width, -1).transpose(2, 0, 1), frames


class Pictures:
    """Pictures on disk that stand where a tensor uint8 [N, C, H, W] could: what is indexed is decoded, in parallel.

    root: the folder below which they are named. opened: bool [N], False once a picture has turned out not to open; it
    then reads as zeros. Indices may lie on any device; pictures are decoded into the computer's memory.
    """

    def __init__(self, paths: list[Path], framing: Framing, root: Path | None = None):
        self.paths, self.framing, self.root = paths, framing, root
        self.shape = torch.Size((len(paths), *framing.shape))
        self.readable = torch.ones(len(paths), dtype=torch.bool)
        self._told = False  # that there are pictures of several frames

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> torch.Tensor:
        index = self._positions(index)
        return self.read(index.flatten().tolist()).view(*index.shape, *self.framing.shape)

    def split(self, size: int) -> Iterable[torch.Tensor]:
        """The pictures in order, `size` at a time."""
        parts = torch.arange(len(self)).split(size)
        return (self.read(part.tolist()) for part in progress(parts, "reading pictures"))

    def name(self, position: int) -> str:
        """A picture's name in sentences, with the folders below `root`, which tell it from its namesakes."""
        path = self.paths[position]
        return str(path.relative_to(self.root)) if self.root else path.name

    def take(self, index: torch.Tensor) -> "Pictures":
        """The pictures at `index` (positions or a mask), not decoded yet."""
        chosen = self._positions(index).tolist()
        part = Pictures([self.paths[i] for i in chosen], self.framing, self.root)
        part.readable = self.readable[chosen]
        return part

    def to(self, device: torch.device) -> "Pictures":
        """Itself: pictures on disk are on no device."""
        return self

    def read(self, chosen: list[int], description: str | None = None) -> torch.Tensor:
        """The pictures at these positions, uint8 [n, C, H, W], zeros where one does not open; a bar if described."""
        images = torch.zeros(len(chosen), *self.framing.shape, dtype=torch.uint8)
        paths, several = [self.paths[i] for i in chosen], []
        decoded = _decode_all(paths, self.framing)
        decoded = progress(decoded, f"reading {description}", len(chosen)) if description else decoded
        for place, (pixels, frames) in enumerate(decoded):
            if pixels is None:
                self.readable[chosen[place]] = False
            else:
                images[place] = torch.from_numpy(pixels.copy())
            if frames:
                several.append(self.name(chosen[place]))
        if several and not self._told:
            log.warning("data: of pictures with several frames the first is taken: %s", count_names(several))
            self._told = True
        return images

    def fingerprint(self) -> str:
        """Digest of names below their common folder, sizes, times of change and framing; nothing is decoded."""
        names = [str(path) for path in self.paths]
        ends = [os.path.dirname(end) for end in (min(names), max(names))] if names else [""]
        common, facts = len(os.path.commonpath(ends)), []
        for name in names:
            size, changed = 0, 0
            with suppress(OSError):
                stat = os.stat(name)
                size, changed = stat.st_size, stat.st_mtime_ns
            facts.append(f"{name[common:]}\0{size}\0{changed}")
        return digest("\n".join(facts), self.framing)

    def _positions(self, index) -> torch.Tensor:
        return torch.arange(len(self))[index.cpu() if isinstance(index, torch.Tensor) else index]


def first_framing(paths: list[Path]) -> Framing:
    """The shape of the first picture that opens; grey where none of some fifty along the way has colours.

    Raises UserError where none opens.
    """
    for path in paths:
        with suppress(UserError):
            width, height = open_picture(path).size
            grey = all(_grey(sample) for sample in [path, *paths[:: max(1, len(paths) // 50)]])
            return Framing((1 if grey else 3, height, width))
    raise UserError(f"data: none of the {len(paths)} pictures below {paths[0].parents[1]} opens")


def _grey(path: Path) -> bool:
    """Whether a picture has no colours, as its header has it; True where it does not open."""
    with suppress(Exception), Image.open(path) as picture:
        return picture.mode in GREY or _deep(picture)
    return True


def _decode_all(paths: list[Path], framing: Framing) -> Iterable[tuple[np.ndarray | None, bool]]:
    """`_decode` of every path, in order; by threads where the files are large."""
    if not paths or not paths[0].exists() or paths[0].stat().st_size <= LARGE:
        yield from (_decode(path, framing) for path in paths)
        return
    with ThreadPoolExecutor() as pool:
        yield from pool.map(_decode, paths, [framing] * len(paths))
