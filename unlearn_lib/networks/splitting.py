"""Cutting a network into body and tail.

    picture ──> body ──> input of the cut layer ──> tail ──> logits

`split(model, "fc3")` makes `fc3` the first module of the tail; `"input"` means pixels, the whole model being the tail.
The split works on the traced graph, so functional ReLUs, flattening and residual branches survive. Shape values may
cross the cut. The tail reads the batch size from its own input; other sizes become constants.
"""

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn

from unlearn_lib.common import UserError
from unlearn_lib.networks.probing import run_on_zeros, unwrap
from unlearn_lib.networks.tracing import (
    BEFORE_HEAD,
    BatchValues,
    content_nodes,
    find_output,
    is_shape_query,
    trace,
)

KEEP_LOGITS = {"identity", "dropout", "flatten", "squeeze", "view", "reshape", "contiguous", "clone", "float"}


@dataclass(frozen=True)
class Cut:
    """A place in a traced network where one value alone crosses.

    position: of the tail's first node in the graph. value: the node whose value crosses.
    """

    traced: fx.GraphModule
    position: int
    value: fx.Node

    @property
    def body_nodes(self) -> list[fx.Node]:
        """The nodes before the cut."""
        return list(self.traced.graph.nodes)[: self.position]


def splittable_layers(model: nn.Module) -> list[str]:
    """Return the names of the modules at which `split` works, in order of execution, without `input`.

    Example:
        >>> splittable_layers(LeNet5())[-3:]
        ['fc1', 'fc2', 'fc3']
    """
    return _single_crossings(find_crossings(trace(model)))


