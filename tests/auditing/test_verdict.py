"""The audit of a run: bands and verdicts on numbers, the audit of a tiny network, its table, and the shell."""

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from tiny import TinyExperiment, changed, tiny_data

from unlearn_lib import (
    UserError,
    audit_run,
    audit_table,
    evaluate,
    open_experiment,
    open_run,
    predict_logits,
    probe_forget_classes,
    relearn_curve,
    relearn_time,
    trained_seeds,
    verdict,
    zrf,
)
from unlearn_lib.__main__ import main
from unlearn_lib.auditing import golden_band
from unlearn_lib.auditing.verdict import ROWS
from unlearn_lib.networks import amend_run

FORGET = [1, 3]
MODELS = ("original", "masked", "unlearned", "golden")


def test_a_band_by_hand():
    band = golden_band([1.0, 2.0, 3.0, 4.0, 10.0])  # t(4, 0.975) = 2.7764, std = sqrt(50 / 4), sqrt(1 + 1/5) = 1.0954
    half = 2.776445 * math.sqrt(12.5) * 1.095445
    assert (band["mean"], band["n"]) == (4.0, 5)
    assert band["std"] == pytest.approx(math.sqrt(12.5))
    assert band["high"] == pytest.approx(4 + half, abs=1e-4)
    assert band["low"] == pytest.approx(4 - half, abs=1e-4)


def test_a_band_of_equal_values_is_a_point():
    band = golden_band([0.5] * 3)
    assert (band["low"], band["high"], band["std"]) == (0.5, 0.5, 0.0)


def test_a_band_needs_two_networks():
    band = golden_band([0.5, None])
    assert (band["values"], band["mean"], band["n"], band["low"]) == ([0.5], 0.5, 1, None)
    assert golden_band([None, None])["n"] == 0
    assert verdict(0.5, band) == verdict(0.5, golden_band([])) == "no band"


def band_of(mean, std, n):
    """A band with this mean and standard deviation."""
    values = torch.arange(n, dtype=torch.double)
    return golden_band((mean + std * (values - values.mean()) / values.std()).tolist())


@pytest.mark.parametrize(
    "value, band, word",
    [
        (5.0, band_of(5.5, 0.5, 5), "inside"),
        (3.0, band_of(5.0, 0.5, 5), "outside by -4.0 sd"),
        (None, band_of(50.0, 5.0, 5), "outside by +190.0 sd"),  # LIMIT is 1000
        (0.1, golden_band([0.0] * 5), "outside"),
        (0.0, golden_band([0.0] * 5), "inside"),
        (7.8, band_of(3.0, 1.5811, 5), "inside"),
        (7.82, band_of(3.0, 1.5811, 5), "outside by +3.0 sd"),
        (-1.82, band_of(3.0, 1.5811, 5), "outside by -3.0 sd"),
        (14.0, band_of(0.0, 1.0, 2), "inside"),  # t(1, 0.975) = 12.706
        (15.6, band_of(0.0, 1.0, 2), "outside by +15.6 sd"),
    ],
)
def test_a_verdict_is_inside_or_outside_by_standard_deviations(value, band, word):
    assert verdict(value, band) == word


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_true_golden_network_is_refused_in_one_case_of_twenty(n):
    draws = torch.randn(3000, n + 1, generator=torch.Generator().manual_seed(n), dtype=torch.double)
    refused = sum(verdict(row[0], golden_band(row[1:])) != "inside" for row in (70 + 3 * draws).tolist())
    assert refused / 3000 == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 3000))


def limit_relearning(monkeypatch, batches):
    for room in ("attacks", "verdict"):
        monkeypatch.setattr(sys.modules[f"unlearn_lib.auditing.{room}"], "LIMIT", batches)


LIMIT = 300  # golden networks relearn within it, the masked does not


@pytest.fixture(scope="module")
def audited_tiny(tmp_path_factory):
    experiment = TinyExperiment(tmp_path_factory.mktemp("tiny"), seed=3, data=tiny_data(noise=75.0))
    experiment.train()
    with pytest.MonkeyPatch.context() as monkeypatch:
        limit_relearning(monkeypatch, LIMIT)
        return experiment, audit_run(experiment, experiment.unlearn(), seeds=[3, 4, 6])


