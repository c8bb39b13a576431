"""A network as the graph of its operations (torch.fx), and the sizes in that graph.

Differences from `torch.fx.symbolic_trace`:
- Only the first argument is traced; the others keep their defaults.
- A part that cannot be traced stays whole, as PyTorch's own modules do.
- A condition on sizes that do not depend on the batch is evaluated.
- Hooks of the network are traced.
- A network that cannot be traced at all is cut before its head by a hook.
"""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from operator import getitem

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unlearn_lib.common import UserError
from unlearn_lib.networks.probing import LARGE, copy_in_eval_mode, unwrap, zero_pictures

SIZES = {"size", "shape", "dim", "ndim", "ndimension", "numel", "nelement", "dtype", "device", "is_floating_point"}
BEFORE_HEAD = "_until_head"  # a module's name in the graph of an untraceable network; code digests on disk contain it
_lock = threading.RLock()  # torch.fx patches nn.Module itself while it traces
_scope: ContextVar[dict[nn.Module, fx.GraphModule] | None] = ContextVar("scope", default=None)  # see `traced_once`


@contextmanager
def traced_once() -> Iterator[None]:
    """Trace each network once within this block, or within a function that it decorates.

    Use it for work that does not change the structure of the networks.
    """
    token = _scope.set({} if _scope.get() is None else _scope.get())
    try:
        yield
    finally:
        _scope.reset(token)


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the model's graph. Raises UserError for a network that cannot be traced or cut.

    The model itself stays as it is. The graph is that of eval mode, and so are its modules: copies that share the
    model's parameters and buffers. Training the graph's parameters trains the model.
    """
    model = unwrap(model)
    known = _scope.get()
    if known is not None and model in known:
        return known[model]
    traced = _trace(model)
    for name in ("input_shape", "input_range"):
        if hasattr(model, name):
            setattr(traced, name, getattr(model, name))
    if known is not None:
        known[model] = traced
    return traced


def _trace(model: nn.Module) -> fx.GraphModule:
    root, clean = copy_in_eval_mode(model), copy_in_eval_mode(model)
    with _lock:
        try:
            graph = _Tracer().trace(root)  # its parts may keep proxies, which the graph must not run with
            vars(clean).update((name, value) for name, value in vars(root).items() if name.startswith("_tensor_const"))
            traced = fx.GraphModule(clean, graph, type(model).__name__)
        except Exception as error:  # the forward pass is anybody's code
            return _cut_before_head(clean, error)
    answer = find_output(traced)
    kind = answer.target if isinstance(answer, fx.Node) else type(answer)
    if isinstance(kind, type):  # a tuple or dict of nodes, or a node that makes a dataclass
        raise UserError(describe_wrong_output(type(model).__name__, kind))
    return traced


def find_output(traced: fx.GraphModule) -> object:
    """Return what the graph returns: a node, or a structure of nodes."""
    return next(iter(reversed(traced.graph.nodes))).args[0]


def is_shape_query(node: fx.Node) -> bool:
    """Return whether a node reads only the size, type or device of its input."""
    name = node.args[1] if node.target is getattr else node.target
    return node.op in ("call_method", "call_function") and name in SIZES


def content_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values depend on the contents of the pictures, not on sizes alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (not is_shape_query(node) and not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return found


class BatchValues:
    """The values of a graph's nodes for zero pictures in batches of two and of three.

    They are computed in the graph's order, as far as the node that is looked up. Tensors of large pictures are fake.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph):
        self.root, self.graph = root, graph
        self.runs: list[fx.Interpreter] = []
        self.mode = nullcontext()

    def __getitem__(self, node: fx.Node) -> tuple[object, object]:
        if not self.runs:
            is_large = zero_pictures(self.root)[0].numel() > LARGE
            self._start(FakeTensorMode(allow_non_fake_inputs=True) if is_large else nullcontext())
        try:
            return self._compute(node)
        except Exception:
            if isinstance(self.mode, nullcontext):
                raise
            self._start(nullcontext())  # a part needs real numbers
            return self._compute(node)

    def varies(self, node: fx.Node) -> bool:
        """Return whether a size may differ in another batch: it differs here, or comes from a size that does."""
        one, other = self[node]
        if one != other:
            return True
        sizes = [source for source in node.all_input_nodes if not isinstance(self[source][0], torch.Tensor)]
        return node.target is not getitem and any(self.varies(size) for size in sizes)

    def _start(self, mode) -> None:
        self.mode = mode
        root = copy_in_eval_mode(self.root)
        self.runs = [fx.Interpreter(root, garbage_collect_values=False, graph=self.graph) for _ in range(2)]
        for batch, run in enumerate(self.runs, 2):
            x = zero_pictures(self.root, batch)
            with mode:
                run.env[next(iter(self.graph.nodes))] = torch.zeros_like(x)

    def _compute(self, node: fx.Node) -> tuple[object, object]:
        with torch.no_grad(), self.mode:
            for run in self.runs:
                for earlier in self.graph.nodes:
                    if earlier not in run.env:
                        run.env[earlier] = run.run_node(earlier)
                    if earlier is node:
                        break
        return tuple(run.env[node] for run in self.runs)


