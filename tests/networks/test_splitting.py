"""Networks written in many ways: each is cut where it can be, exactly, inside its bounds, or refused in a sentence."""

import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib import find_head, split, splittable_layers
from unlearn_lib.networks import feasible_inputs, input_shape_of, layer_bounds, shares_weights, trace, tracing


class Net(nn.Module):
    """Two convolutions and a head; each network below goes its way through them."""

    input_shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.mid = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(256, 5)

    def forward(self, x):
        return self.fc(self.mid(F.relu(self.conv(x))).flatten(1))


class Length(Net):
    def forward(self, x):
        n = len(x)
        return self.fc(F.relu(self.mid(F.relu(self.conv(x)))).view(n, -1))


class Unpacked(Net):
    def forward(self, x):
        (b, c, h, w), size = x.shape, x.shape
        torch._assert(h == 8 and c == 3, "height")
        return self.fc(F.relu(self.mid(F.relu(self.conv(x)))).reshape(b, 4 * h * w) / size[2])


class Product(Net):
    def forward(self, x):
        k = x.shape[0] * x.shape[2]
        return self.fc(self.mid(F.relu(self.conv(x))).view(k, -1).view(k // 8, -1))


class WholeSize(Net):
    def forward(self, x):
        size = x.size()
        return self.fc(self.mid(self.conv(x))[:, :3].reshape(size).flatten(1).repeat(1, 2)[:, :256] / size.numel())


class TypeAndDevice(Net):
    def forward(self, x):
        dtype, device = x.dtype, x.device
        return self.fc(self.mid(self.conv(x)).flatten(1).to(dtype) + torch.zeros(1, device=device))


class Made(Net):
    def forward(self, x):
        rows, x = x.size(0), x * torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
        return self.fc(self.mid(self.conv(x)).view(rows, -1))


class Checked(Net):
    def forward(self, x):
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError("colour pictures, please")
        y = F.relu(self.conv(x))
        return self.fc(self.mid(y if y.shape[-1] > 4 else -y).flatten(1))


class Padded(Net):
    def forward(self, x):
        width = x.shape[-1]
        pad = max((math.ceil(width / 2) - 1) * 2 + 3 - width, 0)
        if pad > 0:
            x = F.pad(x, [pad // 2, pad - pad // 2, 0, 0])
        return self.fc(self.mid(self.conv(x))[:, :, :8, :8].flatten(1))


class Positions(Net):
    def __init__(self):
        super().__init__()
        self.pos = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x):
        pos = self.pos.expand(x.size(0), 4, 1, 1) * torch.arange(x.shape[-1])
        y = self.mid(self.conv(x) + pos)
        return self.fc((y + pos).flatten(1))


class Defaults(Net):
    def forward(self, x, mask=None, scale=2.0):
        y = self.mid(self.conv(x))
        return self.fc((y if mask is None else y * mask).flatten(1) * scale)


class Ignored(Net):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.mid(self.conv(x))
        self.act(y)
        return self.fc(y.flatten(1))


class WrittenOver(Net):
    def forward(self, x):
        y = F.relu(self.mid(F.relu(self.conv(x))))
        y.sub_(3)
        return self.fc(y.flatten(1))


class Asking(nn.Module):
    def forward(self, x):
        return x * 2 if x.mean() > 0 else x


class AskingPart(Net):
    def __init__(self):
        super().__init__()
        self.part = Asking()

    def forward(self, x):
        return self.fc(self.mid(self.part(self.conv(x))).flatten(1))


class AskingWhole(Net):
    def forward(self, x):
        y = self.mid(F.relu(self.conv(x))).flatten(1)
        return self.fc(y * 2 if y.sum() > 0 else y)


class AskingForOne(Net):
    def forward(self, x):
        y = self.mid(F.relu(self.conv(x))).flatten(1)
        return self.fc(y * 2 if len(x) == 1 else y)


class Item(Net):
    def forward(self, x):
        most = x.max().item()
        return self.fc((self.mid(self.conv(x)) * most).flatten(1))


class Swish(Net):
    def forward(self, x):
        y = self.mid(self.conv(x))
        return self.fc((y * torch.sigmoid(y)).flatten(1))


class CustomConv(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=1)


def normed(layer="mid", kind=torch.nn.utils.parametrizations.weight_norm, custom=False):
    net = Net()
    if custom:
        net.mid = CustomConv(4, 4, 3)
    kind(net.get_submodule(layer))
    return net


def hooked():
    net = Net()
    net.mid.register_forward_hook(lambda module, x, y: y * 3)
    net.register_forward_hook(lambda module, x, y: y + 1)
    net.register_forward_pre_hook(lambda module, x: (x[0] * 2,))
    return net


def scripted_part():
    net = Net()
    net.mid = torch.jit.script(net.mid)
    return net


ALL = ["conv", "mid", "fc"]
NETWORKS = {
    "len": (Length, ["fc"]),
    "shape": (Unpacked, ALL),
    "product of sizes": (Product, ALL),
    "size as a whole": (WholeSize, ALL),
    "dtype and device": (TypeAndDevice, ALL),
    "checks of the shape": (Checked, ALL),
    "padding by arithmetic": (Padded, ALL),
    "positions made before the cut": (Positions, ALL),
    "arguments with defaults": (Defaults, ALL),
    "an in-place result that is not used": (Ignored, ["conv", "mid", "act", "fc"]),
    "written over": (WrittenOver, ALL),
    "a part that asks about contents": (AskingPart, ["conv", "part", "mid", "fc"]),
    "a network that asks about contents": (AskingWhole, ["fc"]),
    "one that asks for single pictures": (AskingForOne, ["fc"]),
    "a number made from contents": (Item, ["fc"]),
    "a written-out swish": (Swish, ALL),
    "a tensor made on the way": (Made, ALL),
    "weight norm": (normed, ALL),
    "weight norm by a hook": (lambda: normed(kind=torch.nn.utils.weight_norm), ALL),
    "weight norm of a traced layer": (lambda: normed(custom=True), ALL),
    "weight norm of a traced layer by a hook": (lambda: normed(kind=torch.nn.utils.weight_norm, custom=True), ALL),
    "hooks that change values": (hooked, ALL),
    "a scripted part": (scripted_part, ALL),
    "float64": (lambda: Net().double(), ALL),
    "half precision": (lambda: Net().bfloat16(), ALL),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    torch.manual_seed(0)
    make, layers = NETWORKS[request.param]
    return make().eval(), layers


@torch.no_grad()
def test_every_way_of_writing_is_cut_exactly_and_stays_inside_its_bounds(case):
    net, layers = case
    attributes = set(vars(net))
    assert splittable_layers(net) == layers
    for batch in (1, 4):
        x = torch.randn(batch, 3, 8, 8, dtype=next(net.parameters()).dtype)
        whole = net(x)
        for layer in ["input", *layers]:
            body, tail = split(net, layer)
            entering = body(x)
            low, high = layer_bounds(net, layer)
            assert torch.equal(tail(entering), whole), layer
            assert low <= entering.min(), layer
            assert entering.max() <= high, layer
            assert input_shape_of(net, layer) == entering.shape[1:], layer
    assert set(vars(net)) == attributes


def test_a_tail_with_weight_norm_learns_its_parts():
    net = normed(custom=True, kind=torch.nn.utils.weight_norm)
    names = {name for name, _ in split(net, "mid")[1].named_parameters()}
    assert names == {"mid.weight_g", "mid.weight_v", "mid.bias", "fc.weight", "fc.bias"}


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Named(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}


class AskingPair(Net):
    def forward(self, x):
        return (super().forward(x), x) if x.sum() > -1e9 else None


class Untraced(nn.Sequential):
    input_shape = (3, 8, 8)

    def forward(self, x):
        return super().forward(x) if x.sum() > -1e9 else None


def test_a_network_that_cannot_be_traced_has_a_head_whose_weights_are_its_own():
    net = Untraced(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))
    assert find_head(net) == "3"
    assert not shares_weights(net, "3")


class Tied(Untraced):
    """Uses its head's weight at its beginning, too."""

    def forward(self, x):
        return super().forward(x + self[-1].weight.sum())


class Softmaxed(Net):
    def forward(self, x):
        y = super().forward(x)
        return y.softmax(1) if y.sum() > -1e9 else y


@pytest.mark.parametrize(
    "make, sentence",
    [
        (Pair, "model: Pair returns a tuple; expected its logits"),
        (Named, "model: Named returns a dict"),
        (AskingPair, "model: AskingPair returns a tuple"),
        (lambda: Untraced(nn.Conv2d(3, 5, 8), nn.Flatten()), "Untraced cannot be traced .* an nn.Linear at the end"),
        (Softmaxed, "Softmaxed cannot be traced .* does not end in fc"),
        (
            lambda: Tied(nn.Flatten(), nn.Linear(192, 4)),
            "Tied cannot be traced .* uses the weights of its head 1 earlier",
        ),
        (lambda: torch.jit.script(Net()), "model: got a scripted network; expected the nn.Module"),
        (lambda: nn.DataParallel(Net()), "model: got a DataParallel; expected .* its .module"),
    ],
)
def test_a_network_of_another_form_is_refused_with_what_is_accepted(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        splittable_layers(make())


def test_a_compiled_network_is_cut_as_the_one_it_was_made_from():
    net = Net()
    assert splittable_layers(torch.compile(net)) == splittable_layers(net)


def test_a_network_without_input_shape_is_cut_unless_sizes_cross():
    assert find_head(nn.Sequential(nn.Flatten(), nn.Linear(12, 5))) == "1"
    net = nn.Sequential(Product())
    with pytest.raises(ValueError, match="model: Sequential has no input_shape"):
        split(net, "0.mid")


@pytest.mark.parametrize("trains", [True, False])
@torch.no_grad()
def test_cutting_leaves_the_models_mode_alone_and_gives_parts_in_eval_mode(trains):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 5))
    net.input_shape = (3, 8, 8)
    net.train(trains)
    net[1].eval()  # a frozen BatchNorm
    before = [module.training for module in net.modules()]
    x = torch.randn(4, 3, 8, 8)
    splittable_layers(net), find_head(net), layer_bounds(net, "4"), input_shape_of(net, "4"), feasible_inputs(net, "4")
    body, tail = split(net, "1")
    assert [module.training for module in net.modules()] == before
    assert torch.equal(tail(body(x)), tail(body(x)))
    assert torch.equal(tail(body(x)), net.eval()(x))


def test_dropout_by_its_function_is_off_in_the_tail_of_a_network_in_training():
    class Dropping(Net):
        def forward(self, x):
            return self.fc(F.dropout(self.mid(self.conv(x)), 0.5, self.training).flatten(1))

    net = Dropping().train()
    body, tail = split(net, "mid")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(tail(body(x)), tail(body(x)))
    assert net.training


def test_training_a_tail_trains_the_model():
    net = Net().train()
    _, tail = split(net, "fc")
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter.add_(1)
    assert {id(p) for p in tail.parameters()} == {id(p) for p in net.fc.parameters()}


def test_a_layer_may_be_given_as_a_number():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 3))
    net.input_shape = (3, 2, 2)
    assert input_shape_of(net, 0) == (3, 2, 2)
    assert input_shape_of(net, 2) == (4,)
    assert [node.target for node in split(net, 2)[1].graph.nodes if node.op == "call_module"] == ["2"]