@pytest.fixture
def tiny(audited_tiny, tmp_path, monkeypatch):
    """A copy of an experiment of seed 3, its unlearned run, and the audit with golden networks of three seeds."""
    limit_relearning(monkeypatch, LIMIT)
    experiment, audited = audited_tiny
    experiment = replace(experiment, root=Path(shutil.copytree(experiment.root, tmp_path / "runs")))
    audited = open_run(experiment.root, audited.name)
    return experiment, audited, audited.metrics["audit"]


def test_an_audit_has_every_metric_of_every_model(tiny):
    _, audited, block = tiny
    assert block == open_run(audited.path.parent, audited.name).metrics["audit"]
    for row in ROWS:
        assert {*MODELS, "gap", "band", "verdict"} <= row.find(block).keys()
    assert block["seeds"] == [3, 4, 6]
    assert block["layer"] == "head"


def test_an_audit_agrees_with_the_evaluation(tiny):
    experiment, audited, block = tiny
    golden = experiment.finished_golden().metrics["golden"]
    assert block["forget_accuracy"]["unlearned"] == audited.metrics["unlearned"]["forget_accuracy"] == 0
    assert block["retain_accuracy"]["golden"] == golden["retain_accuracy"]
    assert block["target"] == pytest.approx(0.95 * block["forget_accuracy"]["original"])


def test_the_gap_is_the_unlearned_networks_minus_goldens_value(tiny):
    _, _, block = tiny
    assert block["probe"]["gap"] == block["probe"]["unlearned"] - block["probe"]["golden"] > 0
    assert block["relearn"]["gap"] is None  # the unlearned network did not relearn


def test_the_mask_and_the_run_keep_the_originals_features(tiny):
    _, _, block = tiny
    assert block["probe"]["unlearned"] == block["probe"]["masked"] == block["probe"]["original"]
    assert set(block["moved"]["unlearned"]) == {"head.weight", "head.bias"}
    assert block["js"]["forget"]["golden"] == pytest.approx(0, abs=1e-9)


def test_the_index_divides_every_relearn_time_by_goldens(tiny):
    _, _, block = tiny
    times = block["relearn"]["band"]["golden"]["values"]
    index = block["relearn"]["ain"]
    assert block["relearn"]["golden"] == times[0]
    assert (index["original"], index["masked"], index["golden"]) == (0, None, 1)
    assert index["band"]["golden"]["values"] == [time / times[0] for time in times]
    assert index["verdict"] == block["relearn"]["verdict"] != "inside"


def test_each_metric_has_the_band_of_the_golden_networks_and_its_verdict(tiny):
    experiment, _, block = tiny
    variants = [experiment.variant(seed=seed) for seed in (3, 4, 6)]
    golden = [evaluate(e.load(e.finished_golden()), e.dataset, FORGET)["retain_accuracy"] for e in variants]
    original = [evaluate(e.load(e.finished_original()), e.dataset, FORGET)["retain_accuracy"] for e in variants]
    metric = block["retain_accuracy"]
    assert metric["band"] == {"original": golden_band(original), "golden": golden_band(golden)}
    assert metric["verdict"] == verdict(metric["unlearned"], metric["band"]["golden"])


def test_golden_is_left_out_of_the_bands_of_what_compares_with_golden(tiny):
    _, _, block = tiny
    counts = {row.path: row.find(block)["band"]["golden"]["n"] for row in ROWS}
    compared = {"js.forget", "js.retain", "agreement.forget", "agreement.retain", "misplaced"}
    assert {path for path, n in counts.items() if n == 2} == compared
    assert {path for path, n in counts.items() if n == 3} == counts.keys() - compared


def test_a_golden_network_that_knows_the_forget_classes_makes_no_band_and_is_marked(tiny, caplog):
    experiment, audited, block = tiny
    golden = experiment.variant(seed=4).finished_golden()
    answers = torch.tensor(golden.metrics["golden"]["confusion"]).sum(1).diag().tolist()  # right on everything
    amend_run(golden, golden.metrics | {"golden": golden.metrics["golden"] | {"confusion": answers}})
    again = audit_run(experiment, audited, seeds=[3, 4, 6]).metrics["audit"]
    assert again["golden_knows_forget"] == [4]
    assert again["probe"]["band"]["golden"]["n"] == block["probe"]["band"]["golden"]["n"] - 1
    assert again["probe"]["band"]["original"] == block["probe"]["band"]["original"]
    assert "golden of seeds [4] knows the forget classes" in caplog.text
    assert "golden, knows F" in audit_table({"run": again})
    assert "golden" in audit_table({"run": block})


