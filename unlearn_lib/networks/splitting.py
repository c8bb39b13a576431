"""Cutting a network into body and tail.

    picture ──> body ──> input of the cut layer ──> tail ──> logits

`split(model, "fc3")` makes `fc3` the first module of the tail; `"input"` means pixels, the whole model being the tail.
The split works on the traced graph, so functional ReLUs, flattening and residual branches survive. Sizes are no tensors
that cross: the tail takes the batch's from its own input, and the others are the constants that they are.
"""

import operator

import torch
from torch import fx, nn

from unlearn_lib.common import UserError
from unlearn_lib.networks.probing import run_on_zeros, unwrap
from unlearn_lib.networks.tracing import UNTIL, content_nodes, is_shape_query, record_values, trace, varies_with_batch

REFORMERS = {"identity", "dropout", "flatten", "squeeze", "view", "reshape", "contiguous", "clone", "float"}


def splittable_layers(model: nn.Module) -> list[str]:
    """Names of the modules at which `split` works, in order of execution, `input` not among them."""
    graph = trace(model).graph
    return _single_crossings(graph, _first_nodes(model, graph))


def split(model: nn.Module, layer: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut the model before `layer`: tail(body(x)) equals model(x) to the bit.

    Both share the model's parameters and buffers, and the model is put into eval mode. The tail works on a copy
    of its input, so that an in-place ReLU spoils no cached activation.
    Raises UserError for an unknown layer and for one before which more than one tensor crosses.
    """
    traced, at, crossing = find_cut(model, layer)
    nodes, body = list(traced.graph.nodes), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[:at]:
        copies[node] = body.node_copy(node, copies.__getitem__)
    body.output(copies[crossing])
    return fx.GraphModule(traced, body), fx.GraphModule(traced, _tail(model, traced, at, crossing))


def shares_weights(model: nn.Module, layer: str) -> bool:
    """Whether weights at work before `layer` are at work from it on too. Raises UserError where `split` does."""
    body, tail = split(model, layer)
    behind = {*tail.parameters()}
    if hasattr(body, UNTIL) or behind.isdisjoint(body.parameters()):
        return False
    body.graph.eliminate_dead_code()  # what is looked up before the layer, and used behind it alone
    return not behind.isdisjoint(fx.GraphModule(body, body.graph).parameters())


def find_cut(model: nn.Module, layer: str) -> tuple[fx.GraphModule, int, fx.Node]:
    """The traced model, the position of the tail's first node, and the node whose value crosses.

    Raises UserError for an unknown layer and for one before which more than one tensor crosses.
    """
    traced, layer = trace(model), str(layer)  # those of nn.Sequential are numbers
    nodes = list(traced.graph.nodes)
    if layer == "input":
        return traced, 1, nodes[0]
    first = _first_nodes(model, traced.graph)
    crossing = _crossing(nodes, first[layer], content_nodes(traced.graph)) if layer in first else set()
    if len(crossing) != 1:
        why = "more than one tensor crosses before it" if layer in first else "no such layer"
        good = ", ".join(_single_crossings(traced.graph, first))
        raise UserError(f"layer: {layer!r} given ({why}); accepted: input, {good}")
    return traced, first[layer], *crossing


def _tail(model: nn.Module, traced: fx.GraphModule, at: int, crossing: fx.Node) -> fx.Graph:
    """The graph from position `at` on, its input being the value that crosses.

    What it uses of earlier nodes besides depends on no picture: tensors are made again, sizes become `_stand_in`.
    """
    graph, found = fx.Graph(), None
    nodes, before = list(traced.graph.nodes), set(list(traced.graph.nodes)[:at])
    x = graph.call_method("clone", (graph.placeholder("x"),))
    copies = {crossing: x}

    def copied(node: fx.Node):
        nonlocal found
        if node not in copies:
            past = node in before or (is_shape_query(node) and node.all_input_nodes[0] in before - {crossing})
            if past and node.op != "get_attr":
                found = found or record_values(unwrap(model), traced.graph, traced)
            if past and node.op != "get_attr" and not isinstance(found[0][node], torch.Tensor):
                copies[node] = _stand_in(node, crossing, found, x)
            else:
                copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in nodes[at:]:
        copied(node)
    return graph


def _stand_in(node: fx.Node, crossing: fx.Node, found: tuple[dict, dict], x: fx.Node):
    """For a size from before the cut: its constant or, where it goes with the batch, its share of the tail's batch."""
    rows, graph = [record_values[crossing].shape[0] for record_values in found], x.graph

    def expression(one, other):
        if isinstance(one, tuple):
            parts = tuple(expression(*pair) for pair in zip(one, other, strict=True))
            return graph.call_function(torch.Size, (parts,)) if isinstance(one, torch.Size) else parts
        if isinstance(one, torch.device):
            return graph.call_function(getattr, (x, "device"))
        if one == other:
            return one
        if not isinstance(one, int) or one * rows[1] != other * rows[0]:
            raise UserError(f"layer: a number crosses before it ({node.name}) that is no multiple of the batch's size")
        size = graph.call_method("size", (x, 0))
        return (
            size
            if one == rows[0]
            else graph.call_function(operator.floordiv, (graph.call_function(operator.mul, (size, one)), rows[0]))
        )

    one, other = (record_values[node] for record_values in found)
    if one == other and varies_with_batch(node, found):
        raise UserError(f"layer: a number crosses before it ({node.name}) that may change with the batch")
    return expression(one, other)


def takes_pixels(model: nn.Module, layer: str) -> bool:
    """Whether what enters `layer` are the pixels themselves, as for `input` and for the first layer."""
    return find_cut(model, layer)[2].op == "placeholder"


def input_shape_of(model: nn.Module, layer: str) -> tuple[int, ...]:
    """Shape of one input of `layer`, without the batch axis. Needs `model.input_shape`."""
    if layer == "input":
        return tuple(model.input_shape)
    body, _ = split(model, layer)
    return tuple(run_on_zeros(body, unwrap(model)).shape[1:])


def find_head(model: nn.Module) -> str:
    """Name of the head, the last linear layer, where the logits leave the network; reshaping may follow.

    Raises UserError where the network does not end in one (SqueezeNet ends in a ReLU: no mask holds there).
    """
    model = unwrap(model)
    node = next(iter(reversed(trace(model).graph.nodes))).args[0]
    while operation_name(node, model) in REFORMERS:
        node = node.all_input_nodes[0]
    name = _linear_layer(node)
    part = model.get_submodule(name) if name else None
    sentence = f"model: {type(model).__name__} does not end in a linear layer, which mask and published need"
    if isinstance(part, nn.Conv2d):
        raise UserError(f"{sentence}; {name} is a convolution, nn.Flatten and nn.Linear with its weights do the same")
    if not isinstance(part, nn.Linear):
        raise UserError(sentence)
    if "weight" not in part._parameters:
        raise UserError(f"model: the weight of its head {name} is made from others (weight_norm); remove that first")
    return name


def _linear_layer(node: fx.Node) -> str | None:
    """The module that a node calls; for timm's kind of nn.Linear, which is traced, the one that does F.linear alone."""
    if node.op == "call_module":
        return node.target
    source, *parameters = node.all_input_nodes or [node]
    name, before = (next(reversed(n.meta.get("nn_module_stack") or {"": None})) for n in (node, source))
    wanted = [f"{name}.weight", f"{name}.bias"][: len(parameters)]
    if node.target is nn.functional.linear and name != before and [n.target for n in parameters] == wanted:
        return name
    return None


def operation_name(node: fx.Node, traced: nn.Module) -> str:
    """What PyTorch calls an operation, without underscores and capitals: `relu` for nn.ReLU, F.relu and x.relu_().

    Empty for others' modules and functions, and for modules whose hooks may do anything.
    """
    what = node.target
    if node.op == "call_module":
        part = traced.get_submodule(node.target)
        what = "" if part._forward_hooks or part._forward_pre_hooks else type(part)
    elif what is getattr:
        what = node.args[1]
    if not isinstance(what, str):
        known = (what.__module__ or "torch").startswith(("torch", "_operator", "builtins"))
        what = what.__name__ if known else ""
    return what.replace("_", "").lower()


def _first_nodes(model: nn.Module, graph: fx.Graph) -> dict[str, int]:
    """Each module's name and the position of the first node that belongs to it, in order of execution."""
    first: dict[str, int] = {}
    names = {name for name, _ in unwrap(model).named_modules() if name}
    for i, node in enumerate(graph.nodes):
        stack = list(node.meta.get("nn_module_stack", {}))
        if node.op == "call_module":
            stack.append(node.target)
        for name in stack:
            if name in names:
                first.setdefault(name, i)
    return first


def _crossing(nodes: list[fx.Node], at: int, pictures: set[fx.Node]) -> set[fx.Node]:
    """The values of the pictures made before position `at` and used from there on: tensors, or tuples of them."""
    before = pictures.intersection(nodes[:at])
    users = [node for node in nodes[at:] if not is_shape_query(node)]
    crossing = {source for node in users for source in node.all_input_nodes if source in before}
    several = {user for node in crossing for user in node.users if _takes_part(user)}
    return crossing | several


def _takes_part(node: fx.Node) -> bool:
    """Whether a node takes one of several values out of a tuple."""
    return node.target is operator.getitem and isinstance(node.args[1], int)


def _single_crossings(graph: fx.Graph, first: dict[str, int]) -> list[str]:
    """The modules before which one value alone crosses."""
    nodes, pictures = list(graph.nodes), content_nodes(graph)
    return [name for name, at in first.items() if len(_crossing(nodes, at, pictures)) == 1]
