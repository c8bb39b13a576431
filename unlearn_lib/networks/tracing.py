"""A network as the graph of its operations (torch.fx), and what in that graph is a size and not a picture's content.

Beyond plain `symbolic_trace`: the first argument alone is traced, the others keep their defaults; a part that cannot
be traced stays whole, as a module of PyTorch's does; questions about sizes that no batch changes get their answer;
hooks are traced along; `len` is recorded. A network that cannot be traced at all is cut before its head by a hook.
"""

import builtins
import copy
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import getitem
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.utils._pytree import tree_map_only

from unlearn_lib.common import UserError
from unlearn_lib.networks.probing import restore_attributes, run_on_zeros, unwrap, zero_pictures

SIZES = {"size", "shape", "dim", "ndim", "ndimension", "numel", "nelement", "dtype", "device", "is_floating_point"}
UNTIL = "_until_head"  # the module that stands for all that comes before the head of an untraceable network
_found: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()  # see `record_values`
_lock = threading.RLock()  # torch.fx patches nn.Module itself while it traces
_traced: ContextVar[dict[int, tuple] | None] = ContextVar("traced", default=None)  # see `traced_once`


@contextmanager
def traced_once() -> Iterator[None]:
    """Within it, or within a function that it decorates, every model is traced once.

    For work that changes no network's structure, which is not looked at again: unlearning a small network asks for a
    cut some twenty times, and tracing is a third of its time.
    """
    token = _traced.set({} if _traced.get() is None else _traced.get())
    try:
        yield
    finally:
        _traced.reset(token)


def trace(model: nn.Module) -> fx.GraphModule:
    """The model's graph; the model is put into eval mode. Raises UserError where there is no such graph."""
    model, known = unwrap(model).eval(), _traced.get()
    if known is None:
        return _trace(model)
    if id(model) not in known:
        known[id(model)] = model, _trace(model)  # which holds the model, so that the number stays its own
    return known[id(model)][1]


def _trace(model: nn.Module) -> fx.GraphModule:
    with _lock, _recorded_len():
        try:
            with restore_attributes(model):  # by constants that torch.fx leaves behind, too
                traced = fx.GraphModule(model, _Tracer().trace(model))
        except Exception as error:  # what is traced is anybody's code
            return _until_head(model, error)
    answer = next(iter(reversed(traced.graph.nodes))).args[0]
    if not isinstance(answer, fx.Node) or (answer.op == "call_function" and isinstance(answer.target, type)):
        raise UserError(describe_wrong_output(model, answer.target if isinstance(answer, fx.Node) else type(answer)))
    return traced


def is_shape_query(node: fx.Node) -> bool:
    """Whether a node takes no more than the size, the type or the device of what it is given."""
    what = node.args[1] if node.target is getattr else node.target
    return node.target is len or (node.op in ("call_method", "call_function") and what in SIZES)