def test_each_golden_network_relearns_towards_the_target_of_its_own_original(tiny):
    experiment, _, block = tiny
    for seed, time in zip((3, 4, 6), block["relearn"]["band"]["golden"]["values"], strict=True):
        other = experiment.variant(seed=seed)
        target = 0.95 * evaluate(other.load(other.finished_original()), other.dataset, FORGET)["forget_accuracy"]
        curve = relearn_curve(other.load(other.finished_golden()), other.dataset, FORGET, target, limit=LIMIT)
        assert time == relearn_time(curve, target)
    accuracies = block["forget_accuracy"]["band"]["original"]["values"]
    assert accuracies[0] != accuracies[1]  # else one target would do for both


def test_golden_networks_that_did_not_relearn_count_as_the_limit_in_their_band(tmp_path, monkeypatch):
    limit_relearning(monkeypatch, 1)
    experiment = TinyExperiment(tmp_path)
    experiment.train()
    times = audit_run(experiment, experiment.unlearn(), seeds=[0, 1]).metrics["audit"]["relearn"]
    assert times["golden"] is None
    assert times["band"]["golden"]["values"] == [1, 1]
    assert times["ain"]["band"]["golden"]["n"] == 0
    assert times["ain"]["verdict"] == "no band"


def test_trained_seeds_have_an_original_and_a_golden_network_of_these_classes(tiny):
    experiment, _, _ = tiny
    experiment.variant(seed=7).train()  # without a golden network
    far = experiment.variant(seed=2026)
    far.train()
    assert trained_seeds(experiment) == [3, 4, 6]
    far.golden()
    assert trained_seeds(experiment) == [3, 4, 6, 2026]
    assert trained_seeds(replace(experiment, forget_classes=(0, 2))) == []


def test_by_default_the_band_is_of_all_trained_seeds(tiny):
    experiment, audited, block = tiny
    assert audit_run(experiment, audited).metrics["audit"] == block


def test_an_audit_trains_the_networks_of_a_new_seed(tiny):
    experiment, audited, _ = tiny
    block = audit_run(experiment, audited, seeds=8).metrics["audit"]
    assert block["seeds"] == [3, 8]
    assert trained_seeds(experiment) == [3, 4, 6, 8]


@pytest.mark.parametrize("seed", [-1, 1.5, "x", 2**32])
def test_an_audit_refuses_what_is_no_seed(tiny, seed):
    experiment, audited, _ = tiny
    with pytest.raises(UserError, match="seed: got"):
        audit_run(experiment, audited, seeds=[seed])


def test_a_finished_audit_is_read_again_and_logs_nothing(tiny, caplog):
    experiment, audited, block = tiny
    caplog.set_level("INFO", "unlearn_lib")
    assert audit_run(experiment, audited).metrics["audit"] == block
    assert caplog.messages == []


def test_force_audits_every_network_again(tiny, caplog):
    experiment, audited, block = tiny
    caplog.set_level("INFO", "unlearn_lib")
    again = audit_run(experiment, audited, seeds=[3], force=True).metrics["audit"]
    assert again["probe"]["golden"] == block["probe"]["golden"]
    assert caplog.messages == [
        "tiny-tiny-s3: audited",
        "tiny-tiny-golden-1_3-s3: audited",
        "tiny-tiny-s3-masked: audited",
        "tiny-tiny-unlearned-s3: audited",
    ]


def test_a_run_is_locked_while_it_is_audited(tiny, monkeypatch):
    experiment, audited, _ = tiny

    def audit(*args, **numbers):
        with pytest.raises(Timeout):
            FileLock(experiment.root / ".locks" / f"{audited.name}.lock").acquire(blocking=False)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["unlearn_lib.auditing.verdict"], "audit", audit)
    with pytest.raises(KeyboardInterrupt):
        audit_run(experiment, audited, seeds=[3], force=True)


