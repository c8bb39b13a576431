"""Zero-shot: impressions and unlearning from the trained network alone.

Nothing here takes pictures, loaders or statistics of real data, or can reach a room that does."""

from unlearn_lib.zeroshot.impressions import (
    Impressions,
    check_impressions,
    default_layer,
    diagnose,
    follow_impression,
    leaf_layers,
    load_impressions,
    make_impressions,
    responsive_layers,
    save_impressions,
)
from unlearn_lib.zeroshot.recipes import RECIPES, closed_form, statistics_distance
from unlearn_lib.zeroshot.unlearner import (
    METHODS,
    PUBLISHED,
    Switches,
    ZeroShotUnlearner,
    check_method,
    check_numbers,
    distill_loss,
    mask,
    retain_mass_loss,
)
