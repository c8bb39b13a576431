import copy
import logging
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.transforms import functional as T

from unlearn_lib import Experiment, fit, load_data, make_model
from unlearn_lib.networks import apply_weights, find_framing, load_state, read_weights


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


def test_only_the_head_stays_new_for_another_number_of_classes(state, file):
    model = make_model("mobilenet_v3_small", 5, size=32)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_weights(model, read_weights("mobilenet_v3_small", str(file)), "mine")
    fresh = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, start[name])}
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
        find_framing("resnet50", "IMAGENET")


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
    assert find_framing("resnet18", "IMAGENET1K_V1", 112).resize == 128
    assert find_framing("resnet18", "IMAGENET1K_V1").shape == (3, 224, 224)


def bare(**networks):
    """The state dicts of networks as checkpoints hold them."""
    return {name: network.state_dict() for name, network in networks.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        lambda net: torch.compile(nn.DataParallel(net)),
        torch.optim.swa_utils.AveragedModel,
    ],
)
def test_names_are_freed_of_the_prefixes_of_wrappers(tmp_path, wrap):
    net = make_model("lenet5", 10, seed=4)
    torch.save(wrap(copy.deepcopy(net)).state_dict(), tmp_path / "w.pth")
    state = read_weights("lenet5", str(tmp_path / "w.pth"))
    assert state.keys() == net.state_dict().keys()
    apply_weights(make_model("lenet5", 10), state, "w.pth")


def test_of_a_checkpoint_with_averaged_weights_these_are_taken_and_the_log_says_so(tmp_path, caplog):
    plain, averaged = make_model("lenet5", 10, seed=4), make_model("lenet5", 10, seed=5)
    torch.save(bare(model=plain, model_ema=torch.optim.swa_utils.AveragedModel(averaged)), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, "unlearn_lib"):
        state = read_weights("lenet5", str(tmp_path / "w.pth"))
    assert torch.equal(state["fc1.weight"], averaged.fc1.weight)
    assert "w.pth holds several; those under model_ema are taken" in caplog.text


