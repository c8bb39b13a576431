import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_lib import Experiment, Split, UserError, evaluate, fit, make_model, open_run, store
from unlearn_lib.experiment.steps import log_accuracy
from unlearn_lib.networks import amend_run
from unlearn_lib.networks.runs import load_weights, run_names
from unlearn_lib.store import load_tensors, save_tensors

FORGET = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def unlearned(experiment):
    return experiment.unlearn("distill")


def test_a_run_holds_what_the_next_step_needs_and_no_pickle(experiment, unlearned):
    fresh = experiment.unlearn("distill", version="fresh")  # one that no other test has audited
    assert {p.name for p in fresh.path.iterdir()} == {
        "config.json",
        "metrics.json",
        "history.json",
        "model.safetensors",
    }
    assert unlearned.name == "lenet5-digits-unlearned-1-4-distill-s0"
    assert fresh.name == unlearned.name + "-fresh"
    assert unlearned.config["original_run"] == "lenet5-digits-s0"
    assert unlearned.config["golden_run"] == "lenet5-digits-golden-1-4-s0"
    assert unlearned.config["forget"] == FORGET
    assert {"method", "layer", "lr", "epochs", "samples", "recipe", "seed", "versions", "device"} <= set(
        unlearned.config
    )


def test_metrics_have_the_four_models_side_by_side(unlearned):
    metrics = json.loads((unlearned.path / "metrics.json").read_text())
    assert set(metrics) == {"original", "masked", "unlearned", "golden", "seconds", "carry_over", "audit"}
    assert set(metrics["carry_over"]) == {"forget_mass", "retain_agreement"}
    assert set(metrics["seconds"]) == {"train", "golden", "impressions", "unlearn"}
    for name in ("original", "masked", "unlearned", "golden"):
        assert set(metrics[name]) == {
            "overall_accuracy",
            "any_forget",
            "forget_accuracy",
            "retain_accuracy",
            "per_class_accuracy",
            "confusion",
        }


def test_a_saved_model_read_back_gives_the_same_metrics(experiment, unlearned):
    assert evaluate(unlearned.load_model(), experiment.dataset, FORGET) == unlearned.metrics["unlearned"]


def test_a_second_call_reuses_the_first(experiment, unlearned):
    before = (unlearned.path / "model.safetensors").stat().st_mtime_ns
    assert experiment.unlearn("distill").metrics == unlearned.metrics
    assert (unlearned.path / "model.safetensors").stat().st_mtime_ns == before


def test_other_arguments_are_refused_with_the_two_ways_out(experiment, unlearned):
    with pytest.raises(ValueError, match="lr: got 0.01, but .* --force makes it again, --version-name keeps both"):
        experiment.unlearn("distill", lr=0.01)


def test_force_makes_it_anew_and_a_version_keeps_both(experiment, runs, unlearned):
    both = Experiment("lenet5", "digits", forget=FORGET, train_epochs=2, runs_root=runs, version="b")
    both.train()
    assert both.unlearn("mask").name == "lenet5-digits-unlearned-1-4-mask-s0-b"
    assert both.unlearn("mask").config["version"] == "b"
    with pytest.raises(ValueError, match="epochs: got 3"):
        Experiment("lenet5", "digits", train_epochs=3, runs_root=runs, version="b").train()
    forced = Experiment("lenet5", "digits", train_epochs=3, runs_root=runs, version="b", force=True)
    assert len(forced.train().history["lr"]) == 3


def test_what_was_made_from_a_model_that_has_changed_is_not_reused(runs):
    def experiment(**more):
        return Experiment("lenet5", "digits", [0], train_epochs=1, runs_root=runs, version="c", **more)

    experiment().train()
    first = experiment().impressions(samples=2)
    assert torch.equal(experiment().impressions(samples=2).x, first.x)
    experiment().unlearn("mask")
    path = runs / "lenet5-digits-s0-c" / "model.safetensors"
    save_tensors(path, make_model("lenet5", 10, seed=5).state_dict())
    assert not torch.equal(experiment().impressions("fc3", samples=2).x, first.x)
    with pytest.raises(ValueError, match="was made from an original that has been trained again since"):
        experiment().unlearn("mask")


def test_impressions_lie_in_the_models_folder_and_are_loaded_again(experiment, runs):
    first = experiment.impressions("fc3", samples=7)
    path = runs / "lenet5-digits-s0" / "impressions-fc3-natural.safetensors"
    assert load_tensors(path)[0]["x"].shape == (70, 84)
    second = experiment.impressions("fc3", samples=7)
    assert torch.equal(first.x, second.x)
    assert second.seconds == first.seconds


