import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_lib import Experiment, evaluate, make_model, open_run, runs_root
from unlearn_lib.networks.runs import class_code, load_weights, run_name
from unlearn_lib.store import load_tensors, save_tensors

FORGET = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def unlearned(lab):
    return lab.unlearn("distill")


@pytest.mark.parametrize(
    "classes, code",
    [([1, 2, 3, 4], "1-4"), ([8, 3, 4], "3_4_8"), ([0], "0"), ([0, 1], "0_1"), ([0, 1, 2, 5, 7, 8, 9], "0-2_5_7-9")],
)
def test_classes_are_named_by_index_and_rows_of_three_by_their_ends(classes, code):
    assert class_code(classes) == code


@given(*[st.sets(st.integers(0, 999), min_size=1)] * 2)
def test_a_code_is_short_and_another_set_has_another(first, second):
    assert len(class_code(first)) <= 40
    assert (class_code(first) == class_code(second)) == (first == second)


def test_a_run_holds_what_the_next_step_needs_and_no_pickle(lab, unlearned):
    fresh = lab.unlearn("distill", version="fresh")  # one that no other test has audited
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
    assert set(metrics) == {"original", "masked", "unlearned", "golden", "seconds", "audit"}
    assert set(metrics["seconds"]) == {"train", "golden", "impressions", "unlearn"}
    for name in ("original", "masked", "unlearned", "golden"):
        assert set(metrics[name]) == {
            "overall_accuracy",
            "forget_accuracy",
            "retain_accuracy",
            "per_class_accuracy",
            "confusion",
        }


def test_a_saved_model_read_back_gives_the_same_metrics(lab, unlearned):
    assert evaluate(unlearned.load_model(), lab.dataset, FORGET) == unlearned.metrics["unlearned"]


def test_a_second_call_reuses_the_first(lab, unlearned):
    before = (unlearned.path / "model.safetensors").stat().st_mtime_ns
    assert lab.unlearn("distill").metrics == unlearned.metrics
    assert (unlearned.path / "model.safetensors").stat().st_mtime_ns == before


def test_other_arguments_are_refused_with_the_two_ways_out(lab, unlearned):
    with pytest.raises(ValueError, match="lr: 0.01 given, but .* --force makes it anew, --version-name keeps both"):
        lab.unlearn("distill", lr=0.01)


def test_force_makes_it_anew_and_a_version_keeps_both(lab, runs, unlearned):
    both = Experiment("lenet5", "digits", forget=FORGET, train_epochs=2, runs_root=runs, version="b", say=str)
    both.train()
    assert both.unlearn("mask").name == "lenet5-digits-unlearned-1-4-mask-s0-b"
    assert both.unlearn("mask").config["version"] == "b"
    with pytest.raises(ValueError, match="epochs: 3 given"):
        Experiment("lenet5", "digits", train_epochs=3, runs_root=runs, version="b").train()
    forced = Experiment("lenet5", "digits", train_epochs=3, runs_root=runs, version="b", force=True, say=str)
    assert len(forced.train().history["lr"]) == 3


def test_what_was_made_from_a_model_that_has_changed_is_not_reused(runs):
    def lab(**more):
        return Experiment("lenet5", "digits", [0], train_epochs=1, runs_root=runs, version="c", say=str, **more)

    lab().train()
    first = lab().impressions(samples=2)
    assert torch.equal(lab().impressions(samples=2).x, first.x)
    lab().unlearn("mask")
    path = runs / "lenet5-digits-s0-c" / "model.safetensors"
    save_tensors(path, make_model("lenet5", 10, seed=5).state_dict())
    assert not torch.equal(lab().impressions("fc3", samples=2).x, first.x)
    with pytest.raises(ValueError, match="original-file"):
        lab().unlearn("mask")


def test_impressions_lie_in_the_models_folder_and_are_loaded_again(lab, runs):
    first = lab.impressions("fc3", samples=7)
    path = runs / "lenet5-digits-s0" / "impressions-fc3-calibrated.safetensors"
    assert load_tensors(path)[0]["x"].shape == (70, 84)
    second = lab.impressions("fc3", samples=7)
    assert torch.equal(first.x, second.x)
    assert second.seconds == first.seconds


def test_golden_joins_an_unlearned_run_when_it_is_trained_later(runs):
    lab = Experiment("lenet5", "digits", [0], train_epochs=1, runs_root=runs, version="d", say=str)
    lab.train()
    assert lab.unlearn("mask").metrics["golden"] is None
    golden = lab.golden()
    run = lab.unlearn("mask")
    assert run.metrics["golden"]["forget_accuracy"] == golden.metrics["golden"]["forget_accuracy"] == 0
    assert open_run(runs, run.name).config["golden_run"] == golden.name


def test_a_failure_midway_leaves_the_earlier_run_untouched(runs, monkeypatch):
    lab = Experiment("lenet5", "digits", train_epochs=1, runs_root=runs, version="e", say=str)
    run = lab.train()
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearn_lib.networks.runs.write_json", full_disk)
    lab.force = True
    with pytest.raises(OSError, match="No space left"):
        lab.train()
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before
    assert not [p for p in runs.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_model_file_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="model file: .* is damaged or no safetensors file"):
        load_weights(make_model("lenet5", 10), tmp_path / "model.safetensors")


def test_a_truncated_model_file_is_named(lab, tmp_path):
    shutil.copy(lab.original().path / "model.safetensors", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        load_weights(make_model("lenet5", 10), path)


@pytest.mark.parametrize("other", [("karpathynet", 10), ("lenet5", 7)])
def test_a_model_file_of_another_network_is_refused(lab, other):
    with pytest.raises(ValueError, match="is not a .* for these classes"):
        load_weights(make_model(*other), lab.original().path / "model.safetensors")


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="runs-root: /dev/null/runs given"):
        runs_root("/dev/null/runs")


@pytest.mark.parametrize("version", ["../up", "a/b"])
def test_a_version_name_stays_inside_the_runs_folder(version):
    with pytest.raises(ValueError, match="version-name"):
        run_name("lenet5", "digits", 0, version=version)


def test_an_unknown_run_is_refused_with_those_that_there_are(runs, lab):
    with pytest.raises(FileNotFoundError, match="lenet5-digits-s0"):
        open_run(runs, "lenet5-mnist-s0")