def test_numbers_of_other_test_pictures_are_not_reused(tiny):
    experiment, audited, block = tiny
    other = replace(experiment, data=changed(experiment.dataset, "test", images=255 - experiment.dataset.test.images))
    inverted = audit_run(other, audited, seeds=[3]).metrics["audit"]
    assert inverted["retain_accuracy"]["original"] != block["retain_accuracy"]["original"]


def test_numbers_of_another_layer_are_not_reused(tiny):
    experiment, audited, block = tiny
    deeper = audit_run(experiment, audited, seeds=[3], layer="input").metrics["audit"]
    golden = experiment.load(experiment.finished_golden())
    found = probe_forget_classes(golden, experiment.dataset, FORGET, "input")
    assert deeper["layer"] == "input"
    assert deeper["probe"]["golden"] == found != block["probe"]["golden"]


def test_layer_0_is_the_layer_of_this_name(tiny):
    experiment, audited, _ = tiny
    with pytest.raises(UserError, match="layer: .*'0'"):
        audit_run(experiment, audited, layer=0)


def test_an_unknown_layer_is_refused_before_anything_is_trained(tiny):
    experiment, audited, _ = tiny
    with pytest.raises(UserError, match="layer: .*'fc9'"):
        audit_run(experiment, audited, seeds=[9], layer="fc9")
    assert experiment.variant(seed=9).finished_original() is None


def test_a_run_that_forgot_other_classes_is_refused(tiny):
    experiment, audited, _ = tiny
    with pytest.raises(UserError, match=r"forget: got \[0, 3\]"):
        audit_run(replace(experiment, forget_classes=(3, 0)), audited)


def test_a_run_that_is_not_unlearned_is_refused(tiny):
    experiment, _, _ = tiny
    with pytest.raises(UserError, match="run: got tiny-tiny-s3"):
        audit_run(experiment, experiment.finished_original())


def test_a_run_of_another_original_than_the_present_one_is_refused(tmp_path):
    experiment = TinyExperiment(tmp_path)
    experiment.train()
    run = experiment.unlearn()
    replace(experiment, data=tiny_data(train=20)).train()
    with pytest.raises(UserError, match="run: tiny-tiny-unlearned-s0 .* than tiny-tiny-s0"):
        audit_run(experiment, run)


def test_an_original_that_does_not_know_the_classes_is_refused(tmp_path):
    experiment = TinyExperiment(tmp_path)
    experiment._write("original", experiment._trained(experiment.forget_classes), ())
    with pytest.raises(UserError, match=r"run: tiny-tiny-s0 is right on no test picture .*\[1, 3\]"):
        audit_run(experiment, experiment.unlearn())


def test_an_audit_without_test_pictures_of_the_classes_is_refused(tmp_path):
    data = tiny_data()
    experiment = TinyExperiment(tmp_path, data=replace(data, test=data.test.without(FORGET)))
    experiment.train()
    with pytest.raises(UserError, match=r"run: tiny-tiny-s0 was tested on no picture .*\[1, 3\]"):
        audit_run(experiment, experiment.unlearn())
    assert experiment.finished_golden() is None  # refused before golden is trained


def test_the_table_has_a_column_a_model_and_two_a_run(tiny):
    _, _, block = tiny
    table = audit_table({"last": block, "again": block})
    shared = ["original", "masked", "last", "again", "golden", "golden band"]
    assert list(table.columns) == [*shared, "gap, last", "verdict, last", "gap, again", "verdict, again"]
    assert list(table.index[:-2]) == [row.title for row in ROWS]
    assert table.loc["retain accuracy, %", "golden band"].endswith("(n = 3)")
    assert table.loc["JS to golden on F, nats", "golden band"].endswith("(n = 2)")
    assert table.loc["relearn time, batches", "verdict, last"] == block["relearn"]["verdict"]


def test_the_table_shows_the_audits_numbers(tiny):
    _, _, block = tiny
    table = audit_table({"last": block})
    columns = dict(zip(MODELS, ("original", "masked", "last", "golden"), strict=True)) | {"gap": "gap, last"}
    for row in ROWS:
        metric = row.find(block)
        factor = 100 if row.title.endswith("%") else 1
        for name, column in columns.items():
            shown = table.loc[row.title, column]
            if metric[name] is None:
                assert shown == (f"> {LIMIT}" if row.path == "relearn" and name != "gap" else "-")
            else:
                assert float(shown) == pytest.approx(factor * metric[name], abs=0.51 * 10**-row.digits)
        mean = factor * metric["band"]["golden"]["mean"]
        assert table.loc[row.title, "golden band"].startswith(f"{mean:.{row.digits}f} ±")