class Cosine(nn.Linear):
    def forward(self, x):
        return F.linear(F.normalize(x), self.weight)


def head_of(*behind, head=None):
    return nn.Sequential(nn.Flatten(), head or nn.Linear(12, 5), *behind)


@pytest.mark.parametrize(
    "net",
    [
        head_of(nn.Identity(), nn.Dropout(0.1)),
        head_of(nn.Flatten()),
        head_of(head=nn.Linear(12, 5, bias=False)),
    ],
)
def test_the_head_is_found_behind_what_changes_no_logit(net):
    assert find_head(net) == "1"


@pytest.mark.parametrize(
    "net, sentence",
    [
        (head_of(nn.ReLU()), "does not end in a linear layer"),
        (head_of(head=Cosine(12, 5, bias=False)), "does not end in a linear layer"),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 5, 1), nn.Flatten()),
            "replace the convolution 1 by nn.Flatten and",
        ),
        (
            head_of(head=torch.nn.utils.parametrizations.weight_norm(nn.Linear(12, 5))),
            "its head 1 computes its weight from others",
        ),
    ],
)
def test_another_head_is_refused(net, sentence):
    with pytest.raises(ValueError, match=sentence):
        find_head(net)


@pytest.mark.parametrize(
    "part, bounds",
    [
        (nn.ReLU(), (0, math.inf)),
        (nn.ReLU6(), (0, 6)),
        (nn.Hardtanh(-2, 3), (-2, 3)),
        (nn.Sigmoid(), (0, 1)),
        (nn.Hardsigmoid(), (0, 1)),
        (nn.Tanh(), (-1, 1)),
        (nn.Softmax(1), (-math.inf, math.inf)),
        (nn.GELU(), (-0.1701, math.inf)),
        (nn.SiLU(), (-0.2785, math.inf)),
        (nn.Mish(), (-0.3089, math.inf)),
        (nn.Hardswish(), (-0.375, math.inf)),
        (nn.ELU(), (-1, math.inf)),
        (nn.LeakyReLU(0.1), (-math.inf, math.inf)),
        (nn.Sequential(nn.Tanh(), nn.LeakyReLU(-0.2)), (-math.inf, math.inf)),  # it falls, and then rises from 0
        (nn.PReLU(), (-math.inf, math.inf)),
        (nn.Sequential(nn.ReLU(), nn.Dropout(), nn.AvgPool1d(2, padding=1), nn.Identity()), (0, math.inf)),
        (nn.Sequential(nn.Sigmoid(), nn.GELU()), (0, 1)),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)), (-math.inf, math.inf)),
    ],
)
@torch.no_grad()
def test_what_comes_out_of_a_part_has_its_known_range_and_keeps_to_it(part, bounds):
    net = nn.Sequential(nn.Conv1d(2, 4, 1), part, nn.Flatten(), nn.LazyLinear(3)).eval()
    x = 5 * torch.randn(50, 2, 6)
    net(x)
    low, high = layer_bounds(net, "2")
    assert (low, high) == pytest.approx(bounds)
    y = split(net, "2")[0](x)
    assert low <= y.min() <= y.max() <= high


