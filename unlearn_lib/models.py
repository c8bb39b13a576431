"""Models: LeNet5, KarpathyNet and torchvision's classifiers, and `split` into body and tail.

    picture ──> body ──> input of the cut layer ──> tail ──> logits

`split(model, "fc3")` makes `fc3` the first module of the tail; `"input"` means pixels, the whole model being the tail.
The split works on the traced graph (torch.fx), so functional ReLUs, flattening and residual branches survive.
"""

import operator

import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    """6-16-120-84 network for 28x28 grey pictures (LeCun et al. 1998), with ReLU and max pooling; 99.2 % on MNIST."""

    input_shape = (1, 28, 28)

    def __init__(self, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.flatten(self.pool2(F.relu(self.conv2(x))))
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.fc3(F.dropout(x, self.dropout, self.training))


class KarpathyNet(nn.Module):
    """Six 5x5 convolutions of 16 filters in three pooled pairs and one linear layer, for 32x32 colour pictures."""

    input_shape = (3, 32, 32)

    def __init__(self, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.conv11 = nn.Conv2d(3, 16, 5, padding=2)
        self.conv12 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv21 = nn.Conv2d(16, 16, 5, padding=2)
        self.conv22 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool2 = nn.MaxPool2d(2)
        self.conv31 = nn.Conv2d(16, 16, 5, padding=2)
        self.conv32 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool3 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(256, num_classes)
        for module in self.modules():  # PyTorch's own start is too small for seven layers to learn from few pictures
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.conv12(F.relu(self.conv11(x)))))
        x = self.pool2(F.relu(self.conv22(F.relu(self.conv21(x)))))
        x = self.pool3(F.relu(self.conv32(F.relu(self.conv31(x)))))
        return self.fc1(F.dropout(self.flatten(x), self.dropout, self.training))


def pick_device(name: str | None = None) -> torch.device:
    """The device by name, else the best there is: CUDA, then MPS, then the CPU. Raises ValueError on others."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    try:
        device = torch.device(name or available[0])
    except RuntimeError:
        device = None
    if device is None or device.type not in available:
        raise ValueError(f"device: {name!r} is not to be had here; accepted: {', '.join(available)}")
    return device


def make_model(
    name: str, num_classes: int, *, size: int | None = None, dropout: float | None = None, seed: int = 0
) -> nn.Module:
    """A freshly initialised classifier: `lenet5`, `karpathynet` or any torchvision classifier by its name.

    size: height and width of a picture, for torchvision's networks (64 where none is given). dropout: rate in
    [0, 1); None leaves the network's own. The picture's (C, H, W) stands in `model.input_shape`.
    Raises ValueError on an unknown name, a size that the network does not take, or dropout where it has none.
    """
    own = {"lenet5": LeNet5, "karpathynet": KarpathyNet}
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in own and name not in known:
        near = [n for n in known if n.startswith(name[:3])] or ["alexnet", "resnet18", "vgg11_bn"]
        raise ValueError(
            f"model: {name!r} given; lenet5, karpathynet or a torchvision classifier such as {', '.join(near[:6])} "
            "is accepted"
        )
    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"dropout: {dropout} given; a rate from 0 up to, not including, 1 is accepted")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in own:
            if size not in (None, own[name].input_shape[-1]):
                raise ValueError(f"size: {size} given; {name} takes {own[name].input_shape[-1]}")
            return own[name](num_classes, dropout or 0.0)
        extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("vit_"):
            extra["image_size"] = size or 64
        try:
            model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
            model.input_shape = (3, size or 64, size or 64)
            with torch.no_grad():
                model.eval()(torch.zeros(1, *model.input_shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(f"size: {name} does not take pictures of {size or 64}x{size or 64}; try 224") from error
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    if dropout is not None:
        if not drops:
            raise ValueError(f"dropout: {dropout} given, but {name} has no dropout layer")
        for module in drops:
            module.p = dropout
    return model.train()


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
            raise ValueError(f"layer: {layer!r} given ({why}); accepted: input, {', '.join(good)}")
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
    raise ValueError(f"model: {type(model).__name__} does not end in a linear layer, which mask and published need")


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model.eval())
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ValueError(f"model: {type(model).__name__} cannot be traced by torch.fx ({error})") from error


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
