"""Zero-shot class unlearning: a trained classifier forgets classes without any of the data it was trained on."""

from unlearn_lib.data import Data, Split, check_forget, load_data, parse_classes
from unlearn_lib.evaluation import answers_of, confusion_of, evaluate, logits_of, score, table
from unlearn_lib.experiment import PRESETS, Experiment, describe_preset, from_preset
from unlearn_lib.impressions import (
    Impressions,
    default_layer,
    diagnose,
    follow_impression,
    make_impressions,
    responsive_layers,
)
from unlearn_lib.models import (
    KarpathyNet,
    LeNet5,
    find_head,
    make_model,
    pick_device,
    split,
    splittable_layers,
)
from unlearn_lib.plots import (
    plot_confusions,
    plot_cost,
    plot_growth,
    plot_history,
    plot_impressions,
    plot_losses,
    plot_per_class,
    plot_pictures,
    plot_recipes,
    plot_responsive,
    save_figure,
)
from unlearn_lib.runs import Run, open_run, runs_root
from unlearn_lib.training import fit
from unlearn_lib.unlearning import PUBLISHED, ZeroShotUnlearner, distill_loss, mask, retain_mass_loss
from unlearn_lib.widgets import UnlearningPanel, unlearning_panel

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "Data",
    "Experiment",
    "Impressions",
    "KarpathyNet",
    "LeNet5",
    "Run",
    "Split",
    "UnlearningPanel",
    "ZeroShotUnlearner",
    "answers_of",
    "check_forget",
    "confusion_of",
    "default_layer",
    "describe_preset",
    "diagnose",
    "distill_loss",
    "evaluate",
    "find_head",
    "fit",
    "follow_impression",
    "from_preset",
    "load_data",
    "logits_of",
    "make_impressions",
    "make_model",
    "mask",
    "open_run",
    "parse_classes",
    "pick_device",
    "plot_confusions",
    "plot_cost",
    "plot_growth",
    "plot_history",
    "plot_impressions",
    "plot_losses",
    "plot_per_class",
    "plot_pictures",
    "plot_recipes",
    "plot_responsive",
    "responsive_layers",
    "retain_mass_loss",
    "runs_root",
    "save_figure",
    "score",
    "split",
    "splittable_layers",
    "table",
    "unlearning_panel",
]
