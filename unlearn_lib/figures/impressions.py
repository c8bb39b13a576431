"""Figures of pictures and of class impressions: what they look like, how they grow, what the diagnostics say."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from unlearn_lib.figures.style import COLOURS, HATCHES, LINES, STYLE
from unlearn_lib.zeroshot import Impressions


def plot_pictures(images: torch.Tensor, words: list[str], title: str, columns: int = 10) -> Figure:
    """Pictures [N, C, H, W], uint8 or float of any range, in rows, each with its words above it."""
    rows = math.ceil(len(images) / columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.5 * rows + 0.6), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, picture, word in zip(axes.flat, images, words, strict=False):
            show_impression(axis, picture.float())
            axis.set_title(word, fontsize=11)
        figure.suptitle(title)
    return figure


def plot_growth(growth: pd.DataFrame, pictures: torch.Tensor, title: str, shown: int = 8) -> Figure:
    """One impression on its way from noise: `shown` of its states above, confidence and norm over the steps below."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 5.2))
        upper, lower = figure.subfigures(2, 1)
        last = len(growth) - 1
        chosen = [round(last * (i / (shown - 1)) ** 2) for i in range(shown)]  # most happens early
        for axis, step in zip(upper.subplots(1, shown), chosen, strict=True):
            show_impression(axis, pictures[step])
            axis.set_title(f"step {step}", fontsize=11)
        _draw_growth(lower.subplots(1, 2), growth)
        figure.suptitle(title)
    return figure


def plot_growth_curves(growth: pd.DataFrame) -> Figure:
    """Confidence and norm of one impression over the steps."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8, 2.9))
        _draw_growth(axes, growth)
    return figure


def _draw_growth(axes, growth: pd.DataFrame) -> None:
    for axis, (i, what) in zip(axes, enumerate(("confidence", "norm")), strict=True):
        axis.plot(growth.index, growth[what], LINES[i], color=COLOURS[i], lw=2)
        axis.set(xlabel="step", ylabel=what, ylim=(0, None))


def plot_recipes(diagnoses: dict[str, pd.DataFrame], title: str) -> Figure:
    """Diagnostics of several recipes side by side, mean over the classes; the norm has an axis of its own."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(12, 3.6))
        for axis, what in zip(axes, ("confidence", "norm", "infeasible", "cosine"), strict=True):
            for i, (name, diagnosis) in enumerate(diagnoses.items()):
                value = diagnosis[what].mean()
                axis.bar(name, value, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white")
                axis.annotate(f"{value:.2f}" if value < 10 else f"{value:.0f}", (i, value), ha="center", va="bottom")
            axis.set(title=what, ylim=(0, axis.get_ylim()[1] * 1.12))
        figure.suptitle(title)
    return figure


def plot_impressions(impressions: Impressions, diagnosis: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """The first impressions of ten classes, and the diagnostics of all: confidence, norm, infeasible share, cosine.

    Bars, a class each; of more than thirty classes a histogram.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 5.2))
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.7))
        shown = diagnosis.index[:10]
        for axis, label in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            x = impressions.x[impressions.labels == label][0]
            show_impression(axis, x)
            axis.set_title(classes[label], fontsize=12)
        for axis, (i, what) in zip(
            lower.subplots(1, 4), enumerate(("confidence", "norm", "infeasible", "cosine")), strict=True
        ):
            limits = (0, None if what == "norm" else 1.02)
            if len(diagnosis) > 30:
                axis.hist(diagnosis[what], bins=20, range=None if what == "norm" else (0, 1), color=COLOURS[i])
                axis.set(xlabel=what, ylabel="classes" if i == 0 else "", xlim=limits)
                continue
            sns.barplot(x=diagnosis[what], y=[classes[c] for c in diagnosis.index], color=COLOURS[i], ax=axis)
            axis.set(xlabel=what, ylabel="", yticks=axis.get_yticks() if i == 0 else [], xlim=limits)
        figure.suptitle(title)
    return figure


def show_impression(axis, x: torch.Tensor) -> None:
    """Draw one impression as `as_picture` sees it."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.imshow(as_picture(x))


def as_picture(x: torch.Tensor) -> np.ndarray:
    """One impression as RGB uint8 [H, W, 3]: pixels as a picture, channels as tiles, a vector as a square of cells."""
    x = x.detach().cpu().float()
    low, high = (0, 255) if _is_picture(x) and x.max() > 20 else (x.min(), x.max())  # uint8, or normalised pixels
    x = (x - low) / (high - low + 1e-9)
    if _is_picture(x):
        return (255 * x.permute(1, 2, 0).expand(-1, -1, 3)).to(torch.uint8).numpy()
    tiles = x if x.dim() == 3 else x.reshape(-1, 1, 1)
    side = math.ceil(len(tiles) ** 0.5)
    padded = torch.full((side * side, *tiles.shape[1:]), torch.nan)
    padded[: len(tiles)] = tiles
    whole = padded.unflatten(0, (side, side)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return matplotlib.colormaps["viridis"].with_extremes(bad="white")(whole.numpy(), bytes=True)[..., :3]


def _is_picture(x: torch.Tensor) -> bool:
    """Whether x [C, H, W] has the one or three channels of a picture."""
    return x.dim() == 3 and x.shape[0] in (1, 3)
