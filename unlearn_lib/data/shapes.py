"""`shapes`: a data set that the project draws itself, so that colour pictures need no download.

Ten classes at 32x32 RGB, 600 training and 200 test pictures each. Position, size, turn, colours, background,
contrast and noise vary. circle/ellipse, square/rectangle and plus/cross are look-alikes. Forgetting one of a
pair shows what happens to the other. KarpathyNet reaches about 93 % on it.
"""

import numpy as np
import torch

SHAPE_CLASSES = [
    "circle",
    "ellipse",
    "square",
    "rectangle",
    "plus",
    "cross",
    "triangle",
    "star",
    "ring",
    "crescent",
]
SIZE = 32


def draw_shapes(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `per_class` pictures of each class from a seed.

    Returns:
        Pictures uint8 [10 * per_class, 3, 32, 32], shuffled, and their labels int64.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(SHAPE_CLASSES)), per_class))
    pictures = np.empty((len(labels), 3, SIZE, SIZE), np.uint8)
    for start in range(0, len(labels), 500):  # limits the memory of floats
        part = labels[start : start + 500]
        inside = np.stack([_draw_figure(SHAPE_CLASSES[label], rng) for label in part])[:, None]
        background, foreground = _draw_colours(len(part), rng)
        picture = background * (1 - inside) + foreground * inside
        picture += rng.normal(0, 1, picture.shape) * rng.uniform(0.02, 0.11, (len(part), 1, 1, 1))
        pictures[start : start + 500] = (picture.clip(0, 1) * 255).round()
    return torch.from_numpy(pictures), torch.from_numpy(labels)


def _draw_figure(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return the share of each pixel that the figure covers, [32, 32] in 0..1.

    It follows from the pixel's signed distance to the figure's outline.
    """
    size = rng.uniform(7, 13)
    centre = rng.uniform(size + 1, SIZE - size - 1, 2)
    # A plus turned by 45 degrees is a cross. Both turn by at most 17, so that they stay apart.
    turn = rng.uniform(-0.3, 0.3) + (np.pi / 4 if name == "cross" else 0)
    longer = rng.uniform(1.3, 1.9)
    pixel = np.arange(SIZE) + 0.5
    down = (pixel - centre[0])[:, None]
    right = pixel - centre[1]
    x = np.cos(turn) * right + np.sin(turn) * down
    y = np.cos(turn) * down - np.sin(turn) * right
    if name in ("ellipse", "rectangle"):
        x, y = (x * longer, y) if rng.random() < 0.5 else (x, y * longer)
    radius = np.hypot(x, y)
    larger = np.maximum(abs(x), abs(y))
    if name in ("circle", "ellipse"):
        distance = radius - size
    elif name in ("square", "rectangle"):
        distance = larger - 0.85 * size
    elif name in ("plus", "cross"):
        arm = rng.uniform(0.2, 0.36) * size
        distance = np.maximum(np.minimum(abs(x), abs(y)) - arm, larger - size)
    elif name == "triangle":
        distance = np.maximum(0.87 * abs(x) - 0.5 * y, y) - 0.5 * size
    elif name == "star":
        distance = radius - size * (0.68 + 0.32 * np.cos(5 * np.arctan2(x, -y)))
    elif name == "ring":
        distance = abs(radius - 0.75 * size) - rng.uniform(0.15, 0.3) * size
    else:  # crescent
        bite = np.hypot(x - rng.uniform(0.4, 0.7) * size, y) - 0.9 * size
        distance = np.maximum(radius - size, -bite)
    return (0.5 - distance).clip(0, 1)


def _draw_colours(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return backgrounds with a slope, [count, 3, 32, 32], and foregrounds, at contrasts from faint to strong."""
    base = rng.uniform(0.15, 0.85, (count, 3, 1, 1))
    slope = rng.uniform(-0.25, 0.25, (count, 2, 3, 1, 1))
    ramp = np.linspace(-0.5, 0.5, SIZE)
    background = base + slope[:, 0] * ramp[:, None] + slope[:, 1] * ramp
    direction = rng.normal(size=(count, 3, 1, 1))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return background, base + direction * rng.uniform(0.28, 0.78, (count, 1, 1, 1))
