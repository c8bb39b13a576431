"""Invalid input: what users type and the sentence they get, before any work is done.

A row is (name, call, exception, pattern); the pattern holds the argument and the value that it got.
"""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from folders import write_pets
from tiny import tiny_data, tiny_network

from unlearn_lib import (
    Experiment,
    UserError,
    ZeroShotUnlearner,
    evaluate,
    fit,
    load_data,
    make_impressions,
    make_model,
    mask,
    score,
    split,
)
from unlearn_lib.__main__ import main
from unlearn_lib.common import check_number
from unlearn_lib.data import parse_classes


@pytest.fixture(scope="module")
def use(tmp_path_factory):
    """The functions of the program, with a tiny network and valid arguments where a row gives none."""
    folder = tmp_path_factory.mktemp("invalid")
    write_pets(folder / "pets")
    data = tiny_data(8, 4)
    net = tiny_network()
    drawn = make_impressions(net, "head", samples=2)
    valid = {"model": "lenet5", "data": "digits", "forget": [1], "runs_root": folder / "runs"}
    return SimpleNamespace(
        folder=folder,
        experiment=lambda **given: Experiment(**valid | given),
        forget=lambda given: Experiment(**valid | {"forget": given}).forget_classes,
        parse=lambda given: parse_classes(given, ["cat", "dog", "3", "1"]),
        load=lambda name="digits", **given: load_data(name, folder, **given),
        make=lambda name="lenet5", classes=10, **given: make_model(name, classes, **given),
        fit=lambda model=None, **given: fit(model or tiny_network(), data, **{"epochs": 1} | given),
        impressions=lambda **given: make_impressions(net, **{"layer": "head", "samples": 1} | given),
        unlearner=lambda forget=1, **given: ZeroShotUnlearner(net, drawn, forget, **given),
        mask=lambda forget: mask(net, forget),
        evaluate=lambda forget, model=net: evaluate(model, data, forget),
        score=lambda forget: score(torch.eye(4, dtype=torch.int64), forget),
        split=lambda layer: split(net, layer),
    )