class _Tracer(fx.Tracer):
    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()
        self.parameters: dict[str, fx.Proxy] = {}  # torch.fx's cache; erased nodes must leave it
        self.is_evaluating = False

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        self.values = BatchValues(self.root, self.graph)
        hooked = self.root._forward_hooks or self.root._forward_pre_hooks
        picture = self.create_proxy("placeholder", "x", (), {})
        return (lambda model, x: model._call_impl(x)) if hooked else root_fn, [self.root, picture]

    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, torch.jit.ScriptModule) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m, forward, args, kwargs):
        if self._is_plain_pass():
            return forward(*args, **kwargs)
        length, stack = len(self.graph.nodes), copy.copy(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # its code cannot be traced: it stays whole
            for node in reversed(list(self.graph.nodes)[length:]):
                self.graph.erase_node(node)
                self.parameters = {k: v for k, v in self.parameters.items() if v.node is not node}
            self.module_stack = stack
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return attr_val if self._is_plain_pass() else super().getattr(attr, attr_val, self.parameters)

    def _is_plain_pass(self) -> bool:
        """Return whether this call belongs to a forward pass: of another thread, or of `BatchValues`."""
        return self.is_evaluating or threading.get_ident() != self.thread

    def create_arg(self, a):
        if isinstance(a, torch.Tensor) and a.grad_fn is not None:
            raise fx.proxy.TraceError("a tensor computed from parameters would become a constant")
        return super().create_arg(a)

    def to_bool(self, obj):
        node = obj.node
        if node not in content_nodes(self.graph) and hasattr(self.root, "input_shape"):
            self.is_evaluating = True
            try:
                if not self.values.varies(node):
                    return bool(self.values[node][0])
            finally:
                self.is_evaluating = False
        return super().to_bool(obj)


class BeforeHead(nn.Module):
    """All of an untraceable network before its head. A hook catches the head's input."""

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
def _cut_before_head(model: nn.Module, error: Exception) -> fx.GraphModule:
    """Return a graph of two nodes, `BeforeHead` and the head, for a network that ends in its last nn.Linear."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    sentence = f"model: {type(model).__name__} cannot be traced by torch.fx ({first_line(error)})"
    if not linear or not hasattr(model, "input_shape"):
        raise UserError(
            f"{sentence}; expected a forward pass without conditions on the pictures' contents, or an input_shape and "
            "an nn.Linear at the end"
        ) from error
    name = linear[-1]
    before, head = BeforeHead(model, name), model.get_submodule(name)
    x = torch.rand_like(zero_pictures(model))
    logits = model(x)
    if not isinstance(logits, torch.Tensor):
        raise UserError(describe_wrong_output(type(model).__name__, type(logits)))
    features = before(x)
    if not torch.equal(head(features), logits):
        raise UserError(f"{sentence} and does not end in {name}, its last nn.Linear; expected one that does")
    other = {f"model.{name}.{key}": torch.zeros_like(weight) for key, weight in head.named_parameters()}
    if not torch.equal(torch.func.functional_call(before, other, x), features):
        raise UserError(f"{sentence} and uses the weights of its head {name} earlier too; expected one that does not")
    graph = fx.Graph()
    graph.output(graph.call_module(name, (graph.call_module(BEFORE_HEAD, (graph.placeholder("x"),)),)))
    return fx.GraphModule({BEFORE_HEAD: before, name: head}, graph).eval()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, as part of a sentence."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def describe_wrong_output(name: str, kind: type) -> str:
    """Return the error for a network that returns something else than a tensor."""
    kind = kind.__name__.removeprefix("immutable_")  # torch.fx's dicts and lists
    return f"model: {name} returns a {kind}; expected its logits, a tensor [N, K]"