def content_nodes(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose values depend on what is in the pictures, and not on their sizes alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (not is_shape_query(node) and not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return found


def record_values(
    model: nn.Module, graph: fx.Graph, parts: nn.Module
) -> tuple[dict[fx.Node, object], dict[fx.Node, object]]:
    """What the nodes hold in batches of two and of three pictures; of tensors there is the shape (on `meta`).

    parts: what holds all that the graph names. Found once for a network as it is printed and traced.
    """
    x = zero_pictures(model)
    key = (repr(model), str(graph), x.shape, x.dtype, x.device)
    if _found.get(model, (None,))[0] != key:
        _found[model] = (
            key,
            [run_on_zeros(lambda x: _Recorder(parts, graph).follow(x), model, batch) for batch in (2, 3)],
        )
    return tuple({node: found[node.name] for node in graph.nodes if node.name in found} for found in _found[model][1])


def varies_with_batch(node: fx.Node, found: tuple[dict, dict]) -> bool:
    """Whether a size may be another in another batch: it is so in batches of two and three, or comes from one such."""
    if found[0][node] != found[1][node]:
        return True
    sizes = [n for n in node.all_input_nodes if not isinstance(found[0][n], torch.Tensor)]
    return node.target is not getitem and any(varies_with_batch(n, found) for n in sizes)


class _Tracer(fx.Tracer):
    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()
        self.parameters: dict[str, fx.Proxy] = {}  # torch.fx's cache, freed here of nodes that are erased
        self.looking = False  # at what a part of the graph, which is run for it, would give

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        hooked = self.root._forward_hooks or self.root._forward_pre_hooks
        picture = self.create_proxy("placeholder", "x", (), {})
        return (lambda model, x: model._call_impl(x)) if hooked else root_fn, [self.root, picture]

    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, torch.jit.ScriptModule) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m, forward, args, kwargs):
        if self._no_tracing():
            return forward(*args, **kwargs)
        length, stack = len(self.graph.nodes), copy.copy(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # its own code cannot be traced: it stays whole
            for node in reversed(list(self.graph.nodes)[length:]):
                self.graph.erase_node(node)
                self.parameters = {k: v for k, v in self.parameters.items() if v.node is not node}
            self.module_stack = stack
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return attr_val if self._no_tracing() else super().getattr(attr, attr_val, self.parameters)

    def _no_tracing(self) -> bool:
        """Whether it is a forward pass that comes by: of another thread, or for the sake of a size."""
        return self.looking or threading.get_ident() != self.thread

    def create_arg(self, a):
        if isinstance(a, torch.Tensor) and a.grad_fn is not None:
            raise fx.proxy.TraceError("a tensor made from parameters would be frozen")
        return super().create_arg(a)

    def to_bool(self, obj):
        node = obj.node
        if node not in content_nodes(self.graph) and hasattr(self.root, "input_shape"):
            self.looking = True
            try:
                found = record_values(self.root, self.graph, self.root)
            finally:
                self.looking = False
            if not varies_with_batch(node, found):
                return bool(found[0][node])
        return super().to_bool(obj)


class _Recorder(fx.Interpreter):
    def __init__(self, model: nn.Module, graph: fx.Graph):
        super().__init__(model, graph=graph)
        self.found: dict[str, object] = {}

    def run_node(self, n: fx.Node):
        value = super().run_node(n)
        self.found[n.name] = tree_map_only(torch.Tensor, lambda t: torch.empty(t.shape, device="meta"), value)
        return value

    def follow(self, x: torch.Tensor) -> dict[str, object]:
        self.run(x)
        return self.found


class UntilHead(nn.Module):
    """All of a network before its head: what enters the head, caught by a hook."""

    def __init__(self, model: nn.Module, head: str):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        caught: list[torch.Tensor] = []
        hook = self.model.get_submodule(self.head).register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            self.model(x)
        finally:
            hook.remove()
        return caught[-1]


@torch.no_grad()
def _until_head(model: nn.Module, error: Exception) -> fx.GraphModule:
    """The graph of two nodes, `UntilHead` and head, of a network that cannot be traced but ends in a linear layer."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    sentence = f"model: {type(model).__name__} cannot be traced by torch.fx ({first_line(error)})"
    if not linear or not hasattr(model, "input_shape"):
        raise UserError(
            f"{sentence}; one whose forward asks nothing about the pictures' contents, or that has an input_shape and "
            "ends in an nn.Linear, is accepted"
        ) from error
    until, head = UntilHead(model, linear[-1]), model.get_submodule(linear[-1])
    x = torch.rand_like(zero_pictures(model))
    whole = model(x)
    if not isinstance(whole, torch.Tensor):
        raise UserError(describe_wrong_output(model, type(whole)))
    if not torch.equal(head(until(x)), whole):
        raise UserError(
            f"{sentence} and does not end in {linear[-1]} alone, its last nn.Linear; one that does is accepted"
        )
    graph = fx.Graph()
    graph.output(graph.call_module(linear[-1], (graph.call_module(UNTIL, (graph.placeholder("x"),)),)))
    return fx.GraphModule({UNTIL: until, linear[-1]: head}, graph).eval()


def first_line(error: Exception) -> str:
    """What an error says, as part of a sentence."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def describe_wrong_output(model: nn.Module, kind: object) -> str:
    """The sentence for a network that returns something of another kind."""
    kind = getattr(kind, "__name__", str(kind)).removeprefix("immutable_")  # as torch.fx has dicts and lists
    return f"model: {type(model).__name__} returns a {kind}; one that returns its logits, a tensor [N, K], is accepted"


@contextmanager
def _recorded_len() -> Iterable[None]:
    """Let `len` of a traced value be traced, as torch.fx lets everything but Python's own functions."""
    length = builtins.len

    def recorded(x):
        return x.tracer.create_proxy("call_function", length, (x,), {}) if isinstance(x, fx.Proxy) else length(x)

    builtins.len = recorded
    try:
        yield
    finally:
        builtins.len = length
