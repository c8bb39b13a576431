"""Drawn pictures: scenes and strokes from a seed alone, food for a student where there is no data.

A network's answers to pictures that nobody took teach another nearly all it knows (Frank and Davis, CVPR 2025, with
"dead leaves", after Lee, Mumford and Huang, IJCV 2001). No data set's statistics are in them: sizes follow a power law,
colours are faint, texture is 1/f noise, as in nature at large.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.networks import feasible_inputs, find_memory_format, run_on_zeros, split

PART = 500  # pictures drawn at once
CLUTTER, PARTS, COLOURS = 5, 6, 6  # shapes behind the object, parts of the object, colours of a palette
CURVES, POINTS = 3, 20  # strokes of a picture at most, points of a stroke
DRAWN, TURNED = 40, 12  # pictures drawn, and turned into a class, for each impression that is asked for of a class
STEPS, STEP = 6, 0.027  # of turning; a step in shares of the pixels' range


def draw_pictures(count: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """`count` pictures uint8 [count, C, H, W] of `shape` (C, H, W): strokes in one channel, scenes in more.

    The same seed, the same pictures, and of more of them the first are the same.
    """
    generator = torch.Generator().manual_seed(seed)
    paint, pictures = (strokes if shape[0] == 1 else scenes), torch.empty(count, *shape, dtype=torch.uint8)
    for part in pictures.split(PART):
        painted = paint(PART, shape, generator)[: len(part)]
        part.copy_(painted.clamp_(0, 1).mul_(255).round_())
    return pictures


def scenes(n: int, shape: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Scenes [n, C, H, W] in about 0..1: a background, clutter, and near the middle an object of six parts.

    The object's parts lie along an axis and overlap; they are shaded, some are striped, all of one palette.
    """
    draws = _Draws(n, generator)
    (channels, height, width), side = shape, max(shape[1:])
    y, x = (torch.linspace(-1, 1, size) * size / side for size in (height, width))
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    palette, texture = _palette(draws, channels), _texture(draws, height, width)
    turn_towards_classes = draws.normal(2)
    along = (
        torch.einsum("nc,chw->nhw", F.normalize(turn_towards_classes, dim=1), grid)
        - draws.uniform(-0.6, 0.6)[:, None, None]
    )
    sharp = torch.where(draws.uniform(0, 1) < 0.4, 12.0, 0.7)[:, None, None]  # a horizon or a slope
    mix = (0.5 + sharp * along).clamp(0, 1)[:, None]
    plain = (draws.uniform(0, 1) < 0.25)[:, None, None, None]
    picture = torch.where(plain, palette[0], torch.lerp(palette[0], palette[1], mix))
    picture = picture + (draws.uniform(0, 1) ** 2 * 0.3)[:, None, None, None] * texture[0]
    clutter = torch.randint(0, CLUTTER + 1, (n,), generator=generator)
    for i in range(CLUTTER):
        size = 0.12 * (1 - draws.uniform(0, 0.97)) ** -0.6  # a power law: many small, some as large as the picture
        centre = draws.uniform(-1, 1, 2)
        shown = (clutter > i).float()
        picture = _paint(picture, grid, centre, size, palette[1 + i % (COLOURS - 1)], texture[1], draws, shown)
    middle, axis = draws.normal(2) * 0.15, F.normalize(draws.normal(2), dim=1)
    reach = draws.uniform(0.1, 0.6)[:, None]
    whole = draws.uniform(0.7, 1.7)
    for i in range(PARTS):
        centre = middle + whole[:, None] * (axis * reach * draws.uniform(-1, 1)[:, None] + 0.12 * draws.normal(2))
        size = whole * draws.uniform(0.1, 0.6) * 0.85**i
        colour = palette[torch.randint(2, 5, (n,), generator=generator), torch.arange(n)]
        picture = _paint(picture, grid, centre, size, colour, texture[1], draws, (draws.uniform(0, 1) < 0.85).float())
    contrast, light = draws.uniform(0.6, 1.4), draws.uniform(-0.12, 0.12)
    picture = 0.5 + contrast[:, None, None, None] * (picture - 0.5) + light[:, None, None, None]
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(picture, blurred, draws.uniform(0, 1)[:, None, None, None])