class Way(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.conv, self.fc, self.way = nn.Conv1d(2, 4, 1), nn.Linear(24, 3), way

    def forward(self, x):
        return self.fc(self.way(self.conv(x)).flatten(1))


@pytest.mark.parametrize(
    "way, bounds",
    [
        (lambda x: torch.cat([x.relu()[:, :2], x.tanh()[:, 2:]], 1), (-1, math.inf)),
        (lambda x: torch.maximum(x.relu(), x.sigmoid()), (0, math.inf)),
        (lambda x: F.hardtanh(x).mean(2, keepdim=True).expand(-1, -1, 6), (-1, 1)),
        (lambda x: x.clamp(-1, 2).permute(0, 2, 1).contiguous().clone().reshape(-1, 24), (-1, 2)),
        (lambda x: F.avg_pool1d(x.sigmoid(), 3, 1, 1), (0, 1)),
        (lambda x: F.dropout(x.sigmoid(), training=False), (0, 1)),
        (lambda x: F.dropout(x.sigmoid(), 0.5, True), (-math.inf, math.inf)),
        (lambda x: x.relu().max(2, keepdim=True)[0].expand(-1, -1, 6), (-math.inf, math.inf)),
        (lambda x: x.tanh().max(2, keepdim=True)[1].expand(-1, -1, 6).float(), (-math.inf, math.inf)),
        (lambda x: x.sigmoid() + x.sigmoid(), (0, 2)),
        (lambda x: torch.add(x.sigmoid(), x.sigmoid(), alpha=-3), (-math.inf, math.inf)),
        (lambda x: F.pad(x.sigmoid()[..., :4], (1, 1), value=-3.0), (-math.inf, math.inf)),
        (lambda x: F.avg_pool2d(x.sigmoid(), 1, 1, 0, False, True, 3) * 3, (-math.inf, math.inf)),
        (lambda x: F.avg_pool2d(x.sigmoid(), 3, 1, 1, divisor_override=1), (-math.inf, math.inf)),
    ],
)
@torch.no_grad()
def test_activations_and_reshaping_carry_a_range_on_and_other_operations_end_it(way, bounds):
    net = Way(way).eval()
    low, high = layer_bounds(net, "fc")
    assert (low, high) == pytest.approx(bounds)
    y = split(net, "fc")[0](5 * torch.randn(50, 2, 6))
    assert low <= y.min() <= y.max() <= high


def test_an_average_pooling_with_a_divisor_leaves_the_range():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sigmoid(), nn.AvgPool2d(2, divisor_override=1), nn.Flatten())
    net.add_module("fc", nn.Linear(8, 3))
    x = torch.rand(5, 1, 4, 4)
    assert split(net.eval(), "fc")[0](x).max() > 1
    assert layer_bounds(net, "fc") == (-math.inf, math.inf)


