"""Presets: which networks, data and forget classes the notebooks and the plain command take."""

import os

from unlearn_lib.experiment import Experiment

PRESETS = {
    "quick": (
        {"model": "lenet5", "data": "digits", "forget": (1, 2, 3, 4)},
        {"model": "karpathynet", "data": "shapes", "forget": ("ellipse", "cross", "star")},
    ),
    "paper": (
        {"model": "lenet5", "data": "mnist", "forget": (1, 2, 3, 4)},
        {"model": "karpathynet", "data": "cifar10", "forget": (3, 4, 8)},
    ),
}


def describe_preset() -> None:
    """Print the preset in use, what stands in for what in it, and how to switch."""
    name = chosen_preset()
    print(f"Preset {name} ($UNLEARN_PRESET): " + ", ".join(f"{c['model']} on {c['data']}" for c in PRESETS[name]) + ".")
    if name == "quick":
        print("digits and shapes, which need no download, stand in for MNIST and CIFAR-10.")
        print("Start Jupyter with UNLEARN_PRESET=paper to run the same cells on MNIST and CIFAR-10.")
    else:
        print("Start Jupyter without UNLEARN_PRESET to run the same cells in about a minute, without a download.")


def from_preset(model: str = "lenet5", **changes) -> Experiment:
    """The preset's experiment with this model, `changes` (those that are not None) put in their place.

    A model that is not in the preset gets the preset's colour pictures.
    """
    pairs = PRESETS[chosen_preset()]
    own = next((pair for pair in pairs if pair["model"] == model), pairs[-1])
    return Experiment(**own | {"model": model} | {name: value for name, value in changes.items() if value is not None})


def chosen_preset() -> str:
    """The preset that `$UNLEARN_PRESET` names, `quick` where it names none."""
    name = os.environ.get("UNLEARN_PRESET", "quick")
    if name not in PRESETS:
        raise ValueError(f"UNLEARN_PRESET: {name!r} given; {' or '.join(PRESETS)} is accepted")
    return name