def test_the_table_counts_the_tensors_that_moved(tiny):
    _, _, block = tiny
    rows = audit_table({"last": block}).iloc[-2:]
    for column, name in {"masked": "masked", "last": "unlearned", "golden": "golden"}.items():
        moved = block["moved"][name]
        assert rows[column].tolist() == [str(len(moved)), f"{max(moved.values()):.2g}"]
    assert rows["original"].tolist() == ["0", "0"]
    assert rows["gap, last"].tolist() == ["-", "-"]


@pytest.mark.parametrize("other", [{"layer": "hidden"}, {"seeds": [3, 4]}, {"target": 0.5}])
def test_a_table_of_audits_that_differ_is_refused(tiny, other):
    _, _, block = tiny
    with pytest.raises(UserError, match=f"audits: got {next(iter(other))} "):
        audit_table({"last": block, "other": block | other})


def test_too_few_pictures_for_a_membership_attack_are_a_dash_in_the_table(tmp_path, monkeypatch):
    limit_relearning(monkeypatch, 20)
    experiment = TinyExperiment(tmp_path, data=tiny_data(test=2))
    experiment.train()
    block = audit_run(experiment, experiment.unlearn(), seeds=[0, 1]).metrics["audit"]
    row = audit_table({"last": block}).loc["membership inference, %"]
    assert row["original"] == row["last"] == row["golden band"] == "-"
    assert row["verdict, last"] == "no band"


SOON = 10  # mini-batches of LeNet5; the tests of the shell read no result of relearning


@pytest.fixture(scope="module")
def audited_once(experiment):
    run = experiment.unlearn("distill")
    with pytest.MonkeyPatch.context() as monkeypatch:
        limit_relearning(monkeypatch, SOON)
        assert main(["audit", "--run", run.name, "--runs-root", str(experiment.root), "--seeds", "1"]) == 0
    return run


@pytest.fixture
def audited(audited_once, monkeypatch):
    """LeNet5 on digits: an audit of one seed, made by the shell."""
    limit_relearning(monkeypatch, SOON)
    return audited_once


def test_the_shell_prints_the_audit_as_json_and_draws_relearning(experiment, audited, capsys):
    assert main(["audit", "--run", audited.name, "--runs-root", str(experiment.root), "--seeds", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["audit"]
    block = audited.metrics["audit"]
    assert printed["probe"] == block["probe"]
    assert printed["seeds"] == block["seeds"] == [0]
    assert (audited.path / "relearning.png").is_file()


def test_the_shells_table_names_the_data_and_the_tensors_that_moved(experiment, audited, capsys):
    assert main(["audit", "--run", audited.name, "--runs-root", str(experiment.root), "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "lenet5 on digits" in printed
    assert "linear probe on F, %" in printed
    assert "fc3.weight" in printed


@pytest.mark.parametrize("name, word", [("nothing", "no 'nothing'"), ("lenet5-digits-s0", "an unlearned run")])
def test_the_shell_refuses_a_run_that_cannot_be_audited(experiment, name, word, capsys):
    assert main(["audit", "--run", name, "--runs-root", str(experiment.root)]) == 2
    assert word in capsys.readouterr().err


def test_a_variant_of_another_seed_shares_the_data_of_an_audit(experiment):
    other = experiment.variant(seed=5, **experiment.start)
    assert other.dataset is experiment.dataset
    assert other.start == experiment.start


def test_a_reopened_experiment_is_refused_for_other_classes(experiment, audited):
    with pytest.raises(UserError, match=r"forget: got \[5\]"):
        audit_run(open_experiment(audited, forget=[5]), audited)


def test_zrf_compares_with_a_network_of_a_seed_that_nobody_trains(tiny):
    experiment, _, block = tiny
    original = experiment.load(experiment.finished_original())
    pictures = experiment.dataset.test.only(FORGET).images
    logits = [predict_logits(net, pictures, experiment.dataset) for net in (original, experiment.new_model(1000))]
    assert block["zrf"]["original"] == zrf(*logits)