def write_through_a_view(net, y):
    y.view(-1)[:7].sub_(3)


def write_with_out(net, y):
    torch.sub(y, 3, out=y)


WRITERS = [
    lambda net, y: net.act(y),
    lambda net, y: F.hardtanh(y, 2, 3, inplace=True),
    lambda net, y: F.hardtanh(y, 2, 3, True),
    lambda net, y: y.mul_(-1),
    write_through_a_view,
    write_with_out,
]


class Overwriting(Way):
    def __init__(self, way):
        super().__init__(way)
        self.act = nn.Hardtanh(2, 3, inplace=True)

    def forward(self, x):
        y = self.conv(x).sigmoid()
        self.way(self, y)
        return self.fc(y.flatten(1))


@pytest.mark.parametrize("way", WRITERS)
@torch.no_grad()
def test_what_writes_over_a_value_or_over_a_view_of_it_widens_its_bounds(way):
    net = Overwriting(way).eval()
    entering = split(net, "fc")[0](torch.randn(5, 2, 6))
    low, high = layer_bounds(net, "fc")
    assert entering.min() < 0 or entering.max() > 1
    assert low <= entering.min() <= entering.max() <= high


class Keeping(Net):
    """Keeps for the next pass what depends on the size alone, as some transformers do."""

    def __init__(self):
        super().__init__()
        self.grid, self.fc, self.input_shape = None, nn.Linear(4, 5), (3, 96, 96)

    def forward(self, x):
        if self.grid is None or self.grid.shape[0] != x.shape[-1]:
            self.grid = torch.linspace(0, 1, x.shape[-1])
            self.register_buffer("turned", self.grid.flip(0))
        return self.fc(self.conv(x * self.grid + self.turned).mean((2, 3)))


