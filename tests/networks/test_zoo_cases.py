"""Networks of another form, each a factory in a file of the user."""

import sys

import pytest

from unlearn_lib import Experiment, evaluate
from unlearn_lib.common import UserError

FORMS = """
from torch import nn, compile, jit
from torch.nn import Linear, Flatten, Sequential
class Net(nn.Module):
    input_shape, end = (1, 28, 28), staticmethod(lambda y, x, training: y)
    def __init__(self, num_classes=10, end=None, bias=True):
        super().__init__()
        self.conv, self.fc, self.end = nn.Conv2d(1, 4, 3, stride=4), Linear(196, num_classes, bias), end or self.end
    def forward(self, x):
        return self.end(self.fc(self.conv(x).relu().flatten(1)), x, self.training)
class Shared(Net):
    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.one = self.two = Linear(196, 196)
    def forward(self, x):
        return self.fc(self.two(self.one(self.conv(x).relu().flatten(1))).relu())
class Still(nn.Module):
    input_shape = (1, 28, 28)
    def forward(self, x):
        return x.flatten(1)[:, :10]
def pair(num_classes=10): return Net(num_classes, lambda y, x, training: (y, x))
def named(num_classes=10): return Net(num_classes, lambda y, x, training: {"logits": y})
def pair_in_training(num_classes=10): return Net(num_classes, lambda y, x, training: (y, x) if training else y)
def squeezed(num_classes=10): return Net(num_classes, lambda y, x, training: y.squeeze())
def softmax(num_classes=10): return Net(num_classes, lambda y, x, training: y.softmax(1))
def sigmoid(num_classes=10): return Net(num_classes, lambda y, x, training: y.sigmoid())
def tanh(num_classes=10): return Net(num_classes, lambda y, x, training: y.tanh())
def maps(num_classes=10): return Net(num_classes, lambda y, x, training: y[:, :, None, None])
def seven(num_classes=10): return Net(7)
def half(num_classes=10): return Net(num_classes).half()
def double(num_classes=10): return Net(num_classes).double()
def parallel(num_classes=10): return nn.DataParallel(Net(num_classes))
def scripted(num_classes=10): return jit.script(Sequential(Flatten(), Linear(784, num_classes)))
def compiled(num_classes=10): return compile(Net(num_classes))
def no_bias(num_classes=10): return Net(num_classes, bias=False)
def frozen(num_classes=10): return Net(num_classes).requires_grad_(False)
def nothing(num_classes=10): return None
"""


@pytest.fixture
def forms(tmp_path, monkeypatch):
    """An experiment with one of the networks above, trained for one epoch where it can be."""
    (tmp_path / "forms.py").write_text(FORMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "forms", raising=False)
    where = {"forget": [1], "train_epochs": 1, "runs_root": tmp_path / "runs"}
    return lambda name: Experiment(f"forms:{name}", "digits", **where)


def test_load_model_refuses_a_network_whose_code_has_changed(forms, tmp_path, monkeypatch):
    run = forms("no_bias").train()
    assert forms("no_bias").train().fingerprint() == run.fingerprint()
    edited = FORMS.replace(".relu()", ".tanh()") + "\n"  # of another length: Python tells files of one second by it
    (tmp_path / "forms.py").write_text(edited)
    monkeypatch.delitem(sys.modules, "forms")
    for use in (forms("no_bias").train, forms("no_bias").unlearn, run.load_model):
        with pytest.raises(UserError, match="model: its code differs from that which forms_no_bias"):
            use()


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("pair", "model: forms:pair returns a tuple; expected its logits"),
        ("named", "model: forms:named returns a dict; expected its logits"),
        ("pair_in_training", "model: the network returns a tuple; expected its logits"),
        (
            "squeezed",
            "model: forms:squeezed returns (10,) for a single picture; expected (1, 10); use flatten(1)",
        ),
        ("softmax", "model: forms:softmax returns probabilities (softmax); expected its logits"),
        ("sigmoid", "model: forms:sigmoid returns numbers between 0 and 1; expected its logits"),
        ("tanh", "model: forms:tanh returns numbers between -1 and 1; expected its logits"),
        ("maps", "model: forms:maps has 10x1x1 outputs"),
        ("seven", "model: forms:seven has 7 outputs; expected 10"),
        ("half", "model: its weights are torch.float16; expected float32"),
        ("double", "model: its weights are torch.float64; expected float32"),
        ("parallel", "model: got a DataParallel; expected the network in it, its .module"),
        ("scripted", "model: got a scripted network; expected the nn.Module that was scripted"),
        ("frozen", "model: none of its parameters requires a gradient"),
        ("nothing", "model: forms:nothing returns a NoneType"),
        ("Still", "model: forms:Still fails on a picture"),
        ("absent", "model: forms:absent makes no network"),
    ],
)
def test_train_refuses_networks_of_another_form(forms, tmp_path, name, sentence):
    with pytest.raises(UserError) as raised:
        forms(name).train()
    assert str(raised.value).startswith(sentence)
    assert not list(tmp_path.glob("runs/forms*/config.json"))


@pytest.mark.parametrize("name", ["Net", "Shared", "compiled", "no_bias"])
def test_train_keeps_and_opens_networks_of_another_form(forms, name):
    experiment = forms(name)
    run = experiment.train()
    again = evaluate(experiment.load(run), experiment.dataset, [1])
    assert again["confusion"] == run.metrics["original"]["confusion"]
    assert experiment.unlearn(samples=10).blocks["masked"]["forget_accuracy"] == 0  # the mask needs no bias here
    if name == "no_bias":
        with pytest.raises(UserError, match="its head has no bias"):
            experiment.unlearn("published")