def split(model: nn.Module, layer: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut the model before `layer`: tail(body(x)) equals model(x) in eval mode, to the bit.

    The model stays as it is. Body and tail are in eval mode, whatever the model's mode. They share its parameters and
    buffers: training the tail trains the model. The tail works on a copy of its input, so that an in-place ReLU
    does not change cached activations.

    Raises:
        UserError: unknown layer, or more than one tensor crosses before it.

    Example:
        >>> body, tail = split(LeNet5().eval(), "fc3")
    """
    cut = find_cut(model, layer)
    before = cut.body_nodes
    body = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in before:
        if node.op != "get_attr" or not node.users.keys().isdisjoint(before):
            copies[node] = body.node_copy(node, copies.__getitem__)
    body.output(copies[cut.value])
    return fx.GraphModule(cut.traced, body), fx.GraphModule(cut.traced, _tail_graph(cut))


def shares_weights(model: nn.Module, layer: str) -> bool:
    """Return whether the body uses weights of the tail, too. Raises UserError where `split` does."""
    body, tail = split(model, layer)
    if hasattr(body, BEFORE_HEAD):  # `trace` has checked it; the module contains the head, too
        return False
    return not {*tail.parameters()}.isdisjoint(body.parameters())


def find_cut(model: nn.Module, layer: str) -> Cut:
    """Return the cut before `layer`. Raises UserError where `split` does."""
    traced = trace(model)
    layer = str(layer)  # nn.Sequential's layers have numbers for names
    if layer == "input":
        return Cut(traced, 1, next(iter(traced.graph.nodes)))
    crossings = find_crossings(traced)
    position, values = crossings.get(layer, (0, []))
    if len(values) != 1:
        why = "more than one tensor crosses before it" if layer in crossings else "no such layer"
        good = ", ".join(_single_crossings(crossings))
        raise UserError(f"layer: got {layer!r} ({why}); expected one of input, {good}")
    return Cut(traced, position, values[0])


def find_crossings(traced: fx.GraphModule) -> dict[str, tuple[int, list[fx.Node]]]:
    """Return for each module's name the position of its first node and the values that cross before it.

    A value crosses if it depends on the pictures' contents, is computed before the position and is used from there on.
    Of a tuple its parts count, too.
    """
    position = {node: i for i, node in enumerate(traced.graph.nodes)}
    first: dict[str, int] = {}
    for node, i in position.items():
        names = [*node.meta.get("nn_module_stack", ())]
        for name in [*names, node.target] if node.op == "call_module" else names:
            if "@" not in name and name != BEFORE_HEAD:  # torch.fx names a module's second call name@1
                first.setdefault(name, i)
    last_use = {
        value: max((position[user] for user in value.users if not is_shape_query(user)), default=-1)
        for value in content_nodes(traced.graph)
    }
    crossings = {}
    for name, at in first.items():
        values = [value for value, last in last_use.items() if position[value] < at <= last]
        parts = {user for value in values for user in value.users if takes_item(user)}
        crossings[name] = at, [*{*values, *parts}]
    return crossings


def _single_crossings(crossings: dict[str, tuple[int, list[fx.Node]]]) -> list[str]:
    return [name for name, (_, values) in crossings.items() if len(values) == 1]


def takes_item(node: fx.Node) -> bool:
    """Return whether a node takes one of several values out of a tuple."""
    return node.target is operator.getitem and isinstance(node.args[1], int)


def _tail_graph(cut: Cut) -> fx.Graph:
    """Return the graph behind the cut. Its input is the value that crosses.

    Other values from before the cut depend on no picture. Tensors are computed again; sizes get a stand-in.
    """
    graph = fx.Graph()
    x = graph.call_method("clone", (graph.placeholder("x"),))
    copies = {cut.value: x}
    before = {*cut.body_nodes}
    values = BatchValues(cut.traced, cut.traced.graph)

    def copy_node(node: fx.Node):
        if node not in copies:
            is_early = node in before or (is_shape_query(node) and node.all_input_nodes[0] in before - {cut.value})
            if is_early and node.op != "get_attr" and not isinstance(values[node][0], torch.Tensor):
                copies[node] = _stand_in(node, cut, values, x)
            else:
                copies[node] = graph.node_copy(node, copy_node)
        return copies[node]

    for node in list(cut.traced.graph.nodes)[cut.position :]:
        copy_node(node)
    return graph


def _stand_in(node: fx.Node, cut: Cut, values: BatchValues, x: fx.Node):
    """Return a size from before the cut as a constant, or as a multiple of the batch size of the tail's input."""
    rows = [value.shape[0] for value in values[cut.value]]

    def express(one, other):
        if isinstance(one, tuple):
            parts = tuple(express(*pair) for pair in zip(one, other, strict=True))
            return x.graph.call_function(torch.Size, (parts,))
        if one == other:
            return one
        if not isinstance(one, int) or one * rows[1] != other * rows[0]:
            raise UserError(f"layer: {node.name} crosses before it, a number that is no multiple of the batch size")
        size = x.graph.call_method("size", (x, 0))
        if one == rows[0]:
            return size
        return x.graph.call_function(operator.floordiv, (x.graph.call_function(operator.mul, (size, one)), rows[0]))

    one, other = values[node]
    if one == other and values.varies(node):
        raise UserError(f"layer: {node.name} crosses before it, a number that may change with the batch size")
    return express(one, other)


def takes_pixels(model: nn.Module, layer: str) -> bool:
    """Return whether the inputs of `layer` are the pixels, as for `input` and for the first layer."""
    return find_cut(model, layer).value.op == "placeholder"


def input_shape_of(model: nn.Module, layer: str) -> tuple[int, ...]:
    """Return the shape of one input of `layer`, without the batch axis. The model needs an `input_shape`."""
    if layer == "input":
        return tuple(model.input_shape)
    body, _ = split(model, layer)
    return tuple(run_on_zeros(body, unwrap(model)).shape[1:])


def find_head(model: nn.Module) -> str:
    """Return the name of the head: the last linear layer, which gives the logits. Only reshaping may follow it.

    Raises:
        UserError: the network does not end in a linear layer (SqueezeNet ends in a ReLU, where a mask fails).

    Example:
        >>> find_head(LeNet5())
        'fc3'
    """
    model = unwrap(model)
    traced = trace(model)
    node = find_output(traced)
    while operation_name(node, traced) in KEEP_LOGITS:
        node = node.all_input_nodes[0]
    name = node.target if node.op == "call_module" else _find_traced_linear(node)
    part = model.get_submodule(name) if name else None
    sentence = f"model: {type(model).__name__} does not end in a linear layer, which mask and published need"
    if isinstance(part, nn.Conv2d):
        raise UserError(f"{sentence}; replace the convolution {name} by nn.Flatten and nn.Linear with its weights")
    if not isinstance(part, nn.Linear):
        raise UserError(sentence)
    if "weight" not in part._parameters:
        raise UserError(f"model: its head {name} computes its weight from others (weight_norm); remove that first")
    return name


def _find_traced_linear(node: fx.Node) -> str | None:
    """Return the name of a subclass of nn.Linear (timm's) that was traced and does F.linear alone."""
    if node.target is not nn.functional.linear:
        return None
    source, weight, *bias = node.all_input_nodes
    name = str(weight.target).removesuffix(".weight")
    names = [parameter.target for parameter in (weight, *bias)]
    does_more = name in source.meta.get("nn_module_stack", ())
    return None if does_more or names != [f"{name}.weight", f"{name}.bias"][: len(names)] else name


def operation_name(node: fx.Node, traced: nn.Module) -> str:
    """Return PyTorch's name of an operation, in small letters without underscores: `relu` for nn.ReLU, F.relu, relu_.

    It is empty for functions and modules of other packages, and for modules with hooks.
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