def test_a_scripted_network_is_no_state_dict(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(ValueError, match="w.pt is not a state dict but a scripted network"):
        read_weights("lenet5", str(tmp_path / "w.pt"))


def test_weights_that_are_no_numbers_are_refused_and_the_model_stays():
    model, state = make_model("lenet5", 10), make_model("lenet5", 10, seed=3).state_dict()
    before = copy.deepcopy(model.state_dict())
    state["fc2.bias"][0] = torch.nan
    with pytest.raises(ValueError, match="w.pth has values in fc2.bias that are not finite"):
        apply_weights(model, state, "w.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_half_precision_weights_become_float32():
    state = {name: tensor.half() for name, tensor in make_model("lenet5", 10, seed=3).state_dict().items()}
    model = apply_weights(make_model("lenet5", 10), state, "w.pth")
    assert model.fc1.weight.dtype == torch.float32
    assert torch.equal(model.fc1.weight, state["fc1.weight"].float())


def test_quantised_weights_are_refused():
    state = {name: (100 * tensor).to(torch.int8) for name, tensor in make_model("lenet5", 10).state_dict().items()}
    with pytest.raises(ValueError, match="w.pth does not fit the model .conv1.bias"):
        apply_weights(make_model("lenet5", 10), state, "w.pth")


def test_checkpoints_without_counters_of_batches_load():
    model = make_model("resnet18", 10, size=32, seed=3)
    state = OrderedDict((n, t) for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked"))
    state._metadata = model.state_dict()._metadata  # of a new version, which says that they are there
    loaded = apply_weights(make_model("resnet18", 10, size=32), state, "old.pth")
    assert torch.equal(loaded.layer4[1].bn2.weight, model.layer4[1].bn2.weight)


def test_a_head_for_another_number_of_classes_is_named(caplog):
    with caplog.at_level(logging.INFO, "unlearn_lib"):
        apply_weights(make_model("lenet5", 4), make_model("lenet5", 10).state_dict(), "w.pth")
    assert "w.pth has 10 outputs" in caplog.text


def test_densenets_names_in_torchvisions_files_are_read(tmp_path):
    net = make_model("densenet121", 10, size=32, seed=3)
    old = {
        n.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in n else n: t
        for n, t in net.state_dict().items()
        if not n.endswith("num_batches_tracked")
    }
    assert old.keys() != net.state_dict().keys()
    torch.save(old, tmp_path / "w.pth")
    state = read_weights("densenet121", str(tmp_path / "w.pth"))
    loaded = apply_weights(make_model("densenet121", 10, size=32), state, "w.pth")
    assert all(torch.equal(net.state_dict()[n], t) for n, t in loaded.state_dict().items())


def test_vision_transformers_old_names_are_translated_by_its_modules_metadata():
    net = make_model("vit_b_16", 4, size=16, seed=3)
    old = OrderedDict(
        (n.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."), t)
        for n, t in net.state_dict().items()
    )
    loaded = apply_weights(make_model("vit_b_16", 4, size=16), old, "vit.pth")
    assert torch.equal(loaded.encoder.layers[3].mlp[3].weight, net.encoder.layers[3].mlp[3].weight)


def test_networks_that_want_their_version_get_it_from_a_safetensors_file_too(tmp_path):
    net = make_model("mnasnet0_5", 4, size=32, seed=3)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    state = read_weights("mnasnet0_5", str(tmp_path / "w.safetensors"))
    loaded = apply_weights(make_model("mnasnet0_5", 4, size=32), state, "w")
    assert torch.equal(loaded.classifier[1].weight, net.classifier[1].weight)
    assert not load_state(net, dict(net.state_dict())).missing_keys


def first_mnasnet():
    """MNASNet 0.5 as version 1 of torchvision's had it: its stem is as wide as that of 1.0."""
    net, wide = torchvision.models.mnasnet0_5(num_classes=4), torchvision.models.mnasnet1_0(num_classes=4)
    for i in range(8):
        net.layers[i] = wide.layers[i]
    net.layers[8] = torchvision.models.mnasnet._stack(16, 16, 3, 2, 3, 3, 0.01)
    state = net.state_dict()
    state._metadata[""]["version"] = 1
    return state


@pytest.mark.parametrize("form", ["with its version", "as a plain dict", "as safetensors"])
def test_a_mnasnet_of_version_1_is_refused_with_the_names_that_do_not_fit(tmp_path, form):
    state = first_mnasnet()
    if form == "as safetensors":
        save_file(state, path := tmp_path / "w.safetensors")
    else:
        torch.save(state if form == "with its version" else dict(state), path := tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not fit the model .layers.0.weight"):
        apply_weights(make_model("mnasnet0_5", 4, size=32), read_weights("mnasnet0_5", str(path)), "w")


def test_a_mnasnet_can_be_trained_and_has_its_best_weights_afterwards():
    data = load_data("shapes1000")
    net = make_model("mnasnet0_5", 4, size=32)
    assert len(fit(net, replace(data, train=data.val), epochs=1)["lr"]) == 1


@pytest.mark.parametrize(
    "name, ending",
    [
        ("resnet18", "pth.tar"),
        ("mobilenetv3_small_050", "safetensors"),
        ("vit_tiny_patch16_224", "pth"),
        ("tf_efficientnet_lite0", "safetensors"),
    ],
)
def test_timms_weights_from_a_file_answer_as_timms_network_does(tmp_path, name, ending):
    net = pytest.importorskip("timm").create_model(name, num_classes=10).eval()
    path, code = tmp_path / f"w.{ending}", f"timm/{name}"
    whole = {"state_dict": net.state_dict(), "epoch": 3, "arch": name}
    save_file(net.state_dict(), path) if ending == "safetensors" else torch.save(
        whole if ending == "pth.tar" else net.state_dict(), path
    )
    framing = find_framing(code, str(path))
    config = net.pretrained_cfg
    assert (framing.shape, framing.mean) == (config["input_size"], config["mean"])
    loaded = apply_weights(make_model(code, 10, size=framing.shape[-1]), read_weights(code, str(path)), "w").eval()
    x = torch.randn(1, *framing.shape)
    assert torch.equal(loaded(x), net(x))


def test_googlenet_changes_its_input_where_weights_from_elsewhere_go_in():
    reference = torchvision.models.googlenet(
        weights=None, num_classes=3, transform_input=True, init_weights=False
    ).eval()
    model = make_model("googlenet", 3, size=64)
    assert not model.transform_input
    apply_weights(model, reference.state_dict(), "w.pth").eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), reference(x))
    assert make_model("googlenet", 3, size=64, pretrained=True).transform_input


def test_a_network_without_named_weights_takes_files_alone():
    with pytest.raises(ValueError, match="weights: got 'imagenet'; expected for lenet5 the file"):
        read_weights("lenet5", "imagenet")
    with pytest.raises(ValueError, match="weights: got 'V1'; expected for efficientnet_lite0 imagenet or the file"):
        read_weights("efficientnet_lite0", "V1")


def test_timms_weights_have_the_names_of_their_kinds():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="weights: got 'V1'; expected for timm/resnet18 imagenet, .*a1_in1k"):
        read_weights("timm/resnet18", "V1")


@torch.no_grad()
def test_efficientnet_lite0_knows_a_flower_and_a_palace():
    state, framing = read_weights("efficientnet_lite0", "imagenet"), find_framing("efficientnet_lite0", "imagenet")
    model = apply_weights(make_model("efficientnet_lite0", 1000), state, "imagenet").eval()
    names = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    pictures = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    cut = [T.center_crop(T.resize(p, framing.resize, framing.interpolation), framing.shape[1:]) for p in pictures]
    answers = model(T.normalize(torch.stack(cut) / 255, framing.mean, framing.std)).argmax(1)
    assert [names[i] for i in answers] == ["palace", "daisy"]


def test_fine_tuning_starts_golden_from_the_same_weights_and_unlearning_finds_the_size(tmp_path, file):
    common = {"data": "digits", "forget": [0, 1], "runs_root": tmp_path / "runs"}
    experiment = Experiment("mobilenet_v3_small", size=32, weights=str(file), train_epochs=1, **common)
    assert (experiment.train().config["weights"], experiment.golden().config["weights"]) == (str(file), str(file))
    later = Experiment("mobilenet_v3_small", **common)
    assert later.start == {"size": 32, "weights": str(file), "flip": None}
    run = later.unlearn("mask")
    assert run.blocks["golden"]["forget_accuracy"] == run.blocks["masked"]["forget_accuracy"] == 0.0
    assert not Path(run.path, "activations").exists()