INVALID = [
    ("seed='abc'", lambda use: use.experiment(seed="abc"), UserError, "^seed: .*'abc'"),
    ("seed=''", lambda use: use.experiment(seed=""), UserError, "^seed: .*''"),
    ("seed=None", lambda use: use.experiment(seed=None), UserError, "^seed: .*None"),
    ("seed=1.5", lambda use: use.experiment(seed=1.5), UserError, r"^seed: .*1\.5"),
    ("seed=-1", lambda use: use.experiment(seed=-1), UserError, "^seed: .*-1"),
    ("seed=2**70", lambda use: use.experiment(seed=2**70), UserError, "^seed: .*1180591620717411303424"),
    ("seed=True", lambda use: use.experiment(seed=True), UserError, "^seed: .*True"),
    ("train_epochs='x'", lambda use: use.experiment(train_epochs="x"), UserError, "^train_epochs: .*'x'"),
    ("train_epochs=1.5", lambda use: use.experiment(train_epochs=1.5), UserError, r"^train_epochs: .*1\.5"),
    ("train_epochs='0'", lambda use: use.experiment(train_epochs="0"), UserError, "^train_epochs: .*0"),
    ("train_epochs=nan", lambda use: use.experiment(train_epochs=math.nan), UserError, "^train_epochs: .*nan"),
    ("train_epochs=True", lambda use: use.experiment(train_epochs=True), UserError, "^train_epochs: .*True"),
    ("train_lr='fast'", lambda use: use.experiment(train_lr="fast"), UserError, "^train_lr: .*'fast'"),
    ("train_lr='0,003'", lambda use: use.experiment(train_lr="0,003"), UserError, "^train_lr: .*'0,003'"),
    ("train_lr=b'1'", lambda use: use.experiment(train_lr=b"1"), UserError, "^train_lr: .*b'1'"),
    ("train_lr='nan'", lambda use: use.experiment(train_lr="nan"), UserError, "^train_lr: .*nan"),
    ("train_lr='-inf'", lambda use: use.experiment(train_lr="-inf"), UserError, "^train_lr: .*-inf"),
    ("train_lr=[0.1, 0.2]", lambda use: use.experiment(train_lr=[0.1, 0.2]), UserError, r"^train_lr: .*\[0\.1, 0\.2\]"),
    ("train_batch_size=''", lambda use: use.experiment(train_batch_size=""), UserError, "^train_batch_size: .*''"),
    (
        "train_batch_size='64.5'",
        lambda use: use.experiment(train_batch_size="64.5"),
        UserError,
        r"^train_batch_size: .*'64\.5'",
    ),
    ("train_batch_size='-3'", lambda use: use.experiment(train_batch_size="-3"), UserError, "^train_batch_size: .*-3"),
    ("dropout='x'", lambda use: use.experiment(dropout="x"), UserError, "^dropout: .*'x'"),
    ("dropout='1.0'", lambda use: use.experiment(dropout="1.0"), UserError, r"^dropout: .*1\.0"),
    ("dropout=nan", lambda use: use.experiment(dropout=math.nan), UserError, "^dropout: .*nan"),
    (
        "label_smoothing='much'",
        lambda use: use.experiment(label_smoothing="much"),
        UserError,
        "^label_smoothing: .*'much'",
    ),
    ("size='28.5'", lambda use: use.experiment(size="28.5"), UserError, r"^size: .*'28\.5'"),
    ("size='28 px'", lambda use: use.experiment(size="28 px"), UserError, "^size: .*'28 px'"),
    ("size=0", lambda use: use.experiment(size=0), UserError, "^size: .*0"),
    ("size='32'", lambda use: use.experiment(size="32").new_model(0), UserError, "^size: .*32"),
    ("save_every='never'", lambda use: use.experiment(save_every="never"), UserError, "^save_every: .*'never'"),
    ("save_every=0", lambda use: use.experiment(save_every=0), UserError, "^save_every: .*0"),
    ("memory='512 MB'", lambda use: use.experiment(memory="512 MB"), UserError, "^memory: .*'512 MB'"),
    ("memory=nan", lambda use: use.experiment(memory=math.nan), UserError, "^memory: .*nan"),
    ("flip='no'", lambda use: use.experiment(flip="no"), UserError, "^flip: .*'no'"),
    ("flip=2", lambda use: use.experiment(flip=2), UserError, "^flip: .*2"),
    ("force='perhaps'", lambda use: use.experiment(force="perhaps"), UserError, "^force: .*'perhaps'"),
    ("weights='').train(", lambda use: use.experiment(weights="").train(), UserError, "^weights: .*''"),
    ("weights={}).train(", lambda use: use.experiment(weights={}).train(), UserError, r"^weights: .*'\{\}'"),
    ("device='gpu'", lambda use: use.experiment(device="gpu"), UserError, "^device: .*'gpu'"),
    ("device=0", lambda use: use.experiment(device=0), UserError, "^device: .*'0'"),
    ("version='a/b'", lambda use: use.experiment(version="a/b"), UserError, "^version-name: .*'a/b'"),
    ("version='a/nb'", lambda use: use.experiment(version="a\nb"), UserError, r"^version-name: .*'a\\nb'"),
    ("version='a/0b'", lambda use: use.experiment(version="a\0b"), UserError, r"^version-name: .*'a\\x00b'"),
    ("model='LeNet5'", lambda use: use.experiment(model="LeNet5").new_model(0), UserError, "^model: .*'LeNet5'"),
    ("model=''", lambda use: use.experiment(model="").new_model(0), UserError, "^model: .*''"),
    ("model=None", lambda use: use.experiment(model=None).new_model(0), UserError, "^model: .*'None'"),
    (
        "model='timm/nothing'",
        lambda use: use.experiment(model="timm/nothing").new_model(0),
        UserError,
        "^model: .*'timm/nothing'",
    ),
    ("model=':'", lambda use: use.experiment(model=":").new_model(0), UserError, "^model: .*:"),
    (
        "model='no.such:thing'",
        lambda use: use.experiment(model="no.such:thing").new_model(0),
        UserError,
        r"^model: .*no\.such:thing",
    ),
    ("data=None", lambda use: use.experiment(data=None).dataset, UserError, "^data: .*'None'"),
    ("data=3", lambda use: use.experiment(data=3).dataset, UserError, "^data: .*'3'"),
    ("data='Digits'", lambda use: use.experiment(data="Digits").dataset, UserError, "^data: .*'Digits'"),
    ("unlearn('NegGrad+')", lambda use: use.experiment().unlearn("NegGrad+"), UserError, r"^method: .*'NegGrad\+'"),
    ("unlearn(None)", lambda use: use.experiment().unlearn(None), UserError, "^method: .*None"),
    ("unlearn(recipe='')", lambda use: use.experiment().unlearn(recipe=""), UserError, "^recipe: .*''"),
    ("unlearn(samples='many')", lambda use: use.experiment().unlearn(samples="many"), UserError, "^samples: .*'many'"),
    ("unlearn(samples='1.5')", lambda use: use.experiment().unlearn(samples="1.5"), UserError, r"^samples: .*'1\.5'"),
    ("unlearn(samples=0)", lambda use: use.experiment().unlearn(samples=0), UserError, "^samples: .*0"),
    ("unlearn(lr='x')", lambda use: use.experiment().unlearn(lr="x"), UserError, "^lr: .*'x'"),
    ("unlearn(epochs='2.5')", lambda use: use.experiment().unlearn(epochs="2.5"), UserError, r"^epochs: .*'2\.5'"),
    (
        "unlearn(forget_weight='-1')",
        lambda use: use.experiment().unlearn(forget_weight="-1"),
        UserError,
        "^forget_weight: .*-1",
    ),
    (
        "unlearn(retain_weight='inf')",
        lambda use: use.experiment().unlearn(retain_weight="inf"),
        UserError,
        "^retain_weight: .*inf",
    ),
    ("unlearn(rate=1)", lambda use: use.experiment().unlearn(rate=1), TypeError, "rate"),
    ("forget('1 2')", lambda use: use.forget("1 2"), UserError, "^forget: .*'1 2'"),
    ("forget('1,2')", lambda use: use.forget("1,2"), UserError, "^forget: .*'1,2'"),
    ("forget('[1, 2]')", lambda use: use.forget("[1, 2]"), UserError, r"^forget: .*'\[1, 2\]'"),
    ("forget('all')", lambda use: use.forget("all"), UserError, "^forget: .*'all'"),
    ("forget(None)", lambda use: use.forget(None), UserError, "^forget: .*'None'"),
    ("forget(b'1')", lambda use: use.forget(b"1"), UserError, "^forget: .*b'1'"),
    ("forget(True)", lambda use: use.forget(True), UserError, "^forget: .*'True'"),
    ("forget([True, False])", lambda use: use.forget([True, False]), UserError, "^forget: .*'True'"),
    ("forget(np.arange(10) == 3)", lambda use: use.forget(np.arange(10) == 3), UserError, "^forget: .*'False'"),
    (
        "forget(torch.arange(10) == 3)",
        lambda use: use.forget(torch.arange(10) == 3),
        UserError,
        r"^forget: .*'tensor\(False\)'",
    ),
    ("forget([1.0])", lambda use: use.forget([1.0]), UserError, r"^forget: .*'1\.0'"),
    ("forget('10')", lambda use: use.forget("10"), UserError, "^forget: .*'10'"),
    ("parse('Cat')", lambda use: use.parse("Cat"), UserError, "^forget: .*'Cat'"),
    ("parse('cat,dog')", lambda use: use.parse("cat,dog"), UserError, "^forget: .*'cat,dog'"),
    ("parse(['cat', ['dog']])", lambda use: use.parse(["cat", ["dog"]]), UserError, r"^forget: .*\['dog'\]"),
    ("parse({'cat': 1, 'cow': 2})", lambda use: use.parse({"cat": 1, "cow": 2}), UserError, "^forget: .*'cow'"),
    ("load(seed='x')", lambda use: use.load(seed="x"), UserError, "^seed: .*'x'"),
    ("load(shape='28')", lambda use: use.load(shape="28"), UserError, "^shape: .*28"),
    ("load(shape=(28, 28))", lambda use: use.load(shape=(28, 28)), UserError, r"^shape: .*\(28, 28\)"),
    ("load(shape=(4, 28, 28))", lambda use: use.load(shape=(4, 28, 28)), UserError, r"^shape: .*\(4, 28, 28\)"),
    ("load(shape=(1, 0, 28))", lambda use: use.load(shape=(1, 0, 28)), UserError, "^shape: .*0"),
    ("load(shape=(1, 'a', 28))", lambda use: use.load(shape=(1, "a", 28)), UserError, "^shape: .*'a'"),
    ("load(flip='yes')", lambda use: use.load(flip="yes"), UserError, "^flip: .*'yes'"),
    ("load(None)", lambda use: use.load(None), UserError, "^data: .*'None'"),
    ("load('')", lambda use: use.load(""), UserError, "^data: .*''"),
    ("load('pets')", lambda use: use.load("pets"), UserError, "^data: .*'pets'"),
    ("make(classes='ten')", lambda use: use.make(classes="ten"), UserError, "^num_classes: .*'ten'"),
    ("make(classes=0)", lambda use: use.make(classes=0), UserError, "^num_classes: .*0"),
    ("make(classes=-1)", lambda use: use.make(classes=-1), UserError, "^num_classes: .*-1"),
    ("make(classes=2.5)", lambda use: use.make(classes=2.5), UserError, r"^num_classes: .*2\.5"),
    ("make(dropout='x')", lambda use: use.make(dropout="x"), UserError, "^dropout: .*'x'"),
    ("make(seed=None)", lambda use: use.make(seed=None), UserError, "^seed: .*None"),
    ("make(3)", lambda use: use.make(3), UserError, "^model: .*'3'"),
    ("fit(epochs='many')", lambda use: use.fit(epochs="many"), UserError, "^epochs: .*'many'"),
    ("fit(lr='x')", lambda use: use.fit(lr="x"), UserError, "^lr: .*'x'"),
    ("fit(seed='x')", lambda use: use.fit(seed="x"), UserError, "^seed: .*'x'"),
    ("fit(weight_decay=nan)", lambda use: use.fit(weight_decay=math.nan), UserError, "^weight_decay: .*nan"),
    ("fit(weight_decay='-1')", lambda use: use.fit(weight_decay="-1"), UserError, "^weight_decay: .*'-1'"),
    ("fit(label_smoothing='1')", lambda use: use.fit(label_smoothing="1"), UserError, "^label_smoothing: .*'1'"),
    ("fit(forget=[9])", lambda use: use.fit(forget=[9]), UserError, r"^classes: .*\[9\]"),
    ("fit(forget='cat')", lambda use: use.fit(forget="cat"), UserError, "^classes: .*'cat'"),
    ("fit(model=net(classes=3))", lambda use: use.fit(model=tiny_network(classes=3)), UserError, "^model: .*3"),
    ("fit(model=net(classes=9))", lambda use: use.fit(model=tiny_network(classes=9)), UserError, "^model: .*9"),
    ("impressions(samples='x')", lambda use: use.impressions(samples="x"), UserError, "^samples: .*'x'"),
    ("impressions(steps='2.5')", lambda use: use.impressions(steps="2.5"), UserError, r"^steps: .*'2\.5'"),
    ("impressions(steps=-1)", lambda use: use.impressions(steps=-1), UserError, "^steps: got -1"),
    ("impressions(seed='x')", lambda use: use.impressions(seed="x"), UserError, "^seed: .*'x'"),
    ("impressions(classes='7')", lambda use: use.impressions(classes="7"), UserError, r"^classes: .*\[7\]"),
    ("impressions(layer='')", lambda use: use.impressions(layer=""), UserError, "^layer: .*''"),
    ("unlearner('12')", lambda use: use.unlearner("12"), UserError, r"^forget: .*\[12\]"),
    ("unlearner('cat')", lambda use: use.unlearner("cat"), UserError, "^forget: .*'cat'"),
    ("unlearner(1.7)", lambda use: use.unlearner(1.7), UserError, r"^forget: .*1\.7"),
    ("unlearner([])", lambda use: use.unlearner([]), UserError, "^forget: .*none"),
    ("unlearner([True])", lambda use: use.unlearner([True]), UserError, "^forget: .*True"),
    ("unlearner(epochs='x')", lambda use: use.unlearner(epochs="x"), UserError, "^epochs: .*'x'"),
    ("unlearner(lr='')", lambda use: use.unlearner(lr=""), UserError, "^lr: .*''"),
    ("unlearner(seed='x')", lambda use: use.unlearner(seed="x"), UserError, "^seed: .*'x'"),
    ("unlearner(layer='')", lambda use: use.unlearner(layer=""), UserError, "^layer: .*''"),
    ("mask([1.5])", lambda use: use.mask([1.5]), UserError, r"^classes: .*1\.5"),
    ("mask('12')", lambda use: use.mask("12"), UserError, r"^classes: .*\[12\]"),
    ("mask([])", lambda use: use.mask([]), UserError, r"^classes: .*\[\]"),
    (
        "mask(torch.tensor([True, False]))",
        lambda use: use.mask(torch.tensor([True, False])),
        UserError,
        r"^classes: .*tensor\(True\)",
    ),
    ("evaluate([11])", lambda use: use.evaluate([11]), UserError, r"^classes: .*\[11\]"),
    ("evaluate('cat')", lambda use: use.evaluate("cat"), UserError, "^classes: .*'cat'"),
    (
        "evaluate([1], net(classes=3))",
        lambda use: use.evaluate([1], tiny_network(classes=3)),
        UserError,
        "^model: .*its head has 3 outputs, tiny has 4 classes",
    ),
    ("score([-1])", lambda use: use.score([-1]), UserError, r"^classes: .*\[-1\]"),
    ("score(4)", lambda use: use.score(4), UserError, r"^classes: .*\[4\]"),
    ("split('')", lambda use: use.split(""), UserError, "^layer: .*''"),
    ("split('FC3')", lambda use: use.split("FC3"), UserError, "^layer: .*'FC3'"),
    ("split(3)", lambda use: use.split(3), UserError, "^layer: .*'3'"),
    ("split(None)", lambda use: use.split(None), UserError, "^layer: .*'None'"),
]


