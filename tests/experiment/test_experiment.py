"""An experiment is a specification: it is checked when built, and a finished run is found by what was asked for."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_lib import Experiment, Unlearning, UserError, open_experiment, open_run
from unlearn_lib.evaluation import Judge
from unlearn_lib.experiment import Stopped, comparison_table, experiment
from unlearn_lib.networks import amend_run, class_code
from unlearn_lib.store import write_json

FORGET = [1, 3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """LeNet5 on digits, trained for two epochs, forgetting two classes that are not the first."""
    root = tmp_path_factory.mktemp("trained")
    found = Experiment("lenet5", "digits", FORGET, train_epochs=2, runs_root=root)
    found.train()
    found.golden()
    return found


def forbid(monkeypatch, *names):
    """Let calls of functions that build or read fail."""

    def fail(*args, **kwargs):
        raise AssertionError("nothing is to be built or read")

    for name in names:
        monkeypatch.setattr(name, fail)


def test_building_an_experiment_builds_no_network_and_reads_no_data(monkeypatch, tmp_path):
    forbid(monkeypatch, "unlearn_lib.networks.make_model", "unlearn_lib.experiment.experiment.load_data")
    made = Experiment("resnet50", "digits", [1], runs_root=tmp_path)
    dataclasses.replace(made, seed=3)
    made.variant(seed=4)


@pytest.mark.parametrize("layer", [None, "fc3"])
def test_unlearn_finds_a_finished_run_without_a_network_and_without_impressions(monkeypatch, trained, layer):
    version = f"found-{layer}"
    made = trained.unlearn("distill", layer=layer, version=version)
    forbid(monkeypatch, "unlearn_lib.networks.Run.load_model", "unlearn_lib.experiment.experiment.optimise_impressions")
    again = trained.unlearn("distill", layer=layer, version=version)
    assert again.metrics == made.metrics
    assert again.config["layer"] == "fc3"


def test_a_run_that_was_made_at_the_default_layer_is_that_of_its_name_too(trained):
    made = trained.unlearn("neggrad+", version="layers")
    assert trained.unlearn("neggrad+", layer=made.config["layer"], version="layers").path == made.path


def test_a_run_that_was_asked_for_by_its_layer_is_the_default_one_too(trained):
    made = trained.unlearn("neggrad+", layer="fc3", version="named")
    assert trained.unlearn("neggrad+", version="named").path == made.path


def test_a_run_at_another_layer_is_refused(trained):
    trained.unlearn("distill", layer="fc2", version="inner")
    with pytest.raises(UserError, match="layer: got fc3, but .* was made with fc2"):
        trained.unlearn("distill", version="inner")


def test_a_run_of_format_three_that_does_not_say_what_was_asked_for_is_found(trained):
    made = trained.unlearn("distill", version="before")
    config = {name: value for name, value in made.config.items() if name not in ("asked_layer", "digest", "files")}
    write_json(made.path / "config.json", config)
    assert trained.unlearn("distill", version="before").path == made.path


def test_the_mask_is_one_run_for_any_numbers(trained):
    assert trained.unlearn("mask", epochs=5).path == trained.unlearn("mask").path


def test_variants_share_the_data_unless_the_change_concerns_them(trained, tmp_path):
    assert trained.variant(forget=[7], seed=2).dataset is trained.dataset
    assert trained.variant(flip=True).dataset is not trained.dataset
    assert trained.variant(forget=[7]).forget_classes == [7]


def test_a_callback_sees_impressions_and_epochs_and_stops_before_there_is_a_result(trained):
    stages = []

    def watch(state):
        stages.append(state["stage"])

    trained.compute(Unlearning("distill", samples=3, epochs=2), watch)
    assert stages.count("unlearning") == 2
    assert stages[0] == "impressions"
    with pytest.raises(Stopped):
        trained.compute(Unlearning("distill", samples=4), lambda state: False)


def test_what_was_stopped_has_a_result_that_cannot_be_kept(trained):
    stopped = trained.compute(Unlearning("distill", samples=3), lambda state: state.get("epoch", 0) < 2)
    assert len(stopped.history["forget_loss"]) == 2
    assert not stopped.is_complete
    with pytest.raises(UserError, match="epochs: stopped after 2"):
        trained.keep(stopped)


def test_the_run_that_is_kept_is_what_was_computed(trained):
    computed = trained.compute(Unlearning("neggrad+", samples=5))
    run = trained.keep(computed, "computed")
    assert run.name == f"lenet5-digits-unlearned-{class_code(FORGET)}-neggrad+-s0-computed"
    assert run.metrics["unlearned"] == computed.metrics["unlearned"]
    kept = run.load_model().state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in computed.model.state_dict().items())


def test_config_says_how_pictures_were_preprocessed(trained):
    preprocessing = trained.train().config["preprocessing"]
    assert preprocessing["shape"] == [1, 28, 28]
    assert preprocessing["mean"] == trained.dataset.mean
    assert preprocessing["std"] == trained.dataset.std


def test_an_audit_finds_a_folder_that_was_given_relatively_from_elsewhere(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for label in ("left", "middle", "right"):
        for i in range(8):
            (tmp_path / "here" / "toys" / label).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(random.integers(0, 255, (28, 28), dtype=np.uint8))
            image.save(tmp_path / "here" / "toys" / label / f"{i}.png")
    monkeypatch.chdir(tmp_path / "here")
    made = Experiment("lenet5", "toys", ["right"], train_epochs=1, runs_root=tmp_path / "runs")
    made.train()
    run = made.unlearn("mask")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opened = open_experiment(open_run(tmp_path / "runs", run.name))
    assert opened.dataset.classes == ["left", "middle", "right"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 2**63}, "seed: got 9223372036854775808"),
        ({"seed": float("nan")}, "seed: got nan"),
        ({"train_epochs": "many"}, "train_epochs: got 'many'"),
        ({"train_lr": 0}, "train_lr: got 0"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
        ({"flip": "perhaps"}, "flip: got 'perhaps'"),
        ({"precision": "float8"}, "precision: got 'float8'"),
        ({"memory": float("inf")}, "memory: got inf"),
        ({"device": "tpu9"}, "device: "),
        ({"version": "../up"}, "version-name: "),
    ],
)
def test_an_argument_that_is_not_accepted_is_refused_when_the_experiment_is_built(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        Experiment("lenet5", "digits", runs_root=tmp_path, **changes)


@pytest.mark.parametrize("text", ["1", " 1 ", np.int64(1), torch.tensor(1)])
def test_numbers_in_any_kind_are_the_same_experiment(text):
    assert Experiment("lenet5", "digits", seed=text) == Experiment("lenet5", "digits", seed=1)
    assert Unlearning(epochs=text) == Unlearning(epochs=1)


def test_each_argument_of_an_unlearning_is_checked_once(trained, monkeypatch):
    names = []

    def count(name, *args, _check=experiment.check_number, **limits):
        names.append(name)
        return _check(name, *args, **limits)

    monkeypatch.setattr("unlearn_lib.options.check_number", count)
    trained.unlearn("distill", samples=6, lr=0.01, version="once")
    assert sorted(names) == ["lr", "samples"]


def test_a_run_has_goldens_seconds_and_its_scores_on_the_same_classes(trained):
    golden = trained.golden().metrics
    metrics = trained.unlearn("mask", version="golden").metrics
    assert metrics["seconds"]["golden"] == golden["seconds"]["golden"] > 0
    assert golden["seconds"]["train"] is None
    assert metrics["golden"] == golden["golden"]
    assert metrics["golden"]["forget_accuracy"] is not None


def test_the_comparison_has_the_seconds_of_each_network(trained):
    run = trained.unlearn("distill", samples=3, epochs=1, version="seconds")
    metrics = run.metrics
    seconds = {"train": 5.0, "golden": 7.0, "impressions": 2.0, "unlearn": 0.5}
    table = comparison_table([amend_run(run, metrics | {"seconds": seconds})])
    assert table["seconds"].tolist() == [5.0, 0.0, 2.5, 7.0]
    accuracies = [100 * metrics[name]["retain_accuracy"] for name in ("original", "masked", "unlearned", "golden")]
    assert table["retain"].tolist() == pytest.approx(accuracies, abs=0.01)


def test_carry_over_of_a_run_has_its_seed(trained, monkeypatch):
    seeds = []
    passed = {"forget_mass": 0.0, "retain_agreement": 1.0}
    monkeypatch.setattr(experiment, "carry_over", lambda *args, seed=0, **kwargs: seeds.append(seed) or passed)
    other = trained.variant(seed=3)
    other.train()
    other.unlearn("mask")
    assert seeds == [3]


def test_a_judge_of_another_layer_judges_nothing(trained):
    judge = Judge.of_original(trained.original(), trained.load(trained.original()), trained.dataset, "fc3")
    unlearning = Unlearning("distill", layer="fc2", samples=3, epochs=2)
    with_judge, without = (trained.compute(unlearning, judge=each) for each in (judge, None))
    assert with_judge.metrics["unlearned"] == without.metrics["unlearned"]


def test_a_run_of_an_original_that_was_trained_again_is_not_found(tmp_path):
    first = Experiment("lenet5", "digits", FORGET, train_epochs=1, runs_root=tmp_path)
    first.train()
    first.unlearn("mask")
    again = first.variant(train_lr=1e-3, force=True)
    again.train()
    with pytest.raises(UserError, match="trained again since"):
        first.find_unlearned(Unlearning("mask"))


def test_the_default_unlearning_is_not_a_run_that_was_asked_for_at_another_layer(trained):
    run = trained.unlearn("distill", layer="fc2", samples=3, epochs=1, version="asked")
    assert run.config["asked_layer"] == "fc2"
    with pytest.raises(UserError, match="layer: got fc3, but .* was made with fc2"):
        trained.find_unlearned(Unlearning("distill", samples=3, epochs=1), "asked")
