"""Models: LeNet5, KarpathyNet and torchvision's classifiers, and `split` into body and tail.

    picture ──> body ──> input of the cut layer ──> tail ──> logits

`split(model, "fc3")` makes `fc3` the first module of the tail; `"input"` means pixels, the whole model being the tail.
The split works on the traced graph (torch.fx), so functional ReLUs, flattening and residual branches survive.
"""

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError


def splittable_layers(model: nn.Module) -> list[str]:
    """Names of the modules at which `split` works, in order of execution, `input` not among them."""
    graph = _trace(model).graph
    return _single_crossings(list(graph.nodes), _first_nodes(model, graph))


def split(model: nn.Module, layer: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut the model before `layer`: tail(body(x)) equals model(x) to the bit.

    Both share the model's parameters and buffers, and the model is put into eval mode. The tail works on a copy
    of its input, so that an in-place ReLU spoils no cached activation.
    Raises ValueError for an unknown layer and for one before which more than one tensor crosses.
    """
    traced = _trace(model)
    nodes = list(traced.graph.nodes)
    if layer == "input":
        at = 1
    else:
        first = _first_nodes(model, traced.graph)
        if layer not in first or len(_crossing(nodes, first[layer])) != 1:
            good = _single_crossings(nodes, first)
            why = "more than one tensor crosses before it" if layer in first else "no such layer"
            raise UserError(f"layer: {layer!r} given ({why}); accepted: input, {', '.join(good)}")
        at = first[layer]
    (crossing,) = _crossing(nodes, at)

    body, tail = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[:at]:
        copies[node] = body.node_copy(node, copies.__getitem__)
    body.output(copies[crossing])

    copies = {crossing: tail.call_method("clone", (tail.placeholder("x"),))}
    for node in nodes:
        if node.op == "get_attr" or (node in nodes[at:] and node is not crossing):
            copies[node] = tail.node_copy(node, copies.__getitem__)
    tail.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return fx.GraphModule(traced, body), fx.GraphModule(traced, tail)


def behind_relu(model: nn.Module, layer: str) -> bool:
    """Whether what enters `layer` comes out of ReLUs or the like, so that nothing there is ever negative."""
    body, _ = split(model, layer)
    return _never_negative(next(iter(reversed(body.graph.nodes))).args[0], body)


def _never_negative(node: fx.Node, body: fx.GraphModule) -> bool:
    what = body.get_submodule(node.target) if node.op == "call_module" else node.target
    if isinstance(what, nn.ReLU | nn.ReLU6) or what in (F.relu, F.relu_, torch.relu, "relu", "relu_", F.relu6):
        return True
    pools = nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d
    functions = (torch.flatten, F.dropout, F.adaptive_avg_pool2d, F.max_pool2d, F.avg_pool2d, "flatten", "view")
    joins = (torch.cat, torch.add, operator.add)  # never negative where none of their inputs is
    if isinstance(what, pools | nn.Dropout | nn.Flatten | nn.Identity) or what in (*functions, *joins):
        return all(_never_negative(source, body) for source in node.all_input_nodes)
    return False


def at_pixels(model: nn.Module, layer: str) -> bool:
    """Whether what enters `layer` are the pixels themselves, as for `input` and for the first layer."""
    body, _ = split(model, layer)
    return next(iter(reversed(body.graph.nodes))).args[0].op == "placeholder"


def layer_shape(model: nn.Module, layer: str) -> tuple[int, ...]:
    """Shape of one input of `layer`, without the batch axis. Needs `model.input_shape`."""
    if layer == "input":
        return tuple(model.input_shape)
    body, _ = split(model, layer)
    parameter = next(model.parameters())
    with torch.no_grad():
        return tuple(body(torch.zeros(1, *model.input_shape, device=parameter.device)).shape[1:])


def find_head(model: nn.Module) -> str:
    """Name of the head, the last linear layer, where the logits leave the network.

    Raises ValueError where the network does not end in one (SqueezeNet ends in a ReLU: no mask holds there).
    """
    graph = _trace(model).graph
    node = next(iter(reversed(graph.nodes))).args[0]
    if (
        isinstance(node, fx.Node)
        and node.op == "call_module"
        and isinstance(model.get_submodule(node.target), nn.Linear)
    ):
        return node.target
    raise UserError(f"model: {type(model).__name__} does not end in a linear layer, which mask and published need")


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model.eval())
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise UserError(f"model: {type(model).__name__} cannot be traced by torch.fx ({error})") from error


def _first_nodes(model: nn.Module, graph: fx.Graph) -> dict[str, int]:
    """Each module's name and the position of the first node that belongs to it, in order of execution."""
    first: dict[str, int] = {}
    names = {name for name, _ in model.named_modules() if name}
    for i, node in enumerate(graph.nodes):
        stack = list(node.meta.get("nn_module_stack", {}))
        if node.op == "call_module":
            stack.append(node.target)
        for name in stack:
            if name in names:
                first.setdefault(name, i)
    return first


def _crossing(nodes: list[fx.Node], at: int) -> set[fx.Node]:
    """The values made before position `at` and used from there on; parameters do not count."""
    before = set(nodes[:at])
    used = {source for node in nodes[at:] for source in node.all_input_nodes}
    return {node for node in used & before if node.op != "get_attr"}


def _single_crossings(nodes: list[fx.Node], first: dict[str, int]) -> list[str]:
    """The modules before which one value alone crosses."""
    return [name for name, at in first.items() if len(_crossing(nodes, at)) == 1]
