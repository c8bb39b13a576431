"""Which values can occur at a layer's input, whatever the picture: interval arithmetic over the traced graph."""

import inspect
import operator

import torch
from torch import fx, nn

from unlearn_lib.networks.splitting import find_cut, operation_name
from unlearn_lib.networks.tracing import is_shape_query, trace

Interval = tuple[float, float]
ANY: Interval = (-torch.inf, torch.inf)

# What an operation does to the interval of its input, by its name without underscores: nn.ReLU6, F.relu6, x.relu6_().
SAME = set(
    "view viewas reshape reshapeas flatten unflatten permute transpose movedim t squeeze unsqueeze contiguous clone "
    "detach to float half double expand expandas repeat roll flip getitem chunk split unbind narrow select identity "
    "maxpool1d maxpool2d maxpool3d adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d adaptiveavgpool1d "
    "adaptiveavgpool2d adaptiveavgpool3d mean amax amin pixelshuffle pixelunshuffle channelshuffle".split()
)
JOINED = {"cat", "concat", "stack", "max", "min", "maximum", "minimum"}  # the hull of all inputs
WITH_ZERO = {"avgpool1d", "avgpool2d", "avgpool3d", "zeropad1d", "zeropad2d", "zeropad3d"}  # padding joins in
RISING = set(  # both ends go through the operation itself
    "relu relu6 hardtanh clamp clip clampmin clampmax sigmoid hardsigmoid tanh elu celu selu leakyrelu softplus "
    "logsigmoid exp".split()
)
LOWEST = {
    "gelu": -0.1701,
    "silu": -0.2785,
    "hardswish": -0.375,
    "mish": -0.3089,
}  # f(x) lies between this and max(x, 0)
FIXED = {"softmax": (0.0, 1.0), "softmax2d": (0.0, 1.0), "logsoftmax": (-torch.inf, 0.0), "normalize": (-1.0, 1.0)}
SIGN = {"sum", "dropout", "dropout1d", "dropout2d", "dropout3d", "featuredropout", "stochasticdepth", "droppath"}
ARITHMETIC = {
    **dict.fromkeys(("add", "iadd"), "add"),
    **dict.fromkeys(("sub", "isub"), "sub"),
    **dict.fromkeys(("mul", "imul", "multiply"), "mul"),
    **dict.fromkeys(("div", "truediv", "itruediv"), "div"),
}


def layer_bounds(model: nn.Module, layer: str) -> Interval:
    """The smallest and the largest value that can enter `layer`, infinite where nothing is known.

    Pixels have the range that `model.input_range` tells. Raises UserError where `split` does.
    """
    traced, _, crossing = find_cut(model, layer)
    return interval_at(model, traced, crossing)


def logit_bounds(model: nn.Module) -> Interval:
    """The smallest and the largest number that the network can answer, whatever the picture, infinite where unknown.

    Raises UserError where it cannot be traced.
    """
    traced = trace(model)
    return interval_at(model, traced, next(iter(reversed(traced.graph.nodes))).args[0])


def interval_at(model: nn.Module, traced: fx.GraphModule, crossing: fx.Node) -> Interval:
    """`layer_bounds` the value of one node."""
    found: dict[fx.Node, Interval] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            found[node] = tuple(map(float, getattr(model, "input_range", ANY)))
        elif is_overwritten(node, traced):
            found[node] = ANY
        else:
            found[node] = _after(node, traced, found)
    return found[crossing]


def _after(node: fx.Node, traced: fx.GraphModule, found: dict[fx.Node, Interval]) -> Interval:
    """The interval of one node, those before it being known."""
    if node.op == "get_attr":
        return _ends(operator.attrgetter(node.target)(traced))
    name, sources = operation_name(node, traced), [found[n] for n in node.all_input_nodes]
    if not sources or node.op == "output":
        return ANY
    gates = [_sigmoid_of(n, traced) for n in node.all_input_nodes] if name in ("mul", "imul") else []
    if gated := [n for n in gates if n in node.all_input_nodes]:
        name, sources = "silu", [found[gated[0]]]
    if name in ARITHMETIC:
        return _arithmetic(ARITHMETIC[name], node, found)
    if is_shape_query(node):
        return 0.0, torch.inf
    low, high = sources[0]
    if name in RISING:
        return _through(node, traced, low, high)
    if name in LOWEST:
        return (0.0 if low >= 0 else LOWEST[name]), max(high, 0.0)
    if name in JOINED:
        return _hull(sources)
    if name in WITH_ZERO or (name == "pad" and len(node.args) < 4 and "value" not in node.kwargs):
        return _hull([(low, high), (0.0, 0.0)])
    if name in SIGN:
        if name != "sum" and not is_dropout_active(node, traced):
            return low, high
        return (0.0 if low >= 0 else -torch.inf), (0.0 if high <= 0 else torch.inf)
    if name in SAME and not _second_of_pair(node, traced):
        return low, high
    return FIXED.get(name, ANY)