def test_what_a_network_keeps_of_a_pass_is_no_stand_in_of_ours():
    net = Keeping().eval()
    x = torch.rand(2, 3, 96, 96)
    for _ in range(2):
        assert splittable_layers(net) == ["conv", "fc"] and input_shape_of(net, "fc") == (4,)
        assert net.grid is None and not list(net.buffers())
    body, tail = split(net, "fc")
    assert torch.equal(tail(body(x)), net(x)) and type(net.grid) is type(net(x)) is torch.Tensor
    assert input_shape_of(net, "fc") == (4,) and torch.equal(split(net, "fc")[0](x), body(x))


def test_pixels_have_the_range_that_the_network_is_given():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    net.input_range = (-2.0, 1.0)
    assert layer_bounds(net, "input") == layer_bounds(net, "1") == (-2.0, 1.0)


def test_a_hook_that_changes_values_takes_their_bounds_away():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Sigmoid(), nn.Linear(5, 2))
    net[2].register_forward_hook(lambda module, x, y: y - 3)
    assert layer_bounds(net, "3") == (-math.inf, math.inf)


def test_tracing_leaves_other_threads_forward_passes_alone():
    net, failed, stop = Checked().eval(), [], threading.Event()

    def forward():
        x = torch.randn(2, 3, 8, 8)
        whole = net(x)
        while not stop.is_set():
            try:
                assert torch.equal(net(x), whole)
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=forward)
    thread.start()
    for _ in range(20):
        trace(net)
    stop.set()
    thread.join()
    assert not failed


def test_a_network_is_traced_once_where_that_is_said_and_anew_elsewhere(monkeypatch):
    model, traced = Net(), []
    monkeypatch.setattr(tracing, "_trace", lambda m, found=tracing._trace: traced.append(m) or found(m))
    with tracing.traced_once():
        split(model, "fc")
        with tracing.traced_once():
            split(model, find_head(model))
    assert traced == [model]
    model.mid = nn.Conv2d(4, 4, 1)  # another structure
    x = torch.randn(2, 3, 8, 8)
    body, tail = split(model, "fc")
    assert torch.equal(tail(body(x)), model(x))
