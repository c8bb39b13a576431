"""Networks: where they come from, their weights, and how they are cut into body and tail."""

from unlearn_lib.networks.bounds import bounds_of
from unlearn_lib.networks.checks import check_foreign, check_logits
from unlearn_lib.networks.feasible import Feasible, feasible_at
from unlearn_lib.networks.probing import dry_run, layout_of, plain, probe
from unlearn_lib.networks.runs import (
    Run,
    check_run,
    class_code,
    code_digest,
    difference,
    find_run,
    has_run,
    open_run,
    run_name,
    run_names,
    runs_root,
)
from unlearn_lib.networks.small import KarpathyNet, LeNet5
from unlearn_lib.networks.splitting import at_pixels, find_head, layer_shape, shares_weights, split, splittable_layers
from unlearn_lib.networks.tracing import trace, traced_once
from unlearn_lib.networks.weights import apply_weights, framing_of, is_file, load_state, outputs_of, read_weights
from unlearn_lib.networks.writing import amend_run, write_run
from unlearn_lib.networks.zoo import Framing, make_model, model_code
