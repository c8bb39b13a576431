"""Training in two processes, as `torchrun` starts them, is training in one."""

import dataclasses
import json
import os
import socket
import sys

import pytest
import torch
from tiny import START, large_network, on_disk, tiny_data, tiny_network

from unlearn_lib import UserError, evaluate, fit, make_model, open_run
from unlearn_lib.__main__ import main
from unlearn_lib.data import pictures
from unlearn_lib.networks import run_names
from unlearn_lib.processes import release_helpers
from unlearn_lib.store import digest
from unlearn_lib.training import help_training


def together(work, processes=2):
    """Run a function in several processes, as torchrun starts them; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def begin(rank):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
        os.environ.update(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        sys.exit(work(rank))

    started = [START.Process(target=begin, args=(rank,)) for rank in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def trained(path, data, **numbers):
    """Return a function that trains a LeNet5, another one in each process, and writes its results."""

    def work(rank):
        model = make_model("lenet5", 10, seed=rank)
        history = fit(model, data, batch_size=64, precision="float32", **numbers)
        made = {"accuracy": evaluate(model, data)["overall_accuracy"], "history": history}
        made["weights"] = digest(model.state_dict())
        path.with_name(f"{path.name}{rank}").write_text(json.dumps(made))

    return work


def test_two_processes_train_like_one_and_end_with_the_same_bits_as_each_other(tmp_path, digits):
    model = make_model("lenet5", 10, seed=0)
    history = fit(model, digits, epochs=3, batch_size=64, precision="float32")
    assert together(trained(tmp_path / "rank", digits, epochs=3)) == [0, 0]
    first, second = (json.loads((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]  # although the second process began with other weights
    assert first["accuracy"] == second["accuracy"]
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert first["history"][name] == pytest.approx(history[name], abs=0.02)


def test_two_processes_train_a_large_network_like_one(tmp_path):
    data = tiny_data()
    numbers = {"epochs": 2, "batch_size": 33, "precision": "float32"}  # the parts of a batch differ in size
    alone = fit(large_network(), data, **numbers)

    def work(rank):
        (tmp_path / str(rank)).write_text(json.dumps(fit(large_network(), data, **numbers)))

    assert together(work) == [0, 0]
    assert json.loads((tmp_path / "0").read_text())["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-3)


def test_two_processes_continue_from_a_checkpoint_with_the_same_bits(tmp_path, digits):
    for name in ("whole", "continued"):
        assert together(trained(tmp_path / name, digits, epochs=2, checkpoint=tmp_path / "c.safetensors")) == [0, 0]
    whole, again = (json.loads((tmp_path / f"{name}0").read_text()) for name in ("whole", "continued"))
    assert whole["weights"] == again["weights"]
    assert whole["history"]["seconds"][0] == again["history"]["seconds"][0]  # the first epoch was not done again
    assert whole["history"]["seconds"][1] != again["history"]["seconds"][1]


@pytest.mark.parametrize("epochs, status", [(1, 0), (0, 2)])
def test_the_shell_in_two_processes_writes_one_run_and_one_output(tmp_path, epochs, status):
    words = f"golden --model lenet5 --data digits --forget 1 --epochs {epochs} --runs-root {tmp_path / 'runs'}"

    def work(rank):
        with open(tmp_path / str(rank), "w") as sys.stdout:
            sys.stderr = sys.stdout
            return main(words.split())

    assert together(work) == [status, 0]
    assert (tmp_path / "1").read_text() == ""
    if status:
        assert "train_epochs: got '0'" in (tmp_path / "0").read_text()
        return
    assert "trained in" in (tmp_path / "0").read_text()
    assert run_names(tmp_path / "runs") == ["lenet5-digits-golden-1-s0"]
    assert open_run(tmp_path / "runs", "lenet5-digits-golden-1-s0").metrics["golden"]["forget_accuracy"] == 0


def test_a_helper_waits_for_the_next_training_after_one_failed(tmp_path):
    def work(rank):
        if rank:
            help_training()
            return
        with pytest.raises(UserError, match="lr: got 1e\\+10"):
            fit(tiny_network(), tiny_data(), epochs=2, lr=1e10, batch_size=32)
        history = fit(tiny_network(), tiny_data(), epochs=2, lr=0.02, batch_size=32)
        (tmp_path / "accuracy").write_text(str(history["val_accuracy"][-1]))
        release_helpers()

    assert together(work) == [0, 0]
    assert float((tmp_path / "accuracy").read_text()) > 0.5


def test_an_image_on_disk_is_decoded_once_an_epoch(tmp_path, monkeypatch):
    data, seen, decode = on_disk(tiny_data(), tmp_path), [], pictures._decode

    def counted(path, framing):
        seen.append(path)
        return decode(path, framing)

    monkeypatch.setattr(pictures, "_decode", counted)
    fit(tiny_network(), data, epochs=2, batch_size=32)
    train, val = ({*split.images.paths} for split in (data.train, data.val))
    assert {*seen} == train | val
    assert all(seen.count(path) == 2 for path in train | val)


def test_precision_changes_the_bits(digits):
    small = dataclasses.replace(digits, train=digits.train.take(torch.arange(200)))
    weights = {}
    for precision in ("float32", "bfloat16"):
        model = make_model("lenet5", 10)
        fit(model, small, epochs=1, precision=precision)
        weights[precision] = model.fc3.weight
    assert not torch.equal(weights["float32"], weights["bfloat16"])
    assert torch.allclose(weights["float32"], weights["bfloat16"], atol=0.05)
    with pytest.raises(UserError, match="precision: got 'int8'"):
        fit(make_model("lenet5", 10), small, precision="int8")


def test_images_that_would_fill_the_device_stay_where_they_are(digits, monkeypatch):
    model, same = make_model("lenet5", 10), make_model("lenet5", 10)
    fit(model, digits, epochs=1)
    monkeypatch.setattr("unlearn_lib.data.splits.free_memory", lambda device: 1000)
    assert digits.train.to(torch.device("meta")) is digits.train
    fit(same, digits, epochs=1)
    assert torch.equal(model.fc3.weight, same.fc3.weight)
