"""Zero-shot: impressions and unlearning from the trained network alone.

Nothing here takes pictures, loaders or statistics of real data, or can reach a room that does.
"""

from unlearn_lib.zeroshot.carry_over import (
    CARRY_OVER_LIMITS,
    HeldOutInputs,
    carry_over,
    describe_carry_over,
    make_held_out_inputs,
)
from unlearn_lib.zeroshot.deep import deep_layer, inner_layers
from unlearn_lib.zeroshot.drawn import draw_pictures
from unlearn_lib.zeroshot.heads import closed_form, soft_targets
from unlearn_lib.zeroshot.impressions import (
    Impressions,
    check_recipe,
    default_layer,
    diagnose,
    follow_impression,
    leaf_layers,
    make_impressions,
    optimise_impressions,
    responsive_layers,
)
from unlearn_lib.zeroshot.methods import (
    METHODS,
    NUMBERS,
    PUBLISHED,
    Method,
    Switches,
    count_classes,
    distill_loss,
    mask,
    retain_mass_loss,
)
from unlearn_lib.zeroshot.recipes import RECIPE_VERSION, RECIPES, statistics_distance
from unlearn_lib.zeroshot.unlearner import Unlearning, ZeroShotUnlearner, unlearn
