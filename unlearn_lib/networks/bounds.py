"""Which values can enter a layer, for any picture: intervals through the traced graph.

Activations, pooling, reshaping and sums of branches carry an interval on. Behind any other operation nothing is known.
"""

import inspect

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from unlearn_lib.networks.splitting import Cut, find_cut, operation_name, takes_item
from unlearn_lib.networks.tracing import find_output, trace

Interval = tuple[float, float]
ANY: Interval = (-torch.inf, torch.inf)

# What an operation does to the interval of its input. The names are those of `operation_name`.
SAME_RANGE = set(  # they choose, move or average values
    "view viewas reshape reshapeas flatten unflatten permute transpose movedim t squeeze unsqueeze contiguous clone "
    "detach to float half double expand expandas repeat roll flip getitem narrow select identity "
    "maxpool1d maxpool2d maxpool3d adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d adaptiveavgpool1d "
    "adaptiveavgpool2d adaptiveavgpool3d mean amax amin pixelshuffle pixelunshuffle channelshuffle".split()
)
DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "featuredropout", "stochasticdepth", "droppath"}
HULL = {"cat", "concat", "stack", "maximum"}  # the smallest interval around those of all inputs
ZERO_PADDED = {"avgpool1d", "avgpool2d", "avgpool3d", "zeropad1d", "zeropad2d", "zeropad3d"}
INCREASING = set(
    "relu relu6 hardtanh clamp clip clampmin clampmax sigmoid hardsigmoid tanh elu celu selu leakyrelu softplus "
    "logsigmoid exp".split()
)
MINIMUM = {"gelu": -0.1701, "silu": -0.2785, "hardswish": -0.375, "mish": -0.3089}  # MINIMUM <= f(x) <= max(x, 0)


def layer_bounds(model: nn.Module, layer: str) -> Interval:
    """Return the smallest and the largest value that can enter `layer`; infinite where unknown.

    Pixels have the range `model.input_range`. Raises UserError where `split` does.
    """
    return cut_bounds(find_cut(model, layer))


def logit_bounds(model: nn.Module) -> Interval:
    """Return the smallest and the largest possible logit. Raises UserError for a network that cannot be traced."""
    traced = trace(model)
    return cut_bounds(Cut(traced, len(traced.graph.nodes) - 1, find_output(traced)))


def cut_bounds(cut: Cut) -> Interval:
    """Return the interval of the value that crosses the cut."""
    known: dict[fx.Node, Interval] = {}
    for node in cut.body_nodes:
        known[node] = _node_bounds(node, cut.traced, known)
        if writes_in_place(node, cut.traced):  # any earlier value may be a view of what it writes to
            known = {earlier: _hull([bounds, known[node]]) for earlier, bounds in known.items()}
    return known[cut.value]


def _node_bounds(node: fx.Node, traced: fx.GraphModule, known: dict[fx.Node, Interval]) -> Interval:
    if node.op == "placeholder":
        return tuple(map(float, getattr(traced, "input_range", ANY)))
    sources = [known[source] for source in node.all_input_nodes]
    if not sources or any(isinstance(value, fx.Node) for value in tree_leaves(dict(node.kwargs))):
        return ANY
    name = operation_name(node, traced)
    low, high = sources[0]
    if keeps_range(node, traced):
        return low, high
    if name in HULL:
        return _hull(sources)
    if name in ("add", "iadd") and len(sources) == 2 and not node.kwargs:  # two branches, without alpha
        return low + sources[1][0], high + sources[1][1]
    if name in INCREASING:
        return _apply_to_ends(node, traced, low, high)
    if name in MINIMUM:
        return (0.0 if low >= 0 else MINIMUM[name]), max(high, 0.0)
    if name in ZERO_PADDED and not _has_divisor(node, traced):
        return _hull([(low, high), (0.0, 0.0)])
    return ANY


def keeps_range(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Return whether all values of a node lie in the interval of its first input."""
    name = operation_name(node, traced)
    if name in DROPOUTS:
        return node.op == "call_module" or not _is_training(node)  # modules are in eval mode
    return name in SAME_RANGE and not takes_item(node)  # the second item of x.max(1) holds positions


def _is_training(node: fx.Node) -> bool:
    """Return whether a dropout function is active, or may be."""
    try:
        return bool(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments.get("training", True))
    except (TypeError, ValueError):
        return True


def _has_divisor(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Return whether an average pooling divides by another number than the size of its window."""
    if node.op == "call_module":
        return getattr(traced.get_submodule(node.target), "divisor_override", None) is not None
    return len(node.args) > 6 or "divisor_override" in node.kwargs


def _apply_to_ends(node: fx.Node, traced: fx.GraphModule, low: float, high: float) -> Interval:
    """Return the interval that an increasing operation makes of [low, high]. Its knot, if any, is at 0."""
    if any(isinstance(value, fx.Node) for value in node.args[1:]):
        return ANY
    ends = torch.tensor([low, min(max(low, 0.0), high), high])
    run = fx.Interpreter(traced, garbage_collect_values=False)
    low, middle, high = getattr(run, node.op)(node.target, (ends, *node.args[1:]), dict(node.kwargs)).tolist()
    return (low, high) if low <= middle <= high else ANY  # a leaky ReLU of negative slope falls


def _hull(intervals: list[Interval]) -> Interval:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def writes_in_place(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Return whether a node writes, or may write, over one of its inputs."""
    if node.op == "call_module":
        part = traced.get_submodule(node.target)
        return getattr(part, "inplace", False) or not operation_name(node, traced)
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    is_augmented = name.startswith("i") and getattr(node.target, "__module__", "") == "_operator"  # iadd, imul
    has_flag = bool(node.kwargs.get("inplace")) or "out" in node.kwargs or any(arg is True for arg in node.args)
    return is_augmented or has_flag or name.endswith("_") or not operation_name(node, traced)