@pytest.mark.parametrize("call, exception, pattern", [row[1:] for row in INVALID], ids=[row[0] for row in INVALID])
def test_invalid_input_ends_in_one_sentence(use, call, exception, pattern):
    with pytest.raises(exception, match=pattern) as raised:
        call(use)
    assert "\n" not in str(raised.value)
    assert not list(use.folder.glob("runs/lenet5*"))  # before any work


NUMBERS_AS_TEXT = [  # (name, call with text, call with the number or its result)
    ("seed='3'", lambda use: use.experiment(seed="3"), lambda use: use.experiment(seed=3)),
    ("seed=' 3.0 '", lambda use: use.experiment(seed=" 3.0 "), lambda use: use.experiment(seed=3)),
    ("seed=np.int64(3)", lambda use: use.experiment(seed=np.int64(3)), lambda use: use.experiment(seed=3)),
    ("train_epochs='2'", lambda use: use.experiment(train_epochs="2"), lambda use: use.experiment(train_epochs=2)),
    ("train_epochs=2.0", lambda use: use.experiment(train_epochs=2.0), lambda use: use.experiment(train_epochs=2)),
    ("train_lr='3e-3'", lambda use: use.experiment(train_lr="3e-3"), lambda use: use.experiment(train_lr=0.003)),
    (
        "train_lr=torch.tensor(0.5)",
        lambda use: use.experiment(train_lr=torch.tensor(0.5)),
        lambda use: use.experiment(train_lr=0.5),
    ),
    (
        "train_batch_size='64'",
        lambda use: use.experiment(train_batch_size="64"),
        lambda use: use.experiment(train_batch_size=64),
    ),
    ("dropout='0.25'", lambda use: use.experiment(dropout="0.25"), lambda use: use.experiment(dropout=0.25)),
    ("size='28'", lambda use: use.experiment(size="28"), lambda use: use.experiment(size=28)),
    ("memory='256'", lambda use: use.experiment(memory="256"), lambda use: use.experiment(memory=256)),
    ("flip='False'", lambda use: use.experiment(flip="False"), lambda use: use.experiment(flip=False)),
    ("flip='true'", lambda use: use.experiment(flip="true"), lambda use: use.experiment(flip=True)),
    ("flip=0", lambda use: use.experiment(flip=0), lambda use: use.experiment(flip=False)),
    ("force='False'", lambda use: use.experiment(force="False"), lambda use: use.experiment(force=False)),
    ("version=3", lambda use: use.experiment(version=3), lambda use: use.experiment(version="3")),
    ("forget('2')", lambda use: use.forget("2"), lambda use: use.forget(2)),
    ("forget(torch.tensor(2))", lambda use: use.forget(torch.tensor(2)), lambda use: use.forget([2])),
    (
        "load(seed='3').train.fingerprint",
        lambda use: use.load(seed="3").train.fingerprint,
        lambda use: use.load(seed=3).train.fingerprint,
    ),
    ("load(flip='false').flip", lambda use: use.load(flip="false").flip, lambda use: False),
    ("load(shape=('1', '8', '8')).shape", lambda use: use.load(shape=("1", "8", "8")).shape, lambda use: (1, 8, 8)),
    (
        "fit(epochs='2', lr='0.01')['lr']",
        lambda use: use.fit(epochs="2", lr="0.01")["lr"],
        lambda use: use.fit(epochs=2, lr=0.01)["lr"],
    ),
    (
        "fit(forget='1')['train_loss']",
        lambda use: use.fit(forget="1")["train_loss"],
        lambda use: use.fit(forget=[1])["train_loss"],
    ),
    (
        "impressions(samples='2').labels.tolist()",
        lambda use: use.impressions(samples="2").labels.tolist(),
        lambda use: [0, 0, 1, 1, 2, 2, 3, 3],
    ),
    (
        "impressions(classes='2').labels.tolist()",
        lambda use: use.impressions(classes="2").labels.tolist(),
        lambda use: [2],
    ),
    ("unlearner('2').forget", lambda use: use.unlearner("2").forget, lambda use: [2]),
    ("unlearner(2, epochs='3').epochs", lambda use: use.unlearner(2, epochs="3").epochs, lambda use: 3),
    ("score('1')", lambda use: use.score("1"), lambda use: use.score([1])),
]


