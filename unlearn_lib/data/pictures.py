"""Pictures: opened whatever their depth, decoded in parallel, and only when needed where they are many.

A picture that does not open stops nothing. It is left out, counted and named.
"""

import os
from collections.abc import Iterator
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

IN_MEMORY = 2**31  # bytes of decoded pictures; a larger data set stays as it was found
TIFF_BITS, TIFF_COLOURS, TIFF_NUMBERS = 258, 262, 339  # BitsPerSample, PhotometricInterpretation, SampleFormat
# Pillow scales a PNG's pixels to eight bits, but not its transparent value. These are the factors by raw mode.
PNG_SCALES = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}


def open_picture(path: Path, colour: bool = True) -> tuple[Image.Image, bool]:
    """Open a picture upright, in RGB or grey, on a white ground; of an animation take the first frame.

    More than eight bits are scaled by their own depth.

    Returns:
        The picture, and whether the file is an animation.

    Raises:
        UserError: it does not open, or its depth is not known.
    """
    try:
        with Image.open(path) as picture:
            if 2 in getattr(picture, "tag_v2", {}).get(TIFF_NUMBERS, ()):
                raise ValueError("its values have a sign")
            # Phones write MPO (a photograph and its depth map), Photoshop writes layers.
            is_animated = picture.format not in ("MPO", "PSD") and getattr(picture, "is_animated", False)
            is_deep = picture.mode.startswith(("F", "I"))  # F, I, I;16 and its byte orders
            picture = _scale_depth(picture) if is_deep else _fill_background(picture)
            return picture.convert("RGB" if colour else "L"), is_animated
    except Exception as error:  # decoders raise many kinds for damaged files
        raise UserError(f"data: the picture {path} does not open ({error})") from error


def _scale_depth(picture: Image.Image) -> Image.Image:
    """Return a grey picture of more than eight bits upright, in eight bits.

    Integers are scaled by all their bits. Floating-point numbers have to lie between 0 and 1.
    """
    tags = getattr(picture, "tag_v2", {})
    largest = 1.0 if picture.mode == "F" else 2 ** tags.get(TIFF_BITS, (16,))[0] - 1
    upright = ImageOps.exif_transpose(picture)
    values = np.array(upright, np.float64)
    # Pillow gives PGM's 16 bits as 32. Other 32-bit integers may mean anything.
    is_known = picture.mode != "I" or picture.format == "PPM"
    if not (is_known and values.min() >= 0 and values.max() <= largest):
        raise ValueError("its depth is not known")
    if tags.get(TIFF_COLOURS) == 0:  # 0 is white
        values = largest - values
    values[values == upright.info.get("transparency")] = largest
    return Image.fromarray((values * (255 / largest)).round().astype(np.uint8))


def _fill_background(picture: Image.Image) -> Image.Image:
    """Return a picture of eight bits or fewer upright, on white where it is transparent."""
    raw = picture.tile[0].args if picture.tile else None
    upright = ImageOps.exif_transpose(picture)
    clear = upright.info.get("transparency")
    if clear is not None and raw in PNG_SCALES:
        scaled = np.multiply(clear, PNG_SCALES[raw]).astype(int).tolist()
        upright.info["transparency"] = tuple(scaled) if isinstance(clear, tuple) else scaled
    if upright.mode == "La":  # premultiplied
        upright = upright.convert("LA")
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB") if upright.mode == "LAB" else upright


def _decode(path: Path, framing: Framing) -> tuple[np.ndarray | None, bool]:
    """Return a picture as uint8 [C, H, W] (None where it does not open), and whether it is an animation."""
    channels, height, width = framing.shape
    try:
        picture, is_animated = open_picture(path, channels == 3)
    except UserError:
        return None, False
    if framing.resize is None:
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    else:
        # Only the middle is kept. Scaled as a whole, a very thin picture would fill the memory.
        longest = 16 * min(picture.size)
        if max(picture.size) > longest:
            picture = T.center_crop(picture, [min(picture.height, longest), min(picture.width, longest)])
        picture = T.resize(picture, framing.resize, framing.interpolation)
        picture = T.center_crop(picture, [height, width])
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1), is_animated


