"""Zero-shot: impressions and unlearning from the trained network alone.

Nothing here takes pictures, loaders or statistics of real data, or can reach a room that does."""

from unlearn_lib.zeroshot.impressions import (
    Impressions,
    check_impressions,
    default_layer,
    diagnose,
    follow_impression,
    leaf_layers,
    make_impressions,
    responsive_layers,
)
from unlearn_lib.zeroshot.recipes import RECIPE_VERSION, RECIPES, closed_form, statistics_distance
from unlearn_lib.zeroshot.unlearner import (
    METHODS,
    PUBLISHED,
    Switches,
    ZeroShotUnlearner,
    check_choice,
    check_method,
    check_numbers,
    default_recipe,
    distill_loss,
    mask,
    retain_mass_loss,
    unlearning_numbers,
)