def test_golden_joins_an_unlearned_run_when_it_is_trained_later(runs):
    experiment = Experiment("lenet5", "digits", [0], train_epochs=1, runs_root=runs, version="d")
    experiment.train()
    assert experiment.unlearn("mask").metrics["golden"] is None
    golden = experiment.golden()
    run = experiment.unlearn("mask")
    assert run.metrics["golden"]["forget_accuracy"] == golden.metrics["golden"]["forget_accuracy"] == 0
    assert open_run(runs, run.name).config["golden_run"] == golden.name


def test_an_audit_goes_when_another_golden_network_takes_the_place_of_the_one_it_compared_with(runs):
    experiment = Experiment("lenet5", "digits", [0], train_epochs=1, runs_root=runs, version="g")
    experiment.train()
    run = experiment.unlearn("mask")
    amend_run(run, run.metrics | {"audit": {"probe": 1}})
    golden = experiment.golden()
    assert experiment.unlearn("mask").metrics["audit"] == {"probe": 1}  # golden joins, with which it was compared
    answers = golden.metrics["golden"] | {"confusion": [row[::-1] for row in golden.metrics["golden"]["confusion"]]}
    amend_run(golden, golden.metrics | {"golden": answers})
    assert experiment.unlearn("mask").metrics["audit"] is None


