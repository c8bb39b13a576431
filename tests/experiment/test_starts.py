"""What a training starts from: weights that fit are taken as they are, and golden never knows the forget classes."""

import pytest
import torch

from unlearn_lib import Experiment, UserError, open_experiment
from unlearn_lib.experiment import comparison_table
from unlearn_lib.networks import amend_run

FORGET = [1, 3]


@pytest.fixture(scope="module")
def state(experiment):
    """The weights of a trained LeNet5, as somebody else would bring them."""
    return experiment.load(experiment.original()).state_dict()


@pytest.fixture
def start(state, tmp_path):
    """An experiment with these weights; `outputs` cuts the head."""

    def make(outputs=10, **changes):
        path = tmp_path / f"mine-{outputs}.pth"
        torch.save({name: t[:outputs] if "fc3" in name else t for name, t in state.items()}, path)
        given = {"weights": str(path), "train_epochs": 1, "runs_root": tmp_path / "runs"}
        return Experiment("lenet5", "digits", FORGET, **given | changes)

    return make


def bits(run):
    return run.load_model().state_dict()


def test_weights_that_fit_are_the_original(start, state, caplog):
    caplog.set_level("INFO")
    run = start().train()
    assert all(torch.equal(bits(run)[name], tensor) for name, tensor in state.items())
    assert run.history == {}
    assert run.config["started_from"] == "the given weights as they are"
    assert "original starts from the given weights as they are" in caplog.text


def test_weights_that_fit_are_trained_where_fine_tuning_is_asked_for(start, state):
    run = start(fine_tune=True).train()
    assert not torch.equal(bits(run)["fc3.weight"], state["fc3.weight"])
    assert len(run.history["lr"]) == 1
    assert run.config["started_from"] == "the given weights, fine-tuned"


def test_weights_for_other_classes_get_a_new_head_and_are_trained(start):
    run = start(outputs=7).train()
    assert len(run.history["lr"]) == 1
    assert run.config["started_from"] == "the given weights with a new head"


def test_weights_as_they_are_and_fine_tuned_are_different_runs(start):
    start().train()
    with pytest.raises(UserError, match="was made with"):
        start(fine_tune=True).train()


@pytest.mark.parametrize("fine_tune", [False, True])
def test_golden_starts_fresh_where_the_given_head_knows_the_forget_classes(start, fine_tune):
    run = start(fine_tune=fine_tune).golden()
    assert run.config["started_from"] == "fresh weights"
    assert run.metrics["golden"]["forget_accuracy"] < 0.05


def test_golden_starts_from_the_given_weights_where_their_head_is_for_other_classes(start):
    assert start(outputs=7).golden().config["started_from"] == "the given weights with a new head"


def test_golden_starts_from_a_backbone_that_is_named_and_not_from_its_head(start, state, tmp_path):
    torch.save(state, tmp_path / "backbone.pth")
    run = start(golden_weights=str(tmp_path / "backbone.pth"), train_lr=1e-9).golden()
    assert run.config["started_from"] == "the given weights with a new head"
    assert torch.allclose(bits(run)["conv1.weight"], state["conv1.weight"], atol=1e-5)
    assert not torch.allclose(bits(run)["fc3.weight"], state["fc3.weight"], atol=1e-2)


def test_golden_with_a_backbone_of_its_own_stands_in_the_table_and_is_found_by_an_audit(start, state, tmp_path):
    torch.save(state, tmp_path / "backbone.pth")
    given = start(golden_weights=str(tmp_path / "backbone.pth"))
    given.train()
    golden = given.golden()
    run = given.unlearn("mask")
    assert run.config["golden_run"] == golden.name
    assert open_experiment(run).finished_golden().name == golden.name


def test_a_golden_network_that_is_right_on_forget_pictures_is_marked(start, caplog):
    given = start(fine_tune=True)
    given.train()
    golden = given.golden()
    confusion = torch.tensor(golden.metrics["golden"]["confusion"])
    known = torch.diag(confusion.sum(1)).tolist()  # right on everything
    block = golden.metrics["golden"] | {"confusion": known, "forget_accuracy": 1.0}
    amend_run(golden, golden.metrics | {"golden": block})
    given.golden()
    assert "right on 100.0 % of the forget pictures, so it is no standard" in caplog.text
    assert "golden, knows forget" in comparison_table([given.unlearn("mask")]).index