@pytest.mark.parametrize("text, number", [row[1:] for row in NUMBERS_AS_TEXT], ids=[row[0] for row in NUMBERS_AS_TEXT])
def test_a_number_given_as_text_is_that_number(use, text, number):
    assert text(use) == number(use)


@pytest.mark.parametrize("given", ["7", 7, 7.0, np.int32(7), np.float64(7), torch.tensor(7), torch.tensor([7.0])])
def test_check_number_returns_an_int_for_every_kind_of_whole_number(given):
    assert type(check_number("epochs", given, whole=True)) is int
    assert check_number("epochs", given, whole=True) == 7


@pytest.mark.parametrize("layer", [3, "3"])
def test_make_impressions_takes_the_number_of_a_layer_of_nn_sequential(layer):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    net.input_shape = (1, 2, 2)
    assert make_impressions(net, layer, samples=1).layer == "3"


@pytest.mark.parametrize("words", ["--seed x", "--epochs 1.5", "--lr fast", "--dropout none", "--size 28px"])
def test_the_shell_refuses_an_option_that_is_not_a_number(tmp_path, capsys, words):
    option, value = words.split()
    given = ["train", "--model", "lenet5", "--data", "digits", "--runs-root", str(tmp_path), option, value]
    assert main(given) == 2
    assert re.search(f"{option.strip('-')}: .*{value}", capsys.readouterr().err)


def test_the_shell_refuses_an_option_without_a_value(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--model", "lenet5", "--data", "digits", "--batch-size", "--runs-root", str(tmp_path)])
    assert "--batch-size: expected one argument" in capsys.readouterr().err