def test_a_failure_midway_is_a_sentence_and_leaves_no_run(runs, monkeypatch):
    experiment = Experiment("lenet5", "digits", train_epochs=1, runs_root=runs, version="e")
    run = experiment.train()

    def full_disk(path, content):
        with store.explain_disk_errors(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearn_lib.networks.runs.write_json", full_disk)
    with pytest.raises(UserError, match="cannot be written .No space left on device."):
        dataclasses.replace(experiment, force=True).train()
    assert run.name not in run_names(runs)
    assert not [p for p in run.path.iterdir() if p.name.endswith(".new")]
    assert not [p for p in runs.iterdir() if p.name.startswith(".lenet5-digits-s0-e")]


def test_a_truncated_model_file_is_named(experiment, tmp_path):
    shutil.copy(experiment.original().path / "model.safetensors", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        load_weights(make_model("lenet5", 10), path)


@pytest.mark.parametrize("other", [("karpathynet", 10), ("lenet5", 7)])
def test_a_model_file_of_another_network_is_refused(experiment, other):
    with pytest.raises(ValueError, match="is not a .* for these classes"):
        load_weights(make_model(*other), experiment.original().path / "model.safetensors")


def test_an_unknown_run_is_refused_with_those_that_there_are(runs, experiment):
    with pytest.raises(FileNotFoundError, match="lenet5-digits-s0"):
        open_run(runs, "lenet5-mnist-s0")


# A run is known by what it was made from, not by its folder's name.


def pictures(folder, seed):
    """An image folder of two classes, eight pictures each."""
    for label in ("left", "right"):
        for i, image in enumerate(np.random.default_rng(seed).integers(0, 255, (8, 8, 8, 3), dtype=np.uint8)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / label / f"{i}.png")
    return folder


def on_folder(folder, root, **changes):
    return Experiment("resnet18", str(folder), ["left"], size=32, train_epochs=1, runs_root=root, **changes)


def test_pictures_changed_in_place_are_other_pictures(tmp_path):
    run = on_folder(pictures(tmp_path / "toys", 0), tmp_path / "runs").train()
    assert on_folder(tmp_path / "toys", tmp_path / "runs").train().config == run.config
    pictures(tmp_path / "toys", 1)
    with pytest.raises(UserError, match="data: the pictures differ from those that resnet18-toys-s0 was made from"):
        on_folder(tmp_path / "toys", tmp_path / "runs").train()


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_pictures_added_removed_or_renamed_make_another_data_set(tmp_path, change):
    folder = pictures(tmp_path / "toys", 0)
    on_folder(folder, tmp_path / "runs").train()
    first = folder / "left" / "0.png"
    if change == "added":
        (folder / "left" / "8.png").write_bytes(first.read_bytes())
    else:
        first.rename(tmp_path / "0.png" if change == "removed" else folder / "left" / "9.png")
    with pytest.raises(UserError, match="data: the pictures differ"):
        on_folder(folder, tmp_path / "runs").train()


def test_a_folder_of_the_same_last_name_elsewhere_is_another_data_set(tmp_path):
    on_folder(pictures(tmp_path / "a" / "toys", 0), tmp_path / "runs").train()
    with pytest.raises(UserError, match="data: the pictures differ"):
        on_folder(pictures(tmp_path / "b" / "toys", 1), tmp_path / "runs").unlearn("mask")


def test_another_data_root_is_another_data_set(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        for split in ("train", "test"):
            pictures(tmp_path / name / "CIFAR10" / split, seed)

    def experiment(name):
        numbers = {"size": 32, "train_epochs": 1, "runs_root": tmp_path / "runs"}
        return Experiment("resnet18", "cifar10", data_root=tmp_path / name, **numbers)

    experiment("a").train()
    with pytest.raises(UserError, match="data: the pictures differ"):
        experiment("b").train()


def test_a_replaced_weights_file_is_another_start(tmp_path):
    file = tmp_path / "start.safetensors"

    def experiment():
        return on_folder(pictures(tmp_path / "toys", 0), tmp_path / "runs", weights=str(file))

    save_tensors(file, make_model("resnet18", 2, size=32, seed=1).state_dict())
    experiment().train()
    save_tensors(file, make_model("resnet18", 2, size=32, seed=2).state_dict())
    with pytest.raises(UserError, match="weights: the file differs from that which"):
        experiment().train()


def test_a_golden_model_of_another_training_stands_in_no_table(runs, caplog):
    def experiment(epochs, force=False):
        numbers = {"train_epochs": epochs, "runs_root": runs, "version": "g", "force": force}
        return Experiment("lenet5", "digits", [0], **numbers)

    experiment(1).train()
    experiment(1).golden()
    assert experiment(1).unlearn("mask").metrics["golden"] is not None
    experiment(2, force=True).train()
    run = experiment(2, force=True).unlearn("mask")
    assert run.metrics["golden"] is None
    assert run.config["golden_run"] is None
    assert experiment(2).finished_golden() is None
    assert "left out of the table" in caplog.text


def test_what_memory_gives_deepinversion_is_part_of_what_it_made(tmp_path):
    experiment = on_folder(pictures(tmp_path / "toys", 0), tmp_path / "runs")
    experiment.train()
    numbers = {"samples": 3, "recipe": "deepinversion", "steps": 1}
    wide = experiment.impressions("input", **numbers)
    narrow = dataclasses.replace(experiment, memory=3.0).impressions("input", **numbers)
    assert not torch.equal(wide.x, narrow.x)


def test_what_memory_gives_drawn_pictures_is_part_of_the_run_that_was_unlearned_with_them(experiment):
    numbers = {"layer": "fc3", "samples": 3, "recipe": "drawn", "epochs": 1, "version": "memory"}
    experiment.unlearn(**numbers)
    narrow = dataclasses.replace(experiment, memory=0.5)
    with pytest.raises(UserError, match="memory: got 0.5, but .* was made with 512.0"):
        narrow.unlearn(**numbers)
    assert experiment.unlearn("mask").path == narrow.unlearn("mask").path  # the same, whatever the memory


def test_a_run_of_the_older_format_is_recognised(experiment, runs, unlearned):
    old = runs / "lenet5-digits-s0-old"
    shutil.copytree(experiment.original().path, old)
    config = json.loads((old / "config.json").read_text())
    del config["format"], config["data_digest"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="run: lenet5-digits-s0-old has an older format"):
        dataclasses.replace(experiment, version="old").train()


def test_an_experiment_reads_no_pictures_before_they_are_needed(runs):
    experiment = Experiment("lenet5", "mnist", ["no such class"], data_root="/nowhere", runs_root=runs)
    assert "dataset" not in vars(experiment)
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.seed = 1


def test_classes_that_can_be_gone_through_once_are_those_of_every_variant(runs):
    experiment = Experiment("lenet5", "digits", map(int, "12"), runs_root=runs)
    assert experiment.forget_classes == dataclasses.replace(experiment, seed=1).forget_classes == [1, 2]


def test_no_training_run_is_made_of_a_loss_that_is_not_finite(runs):
    experiment = Experiment("lenet5", "digits", train_lr=1e6, train_epochs=2, runs_root=runs, version="nan")
    with pytest.raises(UserError, match=r"lr: got 1e\+06"):
        experiment.train()
    with pytest.raises(FileNotFoundError):
        experiment.original()


def test_validation_without_pictures_keeps_the_trained_network(experiment):
    data = dataclasses.replace(
        experiment.dataset, val=Split(experiment.dataset.val.images[:0], experiment.dataset.val.labels[:0])
    )
    model, fresh = make_model("lenet5", 10), make_model("lenet5", 10)
    assert fit(model, data, epochs=1)["val_accuracy"] == [None]
    assert not torch.equal(model.fc3.weight, fresh.fc3.weight)


def test_golden_without_test_pictures_of_the_retain_classes_is_told_as_such(caplog):
    caplog.set_level("INFO")
    run = SimpleNamespace(name="golden-run", metrics={"golden": {"retain_accuracy": None, "forget_accuracy": None}})
    log_accuracy(run, [1], "reused")
    assert "golden-run: reused, no retain pictures to test" in caplog.text