def _paint(picture, grid, centre, size, colour, texture, draws, shown) -> torch.Tensor:
    """A shape over the picture, between an ellipse and a rectangle, soft at its edge, shaded, with stripes or not."""
    n, (height, width) = len(picture), picture.shape[2:]
    angle, stretch = draws.uniform(0, 3.1416), draws.uniform(-0.7, 0.7).exp()
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([cos / (size * stretch), sin / (size * stretch), -sin * stretch / size, cos * stretch / size], 1)
    turned = torch.einsum("nij,jp->nip", rows.view(n, 2, 2), grid.flatten(1))
    turned -= torch.einsum("nij,nj->ni", rows.view(n, 2, 2), centre)[:, :, None]
    u, v = turned.view(n, 2, height, width).unbind(1)
    square = draws.uniform(0, 1)[:, None, None]
    radius = torch.lerp((u * u + v * v).sqrt(), torch.maximum(u.abs(), v.abs()), square)
    edge = size[:, None, None] * width / 2 * draws.uniform(0.4, 1.5)[:, None, None]
    cover = ((1 - radius) * edge + 0.5).clamp(0, 1) * shown[:, None, None]
    shade = draws.normal(1)[:, :, None] * 0.18 * v + draws.normal(1)[:, :, None] * 0.1 * u
    striped = (draws.uniform(0, 1) < 0.2).float() * draws.uniform(0.05, 0.3)
    shade = shade + striped[:, None, None] * (u * draws.uniform(3, 12)[:, None, None]).sin()
    shade = shade + (draws.uniform(0, 1) ** 2 * 0.25)[:, None, None] * texture[:, 0]
    return torch.lerp(picture, colour + shade[:, None], cover[:, None])