class Pictures:
    """Pictures on disk in place of a tensor uint8 [N, C, H, W]: an index decodes those that it picks.

    Whether a picture opens is known only once it was decoded. A pass over all pictures would be needed to know it
    before. Were it a result of every read, each loop over batches would carry it along. So two attributes are
    learned while reading; callers look at them afterwards.

    Attributes:
        paths: the files. Indices of any device are accepted; pictures are decoded into the computer's memory.
        framing: how each picture is cut and scaled.
        root: the folder below which pictures are named.
        readable: bool [N], False once a picture did not open; it reads as zeros.
        animated: names of animations, of the first read that had some; the log has named them.
    """

    def __init__(self, paths: list[Path], framing: Framing, root: Path | None = None):
        self.paths = paths
        self.framing = framing
        self.root = root
        self.shape = torch.Size((len(paths), *framing.shape))
        self.readable = torch.ones(len(paths), dtype=torch.bool)
        self.animated = []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> torch.Tensor:
        positions = self._find_positions(index)
        return self.read(positions.flatten().tolist()).view(*positions.shape, *self.framing.shape)

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """Decode the pictures in order, `size` at a time."""
        for part in progress(torch.arange(len(self)).split(size), "reading pictures"):
            yield self.read(part.tolist())

    def name(self, position: int) -> str:
        """Return a picture's path below `root`, where it differs from pictures of the same name."""
        path = self.paths[position]
        return str(path.relative_to(self.root)) if self.root else path.name

    def take(self, index: torch.Tensor) -> "Pictures":
        """Return the pictures at `index` (positions or a mask), not decoded yet."""
        positions = self._find_positions(index).tolist()
        part = Pictures([self.paths[i] for i in positions], self.framing, self.root)
        part.readable = self.readable[positions]
        return part

    def read(self, positions: list[int]) -> torch.Tensor:
        """Decode the pictures at these positions, uint8 [n, C, H, W]; zeros where one does not open."""
        images = torch.zeros(len(positions), *self.framing.shape, dtype=torch.uint8)
        animated = []
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(lambda position: _decode(self.paths[position], self.framing), positions)
            for position, image, (pixels, is_animated) in zip(positions, images, decoded, strict=True):
                if pixels is None:
                    self.readable[position] = False
                else:
                    image.copy_(torch.from_numpy(pixels))
                if is_animated:
                    animated.append(self.name(position))
        if animated and not self.animated:
            log.warning("data: of pictures with several frames the first is taken: %s", count_names(animated))
            self.animated = animated
        return images

    def fingerprint(self) -> str:
        """Digest names below the common folder, sizes, times of change and the framing; decode nothing."""
        common = os.path.commonpath({path.parent for path in self.paths}) if self.paths else ""
        lines = []
        for path in self.paths:
            facts = "0\0000"  # nothing is known of a file that is gone
            with suppress(OSError):
                stat = path.stat()
                facts = f"{stat.st_size}\0{stat.st_mtime_ns}"
            lines.append(f"{str(path)[len(common) :]}\0{facts}")
        return digest("\n".join(lines), self.framing)

    def _find_positions(self, index) -> torch.Tensor:
        return torch.arange(len(self))[index.cpu() if isinstance(index, torch.Tensor) else index]


def choose_framing(paths: list[Path]) -> Framing:
    """Return the shape of the first picture that opens; grey where none of some fifty samples has colours.

    Raises:
        UserError: no picture opens.
    """
    for path in paths:
        with suppress(UserError):
            width, height = open_picture(path)[0].size
            has_colours = any(map(_has_colours, [path, *paths[:: max(1, len(paths) // 50)]]))
            return Framing((3 if has_colours else 1, height, width))
    raise UserError(f"data: none of the {len(paths)} pictures below {paths[0].parents[1]} opens")


def _has_colours(path: Path) -> bool:
    """Read from the header whether a picture has colours; False where it does not open."""
    with suppress(Exception), Image.open(path) as picture:
        return Image.getmodebase(picture.mode) != "L"
    return False