def _through(node: fx.Node, traced: fx.GraphModule, low: float, high: float) -> Interval:
    """Both ends, and 0 where it lies between them, through a rising operation itself, with its numbers."""
    ends, rest = torch.tensor([low, min(max(low, 0.0), high), high]), node.args[1:]
    if any(isinstance(value, fx.Node) for value in (*rest, *node.kwargs.values())) or not node.args:
        return ANY
    if node.op == "call_module":
        ends = traced.get_submodule(node.target)(ends)
    elif node.op == "call_method":
        ends = getattr(ends, node.target)(*rest, **node.kwargs)
    else:
        ends = node.target(ends, *rest, **node.kwargs)
    low, middle, high = ends.tolist()
    return (low, high) if low <= middle <= high else ANY  # a leaky ReLU of negative slope falls


def _arithmetic(kind: str, node: fx.Node, found: dict[fx.Node, Interval]) -> Interval:
    operands = [found[a] if isinstance(a, fx.Node) else _ends(a) for a in (*node.args, *node.kwargs.values())]
    if len(operands) != 2:  # there is an alpha or a rounding_mode
        return ANY
    one, other = operands
    if kind in ("add", "sub"):
        other = other if kind == "add" else (-other[1], -other[0])
        return one[0] + other[0], one[1] + other[1]
    if kind == "div":
        if other[0] < 0:
            return ANY
        other = (1 / other[1] if other[1] else torch.inf), (1 / other[0] if other[0] else torch.inf)
    if kind == "mul" and node.args[0] is node.args[1]:
        return _square(one)
    products = [0.0 if 0 in (a, b) else a * b for a in one for b in other]
    return min(products), max(products)


def _square(one: Interval) -> Interval:
    ends = sorted((one[0] ** 2, one[1] ** 2))
    return (0.0 if one[0] < 0 < one[1] else ends[0]), ends[1]


def _ends(value: object) -> Interval:
    """The interval of a number or of a parameter as it now is."""
    if isinstance(value, torch.Tensor) and value.numel() and not value.is_complex():
        return value.min().item(), value.max().item()
    return (value, value) if isinstance(value, int | float) else ANY


def _hull(intervals: list[Interval]) -> Interval:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _sigmoid_of(node: fx.Node, traced: fx.GraphModule) -> fx.Node | None:
    """What a node is the sigmoid of: the product of both is a SiLU, written out."""
    return node.all_input_nodes[0] if operation_name(node, traced) == "sigmoid" else None


def is_dropout_active(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether a dropout is at work: a module never, since the network is in eval mode; a function by its argument."""
    if node.op == "call_module":
        return traced.get_submodule(node.target).training
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        return bool(given.arguments["training"])
    except (TypeError, ValueError, KeyError):
        return True


def _second_of_pair(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether a node takes the positions, not the values, that the likes of x.max(1) return beside them."""
    source = node.all_input_nodes[0]
    pairs = {"max", "min"} | {f"maxpool{d}d" for d in "123"} | {f"adaptivemaxpool{d}d" for d in "123"}
    return node.target is operator.getitem and operation_name(source, traced) in pairs and node.args[1] == 1


def is_overwritten(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether something writes over a value that is used elsewhere too."""

    def writes(user: fx.Node) -> bool:
        name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", "")
        part = traced.get_submodule(user.target) if user.op == "call_module" else None
        in_place = getattr(part, "inplace", False) or user.kwargs.get("inplace", False)
        return in_place or (part is None and (name.endswith("_") or name in ("iadd", "isub", "imul", "itruediv")))

    return len(node.users) > 1 and any(writes(user) for user in node.users)
