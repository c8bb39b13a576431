"""Networks: where they come from, their weights, and how they are cut into body and tail."""

from unlearn_lib.networks.bounds import layer_bounds
from unlearn_lib.networks.checks import check_logits, check_network
from unlearn_lib.networks.feasible import Feasible, feasible_inputs
from unlearn_lib.networks.probing import find_memory_format, run_on_zeros, unwrap, zero_pictures
from unlearn_lib.networks.runs import (
    Run,
    amend_run,
    check_run,
    class_code,
    code_digest,
    find_run,
    first_difference,
    has_run,
    open_run,
    run_name,
    run_names,
    runs_root,
    write_run,
)
from unlearn_lib.networks.small import KarpathyNet, LeNet5
from unlearn_lib.networks.splitting import (
    find_head,
    input_shape_of,
    shares_weights,
    split,
    splittable_layers,
    takes_pixels,
)
from unlearn_lib.networks.tracing import trace, traced_once
from unlearn_lib.networks.weights import apply_weights, count_outputs, find_framing, is_file, load_state, read_weights
from unlearn_lib.networks.zoo import Framing, check_model_name, input_shape, make_model, model_code
