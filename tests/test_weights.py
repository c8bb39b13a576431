from pathlib import Path

import pytest
import torch

from unlearn_lib import Experiment, make_model
from unlearn_lib.networks import apply_weights, framing_of, read_weights


@pytest.fixture(scope="module")
def state():
    return make_model("mobilenet_v3_small", 1000, size=32, seed=3).state_dict()


@pytest.fixture
def file(tmp_path, state):
    torch.save(state, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def test_a_state_dict_from_a_file_makes_the_same_network(state, file):
    model = make_model("mobilenet_v3_small", 1000, size=32)
    apply_weights(model, read_weights("mobilenet_v3_small", str(file)), "mine")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_checkpoint_of_a_parallel_network_is_unwrapped(tmp_path, state, wrapper):
    torch.save({wrapper: {f"module.{k}": t for k, t in state.items()}, "epoch": 3}, tmp_path / "checkpoint.pt")
    assert read_weights("mobilenet_v3_small", str(tmp_path / "checkpoint.pt")).keys() == state.keys()


def test_only_the_head_is_made_anew_for_another_number_of_classes(state, file):
    model = make_model("mobilenet_v3_small", 5, size=32)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_weights(model, read_weights("mobilenet_v3_small", str(file)), "mine")
    fresh = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, own[name])}
    assert {"classifier.3.weight", "classifier.3.bias"} <= fresh
    taken = model.state_dict().keys() - {"classifier.3.weight", "classifier.3.bias"}
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in taken)


def test_weights_of_another_network_are_refused(file):
    with pytest.raises(ValueError, match="does not fit the model"):
        apply_weights(make_model("resnet18", 1000), read_weights("mobilenet_v3_small", str(file)), "mine")


@pytest.mark.parametrize("content", [b"", b"PK nothing", b"\x80\x04cos\nsystem\n."])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(ValueError, match="bad.pth is not a state dict"):
        read_weights("resnet18", str(tmp_path / "bad.pth"))


def test_an_absent_file_is_named():
    with pytest.raises(FileNotFoundError, match="no file /nowhere/mine.pth"):
        read_weights("resnet18", "/nowhere/mine.pth")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="IMAGENET1K_V1, IMAGENET1K_V2"):
        framing_of("resnet50", "IMAGENET")


def test_weights_that_cannot_be_downloaded_are_named_with_where_to_put_them(tmp_path, monkeypatch):
    def no_network(url, *rest):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(FileNotFoundError) as raised:
        read_weights("resnet18", "IMAGENET1K_V1")
    sentence = str(raised.value)
    assert "resnet18-f37072fd.pth" in sentence
    assert str(tmp_path / "hub" / "checkpoints") in sentence
    assert "the file of a state dict" in sentence


def test_weights_that_lie_where_torch_keeps_them_are_taken_by_name(tmp_path, monkeypatch, state):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = "mobilenet_v3_small-047dcff4.pth"
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / url)
    assert torch.equal(read_weights("mobilenet_v3_small", "DEFAULT")["classifier.3.bias"], state["classifier.3.bias"])


def test_a_smaller_size_keeps_the_proportion_of_the_cut():
    assert framing_of("resnet18", "IMAGENET1K_V1", 112).resize == 128
    assert framing_of("resnet18", "IMAGENET1K_V1").shape == (3, 224, 224)


def test_fine_tuning_starts_golden_from_the_same_weights_and_unlearning_finds_the_size(tmp_path, file):
    words = {"data": "digits", "forget": [0, 1], "runs_root": tmp_path / "runs", "say": lambda sentence: None}
    lab = Experiment("mobilenet_v3_small", size=32, weights=str(file), train_epochs=1, **words)
    assert (lab.train().config["weights"], lab.golden().config["weights"]) == (str(file), str(file))
    later = Experiment("mobilenet_v3_small", **words)
    assert (later.size, later.weights) == (32, str(file))
    run = later.unlearn("mask")
    assert run.blocks["golden"]["forget_accuracy"] == run.blocks["masked"]["forget_accuracy"] == 0.0
    assert not Path(run.path, "activations").exists()