def strokes(n: int, shape: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Strokes [n, C, H, W] in about 0..1: up to three bright curves of a pen on the dark, each after three hooks.

    A curve is a cubic one (Bezier); as a rule the next begins near a point of the one before it.
    """
    draws = _Draws(n, generator)
    _, height, width = shape
    t = torch.linspace(0, 1, POINTS)
    weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    curves, count = [], torch.randint(1, CURVES + 1, (n,), generator=generator)
    start = draws.normal(2) * 0.35
    for i in range(CURVES):
        spread = draws.uniform(0.25, 0.85)[:, None, None]
        hooks = torch.cat([start[:, None], start[:, None] * 0.3 + spread * draws.normal(6).view(n, 3, 2)], 1)
        curve = torch.einsum("kt,nkc->ntc", weights, hooks.clamp(-1.1, 1.1))
        curves.append(torch.where((count > i)[:, None, None], curve, curves[0] if curves else curve))
        joint = curve[torch.arange(n), torch.randint(0, POINTS, (n,), generator=generator)]
        start = torch.where((draws.uniform(0, 1) < 0.75)[:, None], joint, draws.normal(2) * 0.35)
    points = torch.cat(curves, 1)
    points = points - (points.amax(1, keepdim=True) + points.amin(1, keepdim=True)) / 2  # in the middle
    longest = points.abs().amax((1, 2))
    points = points * (draws.uniform(0.45, 0.85) / longest.clamp_min(0.3))[:, None, None]
    points = points + 0.08 * draws.normal(2)[:, None]
    y, x = ((torch.arange(size) + 0.5) * 2 / size - 1 for size in (height, width))
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)
    square = grid.square().sum(0) - 2 * points @ grid + points.square().sum(2, keepdim=True)
    distance = square.amin(1).clamp_min(0).sqrt() * width / 2
    pen, soft = draws.uniform(0.8, 2.2)[:, None], draws.uniform(0.6, 1.4)[:, None]
    ink = ((pen - distance) / soft + 0.5).clamp(0, 1) * draws.uniform(0.75, 1.1)[:, None]
    noise = draws.uniform(0, 1)[:, None] ** 4 * 0.2 * torch.randn(ink.shape, generator=generator)
    return (ink + noise).view(n, 1, height, width)


def _palette(draws: "_Draws", channels: int) -> torch.Tensor:
    """Natural colours [COLOURS, n, C, 1, 1]: any brightness, faintly tinted, those of a picture alike in tint."""
    n = draws.n
    bright = draws.uniform(0.05, 0.95, COLOURS)
    common, tint = draws.normal(channels)[:, None] * 0.08, draws.normal(COLOURS * channels).view(n, COLOURS, channels)
    strength = draws.uniform(0.02, 0.16, COLOURS)[:, :, None]
    return (bright[:, :, None] + common + strength * tint).permute(1, 0, 2)[..., None, None]


def _texture(draws: "_Draws", height: int, width: int) -> torch.Tensor:
    """1/f noise [2, n, 1, H, W] of mean 0 and deviation 1 (Field 1987), of exponents of their own."""
    noise = torch.randn(2, draws.n, 1, height, width, generator=draws.generator)
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2).sqrt()
    frequency[0, 0] = 1
    decay = frequency ** -draws.uniform(0.4, 1.6)[:, None, None, None]
    made = torch.fft.irfft2(torch.fft.rfft2(noise) * decay, s=(height, width))
    made = made - made.mean((-2, -1), keepdim=True)
    return made / made.std((-2, -1), keepdim=True).clamp_min(1e-6)


class _Draws:
    """Random numbers for n pictures at once."""

    def __init__(self, n: int, generator: torch.Generator):
        self.n, self.generator = n, generator

    def uniform(self, low: float, high: float, *size: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(self.n, *size, generator=self.generator)

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(self.n, *size, generator=self.generator)


def drawn_inputs(
    model: nn.Module, layer: str, samples: int, seed: int = 0, memory: int = 2**29, follow: Callable | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters `layer` for drawn pictures and for pixel impressions that start from them, x [N, *shape], and the
    classes [N] that the model gives them, sorted.

    DRAWN x samples pictures a class are drawn, TURNED x samples turned into each class, fewer where all would take
    more than `memory` bytes. Raises UserError where the model does not tell the range of its pixels.
    """
    low, high = feasible_inputs(model, "input").bounds
    if not (low > -torch.inf and high < torch.inf):
        raise UserError("model: it does not tell the range of its pixels; set its input_range = (lowest, highest)")
    body, tail = split(model, layer)
    k, size = run_on_zeros(model, model).shape[1], torch.Size(model.input_shape).numel()
    share = min(1.0, memory / (samples * k * (DRAWN + TURNED) * size))
    pictures = draw_pictures(max(1, round(share * DRAWN * samples * k)), tuple(model.input_shape), seed)
    device = get_device(model)
    answers = forward_in_batches(model, pictures, (low, high), device)
    turned = turn_towards_classes(
        model, pictures, answers, max(1, round(share * TURNED * samples)), (low, high), seed, follow
    )
    x = forward_in_batches(body, torch.cat([pictures, turned]), (low, high), device)
    labels = torch.cat([tail(part.to(device)).argmax(1).cpu() for part in x.split(PART)])
    order = labels.argsort(stable=True)
    return x[order], labels[order]


def turn_towards_classes(
    net: nn.Module,
    pictures: torch.Tensor,
    answers: torch.Tensor,
    count: int,
    bounds: tuple[float, float],
    seed: int = 0,
    follow: Callable | None = None,
) -> torch.Tensor:
    """Pictures uint8 [K x count, C, H, W]: of each class the `count` that rank highest for it, turned towards it.

    x <- x - STEP g / rms(g), g the gradient of CE(net(x), y), every other time smoothed over 5x5 pixels, until p_y is
    0.95; for half of them y is mixed with another class, so that they come to lie between the two. answers [N, K]:
    logits of the pictures.
    """
    generator, (low, high), k = torch.Generator().manual_seed(seed), bounds, answers.shape[1]
    best = torch.cat([p.topk(min(count, len(p))).indices for p in answers.log_softmax(1).T])
    goals = torch.arange(k).repeat_interleave(len(best) // k)
    order, device, made = torch.randperm(len(best), generator=generator), get_device(net), []
    for start, goal in zip(best[order].split(PART), goals[order].split(PART), strict=True):
        mixed = torch.rand(len(goal), 1, generator=generator) < 0.5
        share = (0.5 + 0.5 * torch.rand(len(goal), 1, generator=generator)).where(mixed, torch.ones(()))
        other = torch.randint(k, (len(goal),), generator=generator)
        y = (share * F.one_hot(goal, k) + (1 - share) * F.one_hot(other, k)).to(device)
        x = _as_taken(net, pictures[start], bounds, device)
        mixed, goal = mixed[:, 0].to(device), goal[:, None].to(device)
        for step in range(STEPS):
            x = x.requires_grad_(True)
            with fast_arithmetic(device):
                z = net(x).float()
            (g,) = torch.autograd.grad(F.cross_entropy(z, y, reduction="sum"), x)
            g = F.avg_pool2d(g, 5, stride=1, padding=2) if step % 2 == 0 else g
            g = g / g.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
            still = (mixed | (z.softmax(1).gather(1, goal)[:, 0] < 0.95))[:, None, None, None]
            x = (x.detach() - STEP * (high - low) * still * g).clamp(low, high)
            if follow:
                follow(step + 1, x)
        made.append(((x - low) * (255 / (high - low))).round_().to(torch.uint8).cpu())
    return torch.cat(made)


def _as_taken(net: nn.Module, pictures: torch.Tensor, bounds: tuple[float, float], device) -> torch.Tensor:
    """uint8 pictures as a network takes them, float32 from the lowest to the highest value of its pixels."""
    low, high = bounds
    x = low + pictures.to(device).float() * ((high - low) / 255)
    return x.contiguous(memory_format=find_memory_format(net, x[:2]))


@torch.no_grad()
def forward_in_batches(
    net: nn.Module, pictures: torch.Tensor, bounds: tuple[float, float], device: torch.device
) -> torch.Tensor:
    """What a network gives, float32 on the CPU, for uint8 pictures."""
    made = []
    for part in pictures.split(PART):
        with fast_arithmetic(device):
            made.append(net(_as_taken(net, part, bounds, device)).float().cpu().contiguous())
    return torch.cat(made)
