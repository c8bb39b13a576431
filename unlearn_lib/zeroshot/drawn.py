"""Drawn pictures: scenes and strokes from a seed alone, to teach a student without data.

A network's answers to pictures that show nothing real teach another nearly all that it knows (Frank and Davis, CVPR
2025, with "dead leaves" of Lee, Mumford and Huang, IJCV 2001). The pictures hold no data set's statistics: sizes follow
a power law, colours are faint, texture is 1/f noise, as in nature at large.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.networks import feasible_inputs, find_memory_format, split
from unlearn_lib.zeroshot.batches import BATCH, OnStep, count_classes, predict_in_batches

CLUTTER = 5  # shapes behind the object, at most
PARTS = 6  # of the object
COLOURS = 6  # of a palette
CURVES = 3  # strokes of a picture, at most
POINTS = 20  # of a stroke
DRAWN = 40  # pictures drawn per sample and class
TURNED = 12  # pictures turned towards a class per sample and class
STEPS = 6  # of turning
STEP = 0.027  # of turning, as a share of the range of pixels


@dataclass(frozen=True)
class Draws:
    """Random numbers for `count` pictures at once: [count, *shape], by default one a picture, [count, 1, 1, 1]."""

    count: int
    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw numbers from low to high."""
        return low + (high - low) * torch.rand(self.count, *shape or (1, 1, 1), generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Draw numbers of mean 0 and deviation 1."""
        return torch.randn(self.count, *shape or (1, 1, 1), generator=self.generator)

    def whole(self, low: int, high: int) -> Tensor:
        """Draw a whole number a picture, from low to below high."""
        return torch.randint(low, high, (self.count, 1, 1, 1), generator=self.generator)


def draw_pictures(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Draw pictures uint8 [count, C, H, W] of `shape` (C, H, W): strokes in one channel, scenes in more.

    The same seed gives the same pictures. A larger count begins with those of a smaller one.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = draw_strokes if shape[0] == 1 else draw_scenes
    pictures = torch.empty(count, *shape, dtype=torch.uint8)
    for batch in pictures.split(BATCH):
        drawn = draw(Draws(BATCH, generator), *shape)[: len(batch)]
        batch.copy_(drawn.clamp(0, 1).mul(255).round())
    return pictures


def draw_scenes(draws: Draws, channels: int, height: int, width: int) -> Tensor:
    """Draw scenes [n, C, H, W] in about 0..1: a background, clutter, and near the middle an object of six parts.

    The object's parts lie along an axis and overlap. They are shaded, some are striped, all are of one palette.
    """
    side = max(height, width)
    grid = _make_grid(*(torch.linspace(-1, 1, size) * size / side for size in (height, width)))
    palette = _draw_palette(draws, channels)
    backdrop, texture = _draw_textures(draws, height, width)

    direction = F.normalize(draws.normal(2, 1, 1))
    along = (direction.flatten(1) @ grid).view(texture.shape) - draws.uniform(-0.6, 0.6)
    sharpness = torch.where(draws.uniform(0, 1) < 0.4, 12.0, 0.7)  # a horizon or a slope
    mix = (0.5 + sharpness * along).clamp(0, 1)
    is_plain = draws.uniform(0, 1) < 0.25
    picture = torch.where(is_plain, palette[0], torch.lerp(palette[0], palette[1], mix))
    picture = picture + draws.uniform(0, 1) ** 2 * 0.3 * backdrop

    clutter = draws.whole(0, CLUTTER + 1)
    for i in range(CLUTTER):
        size = 0.12 * (1 - draws.uniform(0, 0.97)) ** -0.6  # power law: many small shapes, some as large as the picture
        centre = draws.uniform(-1, 1, 2, 1, 1)
        picture = _paint_shape(picture, draws, grid, texture, centre, size, palette[1 + i], clutter > i)

    middle = draws.normal(2, 1, 1) * 0.15
    axis = F.normalize(draws.normal(2, 1, 1))
    reach = draws.uniform(0.1, 0.6)
    whole = draws.uniform(0.7, 1.7)
    for i in range(PARTS):
        centre = middle + whole * (axis * reach * draws.uniform(-1, 1) + 0.12 * draws.normal(2, 1, 1))
        size = whole * draws.uniform(0.1, 0.6) * 0.85**i
        colour = palette.take_along_dim(draws.whole(2, 5)[None], 0)[0]
        is_shown = draws.uniform(0, 1) < 0.85
        picture = _paint_shape(picture, draws, grid, texture, centre, size, colour, is_shown)

    contrast = draws.uniform(0.6, 1.4)
    picture = 0.5 + contrast * (picture - 0.5) + draws.uniform(-0.12, 0.12)
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(picture, blurred, draws.uniform(0, 1))


def _paint_shape(picture, draws, grid, texture, centre, size, colour, is_shown) -> Tensor:
    """Paint a shape between an ellipse and a rectangle over the pictures where `is_shown`.

    Its edge is soft, it is shaded, and some shapes are striped. centre: [n, 2, 1, 1]. size, is_shown: [n, 1, 1, 1].
    """
    n, _, height, width = picture.shape
    angle = draws.uniform(0, 3.1416)
    stretch = draws.uniform(-0.7, 0.7).exp()
    cos = angle.cos()
    sin = angle.sin()
    rows = [cos / (size * stretch), sin / (size * stretch), -sin * stretch / size, cos * stretch / size]
    turn = torch.cat(rows, 1).view(n, 2, 2)
    u, v = (turn @ grid - turn @ centre.flatten(2)).view(n, 2, 1, height, width).unbind(1)

    squareness = draws.uniform(0, 1)
    radius = torch.lerp((u * u + v * v).sqrt(), torch.maximum(u.abs(), v.abs()), squareness)
    edge = size * width / 2 * draws.uniform(0.4, 1.5)
    cover = ((1 - radius) * edge + 0.5).clamp(0, 1) * is_shown
    shade = draws.normal() * 0.18 * v + draws.normal() * 0.1 * u
    striped = (draws.uniform(0, 1) < 0.2) * draws.uniform(0.05, 0.3)
    shade = shade + striped * (u * draws.uniform(3, 12)).sin()
    shade = shade + draws.uniform(0, 1) ** 2 * 0.25 * texture
    return torch.lerp(picture, colour + shade, cover)


def _draw_palette(draws: Draws, channels: int) -> Tensor:
    """Draw natural colours [COLOURS, n, C, 1, 1]: any brightness, faintly tinted, those of a picture alike in tint."""
    bright = draws.uniform(0.05, 0.95, COLOURS, 1, 1, 1)
    common = draws.normal(1, channels, 1, 1) * 0.08
    tint = draws.normal(COLOURS, channels, 1, 1)
    strength = draws.uniform(0.02, 0.16, COLOURS, 1, 1, 1)
    return (bright + common + strength * tint).transpose(0, 1)


def _draw_textures(draws: Draws, height: int, width: int) -> Tensor:
    """Draw 1/f noise [2, n, 1, H, W] of mean 0 and deviation 1, with an exponent for each picture (Field 1987)."""
    noise = torch.randn(2, draws.count, 1, height, width, generator=draws.generator)
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2).sqrt()
    frequency[0, 0] = 1
    decay = frequency ** -draws.uniform(0.4, 1.6)
    made = torch.fft.irfft2(torch.fft.rfft2(noise) * decay, s=(height, width))
    made = made - made.mean((-2, -1), keepdim=True)
    return made / made.std((-2, -1), keepdim=True).clamp_min(1e-6)


def _make_grid(y: Tensor, x: Tensor) -> Tensor:
    """Return the coordinates (x, y) of all pixels, [2, H W]."""
    return torch.stack(torch.meshgrid(x, y, indexing="xy")).flatten(1)


def draw_strokes(draws: Draws, channels: int, height: int, width: int) -> Tensor:
    """Draw strokes [n, 1, H, W] in about 0..1: up to three bright curves of a pen on a dark ground.

    A curve is a cubic Bezier curve, [n, 1, POINTS, 2]. As a rule the next one begins near a point of the one before it.
    """
    t = torch.linspace(0, 1, POINTS)
    weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    count = draws.whole(1, CURVES + 1)
    start = draws.normal(1, 1, 2) * 0.35
    curves = []
    for i in range(CURVES):
        spread = draws.uniform(0.25, 0.85)
        hooks = torch.cat([start, start * 0.3 + spread * draws.normal(1, 3, 2)], 2).clamp(-1.1, 1.1)
        curve = torch.einsum("kt,nikc->nitc", weights, hooks)
        curves.append(torch.where(count > i, curve, curves[0] if curves else curve))
        joint = curve.take_along_dim(draws.whole(0, POINTS), 2)
        start = torch.where(draws.uniform(0, 1) < 0.75, joint, draws.normal(1, 1, 2) * 0.35)

    points = torch.cat(curves, 2)
    points = points - (points.amax(2, keepdim=True) + points.amin(2, keepdim=True)) / 2  # in the middle
    longest = points.abs().amax((2, 3), keepdim=True)
    points = points * (draws.uniform(0.45, 0.85) / longest.clamp_min(0.3)) + 0.08 * draws.normal(1, 1, 2)
    grid = _make_grid(*((torch.arange(size) + 0.5) * 2 / size - 1 for size in (height, width)))
    squares = grid.square().sum(0) - 2 * points @ grid + points.square().sum(3, keepdim=True)
    distance = squares.amin(2).clamp_min(0).sqrt().view(-1, 1, height, width) * width / 2

    pen = draws.uniform(0.8, 2.2)
    softness = draws.uniform(0.6, 1.4)
    ink = ((pen - distance) / softness + 0.5).clamp(0, 1) * draws.uniform(0.75, 1.1)
    return ink + draws.uniform(0, 1) ** 4 * 0.2 * draws.normal(1, height, width)


def drawn_inputs(
    model: nn.Module,
    layer: str,
    samples: int,
    seed: int = 0,
    memory: float = 2**29,
    on_step: OnStep = lambda step, x: None,
) -> tuple[Tensor, Tensor]:
    """Return the layer's inputs for drawn pictures and for pixel impressions that start from them.

    DRAWN x samples pictures a class are drawn, and TURNED x samples are turned towards each class; fewer where all
    would take more than `memory` bytes.

    Returns:
        The inputs x [N, *shape] and the classes [N] that the model gives them, sorted by class.

    Raises:
        UserError: the range of the model's pixels is unknown.
    """
    low, high = bounds = feasible_inputs(model, "input").bounds
    if not (low > -torch.inf and high < torch.inf):
        raise UserError("model: got no range of its pixels; set its input_range = (lowest, highest)")
    body, tail = split(model, layer)
    device = get_device(model)
    k = count_classes(model)
    shape = tuple(model.input_shape)
    share = min(1.0, memory / (samples * k * (DRAWN + TURNED) * torch.Size(shape).numel()))
    pictures = draw_pictures(max(1, round(share * DRAWN * samples * k)), shape, seed)
    answers = forward_in_batches(model, pictures, bounds, device)
    count = max(1, round(share * TURNED * samples))
    turned = turn_towards_classes(model, pictures, answers, count, bounds, seed, on_step)
    x = forward_in_batches(body, torch.cat([pictures, turned]), bounds, device)
    labels = predict_in_batches(tail, x, device)
    order = labels.argsort(stable=True)
    return x[order], labels[order]


def turn_towards_classes(
    net: nn.Module,
    pictures: Tensor,
    answers: Tensor,
    count: int,
    bounds: tuple[float, float],
    seed: int,
    on_step: OnStep,
) -> Tensor:
    """Turn for each class the `count` pictures that rank highest for it towards that class.

    x <- x - STEP g / rms(g), with g the gradient of CE(net(x), y), smoothed over 5x5 pixels in every other step. A
    picture stays as it is once p_c reaches 0.95. For half of the pictures y mixes c with another class, so that they
    come to lie between the two; those take all steps.

    Args:
        pictures: uint8 [N, C, H, W].
        answers: their logits [N, K].

    Returns:
        uint8 [K x count, C, H, W], in random order.
    """
    generator = torch.Generator().manual_seed(seed)
    device = get_device(net)
    low, high = bounds
    k = answers.shape[1]
    best = answers.log_softmax(1).topk(min(count, len(answers)), 0).indices.T.flatten()
    goals = torch.arange(k).repeat_interleave(len(best) // k)
    order = torch.randperm(len(best), generator=generator)
    turned = []
    for part in order.split(BATCH):
        goal = goals[part]
        is_mixed = torch.rand(len(part), 1, generator=generator) < 0.5
        share = torch.where(is_mixed, 0.5 + 0.5 * torch.rand(len(part), 1, generator=generator), 1.0)
        other = torch.randint(k, (len(part),), generator=generator)
        y = (share * F.one_hot(goal, k) + (1 - share) * F.one_hot(other, k)).to(device)
        x = _to_inputs(net, pictures[best[part]], bounds, device)
        is_mixed = is_mixed.to(device)
        goal = goal[:, None].to(device)
        for step in range(STEPS):
            x.requires_grad_(True)
            with fast_arithmetic(device):
                z = net(x).float()
            (g,) = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), x)
            if step % 2 == 0:
                g = F.avg_pool2d(g, 5, stride=1, padding=2)
            g = g / g.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
            moves = (is_mixed | (z.softmax(1).gather(1, goal) < 0.95))[..., None, None]
            x = (x.detach() - STEP * (high - low) * moves * g).clamp(low, high)
            on_step(step + 1, x)
        turned.append(((x - low) * (255 / (high - low))).round().to(torch.uint8).cpu())
    return torch.cat(turned)


def _to_inputs(net: nn.Module, pictures: Tensor, bounds: tuple[float, float], device) -> Tensor:
    """Return uint8 pictures as a network takes them: float32, from the lowest to the highest value of its pixels."""
    low, high = bounds
    x = low + pictures.to(device).float() * ((high - low) / 255)
    return x.contiguous(memory_format=find_memory_format(net, x[:2]))


@torch.no_grad()
def forward_in_batches(net: nn.Module, pictures: Tensor, bounds: tuple[float, float], device: torch.device) -> Tensor:
    """Return a network's outputs for uint8 pictures, float32 on the CPU."""
    outputs = []
    for batch in pictures.split(BATCH):
        with fast_arithmetic(device):
            outputs.append(net(_to_inputs(net, batch, bounds, device)).float().cpu().contiguous())
    return torch.cat(outputs)
