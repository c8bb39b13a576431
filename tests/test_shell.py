"""The shell, as a new user meets it: what it prints, what it keeps, and what it says to bad input."""

import argparse
import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unlearn_lib import Experiment, UserError, __version__, describe_preset, from_preset, make_model
from unlearn_lib import __main__ as shell_module
from unlearn_lib.__main__ import STEPS, TRAINING_NUMBERS, brief_json, main, make_parser, program
from unlearn_lib.common import redirect_progress
from unlearn_lib.experiment.experiment import ELSEWHERE, FINE_TUNING, TRAINING
from unlearn_lib.presets import PRESETS
from unlearn_lib.zeroshot import Unlearning

LENET = "--model lenet5 --data digits".split()
FORGET = "--forget 1 2 3 4".split()


@pytest.fixture
def shell(tmp_path, capsys):
    """Call the shell with words; returns exit status, standard output and standard error."""

    def call(*words, root=tmp_path / "runs"):
        status = main([*words, "--runs-root", str(root)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A runs folder with one LeNet5, trained from the shell."""
    root = tmp_path_factory.mktemp("original")
    assert main(["train", *LENET, "--epochs", "6", "--runs-root", str(root)]) == 0
    return root


@pytest.fixture
def trained(shell, original, tmp_path):
    shutil.copytree(original, tmp_path / "runs")
    return shell


def parse(words):
    return make_parser(words).parse_args(words)


def test_run_tells_the_whole_story_and_a_second_call_reuses_it(shell, tmp_path):
    words = ["run", *LENET, *FORGET, "--method", "distill", "--train-epochs", "6", "--lr", "1e-3"]
    status, out, err = shell(*words)
    assert status == 0
    assert "lenet5 on digits, scikit-learn's 1,797 real handwritten digits" in out
    rows = [line.split()[0] for line in out.splitlines() if line[:1].isalpha()]
    assert rows[-4:] == ["original", "masked", "unlearned,", "golden"]
    assert err.count("trained in") == 2
    assert {p.name for p in (tmp_path / "runs").glob("[!.]*")} == {
        "lenet5-digits-s0",
        "lenet5-digits-golden-1-4-s0",
        "lenet5-digits-unlearned-1-4-distill-s0",
    }
    again = shell(*words)
    assert again[1] == out
    assert again[2].count("reused") == 3
    assert "trained in" not in again[2]


def test_json_is_the_metrics_file_without_its_longest_lists_and_nothing_else(trained, tmp_path):
    status, out, _ = trained("unlearn", *LENET, *FORGET, "--json")
    run = tmp_path / "runs" / "lenet5-digits-unlearned-1-4-neggrad+-s0"
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("original", "masked", "unlearned"):
        assert len(metrics[name].pop("confusion")) == 10
    assert status == 0
    assert json.loads(out) == metrics
    assert len(out.splitlines()) < 45  # a screen


def test_json_of_a_thousand_classes_can_be_read_too():
    metrics = {"original": {"per_class_accuracy": [0.5] * 1000, "overall_accuracy": 0.5}, "curve": [0.0, 1.0]}
    assert json.loads(brief_json(metrics)) == {"original": {"overall_accuracy": 0.5}, "curve": [0.0, 1.0]}


def test_help_and_version_load_nothing_heavy():
    for words, expected in (("--help", "usage:"), ("--version", __version__)):
        lines = f"""
import sys
from unlearn_lib.__main__ import main
try:
    main({words.split()})
except SystemExit as end:
    assert end.code == 0 and not {{"torch", "numpy", "matplotlib"}} & {{*sys.modules}}
"""
        result = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
        assert expected in result.stdout
    words = [sys.executable, "-m", "unlearn_lib", "--version"]
    assert __version__ in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def every_option():
    parser = make_parser([*STEPS])
    (steps,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, step in {"": parser, **steps.choices}.items():
        for action in step._actions:
            if action is not steps and action.dest != "help":
                yield f"{name} {[action.dest, *action.option_strings][-1]}", action


def test_every_option_says_what_it_is_and_takes_a_named_value():
    for name, action in every_option():
        assert action.help, name
        assert action.metavar or action.choices or action.nargs == 0, name


def test_every_option_is_a_field_of_the_specification_with_its_help():
    fields = {field.name: field for part in (Experiment, Unlearning) for field in dataclasses.fields(part)}
    own = {"version", "force", "json", "preset", "forget", "run", "seeds"}
    own |= {"grid", "workers", "scheduler", "audit", "figure", "metric"}
    for name, action in every_option():
        if action.dest not in own and not name.startswith("audit"):
            renamed = TRAINING_NUMBERS.get(action.dest, "")
            assert action.help in [fields[each].metadata["help"] for each in (action.dest, renamed) if each], name


def test_a_step_takes_every_field_that_it_uses():
    taken = {step: {action.dest for name, action in every_option() if name.split()[0] == step} for step in STEPS}
    unlearning = {field.name for field in dataclasses.fields(Unlearning)}
    experiment = {field.name for field in dataclasses.fields(Experiment)}
    assert experiment | unlearning <= taken["run"]
    assert unlearning <= taken["unlearn"]
    assert {"epochs", "lr", "batch_size"} <= taken["train"] & taken["golden"]


def test_the_presets_that_the_shell_names_are_those_that_there_are():
    assert [*PRESETS] == [*shell_module.PRESETS]


@pytest.mark.parametrize("numbers", [*TRAINING.values(), ELSEWHERE, FINE_TUNING])
def test_the_help_of_trainings_numbers_says_their_defaults(numbers):
    fields = {field.name: field for field in dataclasses.fields(Experiment)}
    for name, value in numbers.items():
        assert f"{value:g}" in fields[f"train_{name}"].metadata["help"].replace(",", "").split()


@pytest.mark.parametrize("words", ["audit --run some --seed 3", "run --mod lenet5 --data digits --forget 1"])
def test_no_option_may_be_abbreviated(words):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2


def test_training_prints_one_accuracy_and_its_seconds_and_no_word_on_forgetting(shell):
    status, out, _ = shell("train", *LENET, "--epochs", "1")
    header, row = out.splitlines()[-2:]
    assert status == 0
    assert header.split() == ["overall", "seconds"]
    assert row.split()[0] == "original"
    assert "forget" not in out


def test_a_resumed_training_says_so_begins_its_bar_there_and_counts_all_its_seconds(shell, tmp_path):
    def stop(description, done, total):
        if description.startswith("training") and done == 2:
            raise KeyboardInterrupt

    words, seen = ["train", *LENET, "--epochs", "4"], []
    with redirect_progress(stop):
        assert shell(*words)[0] == 130
    with redirect_progress(lambda description, done, total: seen.append((done, total))):
        status, _, err = shell(*words)
    assert status == 0
    assert "training LeNet5: continued after epoch 2 of 4, where it was interrupted" in err
    assert [step for step in seen if step[1] == 4] == [(2, 4), (3, 4), (4, 4)]
    run = tmp_path / "runs" / "lenet5-digits-s0"
    seconds = json.loads((run / "history.json").read_text())["seconds"]
    assert len(seconds) == 4
    assert json.loads((run / "metrics.json").read_text())["seconds"]["train"] == pytest.approx(sum(seconds))


def test_the_last_line_names_a_figure_that_is_there_and_a_command_that_comes_next(shell):
    for words in (["train", *LENET, "--epochs", "1"], ["unlearn", *LENET, *FORGET], ["impressions", *LENET]):
        status, _, err = shell(*words)
        figure, _, command = err.splitlines()[-1].removeprefix("next: open ").partition("; then ")
        assert status == 0
        assert Path(figure).is_file()
        step = parse(shlex.split(command)[3:]).step
        assert step == ("audit" if words[0] == "unlearn" else "unlearn")
    assert shell("train", *LENET, "--epochs", "1", "--json")[1].startswith("{")  # that line is not on standard output


def test_the_steps_on_their_own(trained, tmp_path):
    assert trained("golden", *LENET, *FORGET, "--epochs", "6")[0] == 0
    status, out, _ = trained("impressions", *LENET, "--samples", "5")
    assert status == 0
    assert "responsive" in out
    assert "confidence" in out
    status, out, _ = trained("unlearn", *LENET, *FORGET, "--method", "mask", "--json")
    assert json.loads(out)["golden"]["forget_accuracy"] == 0
    assert json.loads(out)["unlearned"] == json.loads(out)["masked"]


def test_training_and_unlearning_have_numbers_of_their_own(trained, tmp_path):
    trained("unlearn", *LENET, *FORGET, "-e", "2", "--lr", "0.002", "-b", "50", "--forget-weight", "2", "-n", "x")
    assert not (tmp_path / "runs" / "lenet5-digits-unlearned-1-4-neggrad+-s0-x").exists()  # no original of that version
    trained("train", *LENET, "-e", "1", "--lr", "0.01", "-b", "32", "-d", "0.1", "-n", "x", "-s", "2")
    status, _, err = trained("unlearn", *LENET, *FORGET, "-e", "2", "--lr", "0.002", "-b", "50", "-n", "x")
    assert status == 0, err
    original, unlearned = (
        json.loads((tmp_path / "runs" / name / "config.json").read_text())
        for name in ("lenet5-digits-s0-x", "lenet5-digits-unlearned-1-4-neggrad+-s0-x")
    )
    assert (original["epochs"], original["lr"], original["batch_size"], original["dropout"]) == (1, 0.01, 32, 0.1)
    assert (unlearned["epochs"], unlearned["lr"], unlearned["batch_size"], unlearned["dropout"]) == (2, 0.002, 50, 0.1)


def test_the_preset_prints_an_object_by_run_name(shell, monkeypatch):
    small = {"model": "lenet5", "data": "digits", "forget": (1, 2, 3, 4), "train_epochs": 2}
    monkeypatch.setitem(PRESETS, "quick", (small,))
    status, out, _ = shell("--preset", "quick", "--json")
    assert status == 0
    assert set(json.loads(out)) == {f"lenet5-digits-unlearned-1-4-{method}-s0" for method in ("neggrad+", "distill")}


def test_the_environment_chooses_the_preset_and_says_what_stands_in_for_what(monkeypatch, capsys, runs):
    monkeypatch.setenv("UNLEARN_PRESET", "quick")
    describe_preset()
    assert "digits and shapes, which need no download, stand in for MNIST and CIFAR-10" in capsys.readouterr().out
    assert from_preset("lenet5", forget="7", runs_root=runs).forget_classes == [7]
    assert from_preset("resnet18", size=32, runs_root=runs).data == "shapes"
    monkeypatch.setenv("UNLEARN_PRESET", "fast")
    with pytest.raises(ValueError, match="UNLEARN_PRESET: got 'fast'; expected quick or paper"):
        describe_preset()


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--forget 11", "forget: no class '11'"),
        ("--forget cat", "forget: no class 'cat'"),
        ("--forget 0-9", "forget: got all"),
        ("--forget 1 --model lenet6", "model: got 'lenet6'"),
        ("--forget 1 --data mnits", "data: got 'mnits'"),
        ("--forget 1 --method scrub", "method: got 'scrub'"),
        ("--forget 1 --layer fc9", "layer: got 'fc9'"),
        ("--forget 1 --method published --layer fc2", "published works at the head alone, fc3"),
        ("--forget 1 --model resnet18 --size 32 --layer layer1.0.conv2", "more than one tensor crosses"),
        ("--forget 1 --model squeezenet1_1 --method mask", "does not end in a linear layer"),
        ("--forget 1 --lr 0", "lr: got '0'"),
        ("--forget 1 --lr -1", "lr: got '-1'"),
        ("--forget 1 --lr nan", "lr: got 'nan'"),
        ("--forget 1 --lr inf", "lr: got 'inf'"),
        ("--forget 1 --train-lr nan", "train_lr: got 'nan'"),
        ("--forget 1 --epochs 0", "epochs: got '0'"),
        ("--forget 1 --batch-size 0", "batch_size: got '0'"),
        ("--forget 1 --samples 0", "samples: got '0'"),
        ("--forget 1 --memory 0", "memory: got '0'"),
        ("--forget 1 --forget-weight -1", "forget_weight: got '-1'"),
        ("--forget 1 --dropout 2", "dropout: got '2'"),
        ("--forget 1 --device tpu9", "device: got 'tpu9'"),
        ("--forget 1 --version-name ../up", "version-name: got '../up'"),
        ("--forget 1 --save-every 0", "save_every: got '0'"),
    ],
)
def test_bad_input_ends_in_one_sentence_before_any_work(shell, tmp_path, words, sentence):
    status, out, err = shell("run", *LENET, *words.split())
    assert status == 2
    assert out == ""
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--preset", "paper", "train", *LENET], "preset: got paper with the step train"),
        (["audit", "--run", "some", "-n", "other"], "version-name: got 'other'; it is a part of the name"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(shell, words, sentence):
    status, out, err = shell(*words)
    assert (status, out) == (2, "")
    assert sentence in err


def test_classes_may_be_given_in_several_parts():
    words = "--forget 1 2 --forget 4".split()
    assert parse(["golden", *LENET, *words]).forget == ["1", "2", "4"]


def test_no_class_at_all_is_refused_by_the_parser(shell):
    with pytest.raises(SystemExit) as stop:
        shell("run", *LENET, "--forget")
    assert stop.value.code == 2


def test_unlearning_before_training_names_what_is_missing(shell):
    status, _, err = shell("unlearn", *LENET, *FORGET)
    assert status == 2
    assert "run: no 'lenet5-digits-s0'" in err


def test_unlearning_before_training_names_the_command_that_trains(shell):
    words = [*LENET, "--seed", "2", "--version-name", "a b"]
    status, _, err = shell("unlearn", *words, *FORGET, "--method", "mask")
    assert status == 2
    command = shlex.split(err.partition("train it by: ")[2])
    assert command[:4] == [*shlex.split(program()), "train"]
    assert main([*command[3:], "--epochs", "1"]) == 0
    assert shell("unlearn", *words, *FORGET, "--method", "mask")[0] == 0
    assert "train it by" not in shell("train", *LENET[:2], "--data", "nowhere")[2]


def test_a_runs_folder_that_cannot_be_written_is_named(shell):
    status, _, err = shell("train", *LENET, root="/dev/null/runs")
    assert status == 2
    assert err.startswith("python -m unlearn_lib: runs-root: got /dev/null/runs")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "other classes"])
def test_a_model_file_that_is_not_the_model_is_named_and_nothing_is_written(trained, tmp_path, damage):
    path = tmp_path / "runs" / "lenet5-digits-s0" / "model.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        other = make_model("karpathynet", 10) if damage == "foreign" else make_model("lenet5", 7)
        save_file(other.state_dict(), path)
    before = [p for p in sorted((tmp_path / "runs").rglob("*.*")) if ".lock" not in str(p)]
    status, _, err = trained("unlearn", *LENET, *FORGET)
    assert status == 2
    assert f"model file: {path}" in err
    assert [p for p in sorted((tmp_path / "runs").rglob("*.*")) if ".lock" not in str(p)] == before


def test_a_model_whose_head_does_not_fit_the_data_is_refused(trained, tmp_path):
    config = tmp_path / "runs" / "lenet5-digits-s0" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"classes": ["a", "b"]}))
    status, _, err = trained("unlearn", *LENET, *FORGET)
    assert status == 2
    assert "data: digits has the classes" in err


def test_a_damaged_config_is_named(trained, tmp_path):
    (tmp_path / "runs" / "lenet5-digits-s0" / "config.json").write_text("{")
    status, _, err = trained("unlearn", *LENET, *FORGET)
    assert status == 2
    assert "config.json cannot be read" in err


def test_a_damaged_checkpoint_is_named_and_force_starts_anew(shell, tmp_path):
    folder = tmp_path / "runs" / "lenet5-digits-s0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"cut short")
    status, _, err = shell("train", *LENET, "--epochs", "1")
    assert status == 2
    assert "checkpoint.safetensors is damaged" in err
    assert shell("train", *LENET, "--epochs", "1", "--force")[0] == 0


def test_earlier_runs_stay_when_a_later_call_fails(trained, tmp_path):
    shutil.copytree(tmp_path / "runs", tmp_path / "before")
    assert trained("unlearn", *LENET, *FORGET, "--lr", "1e3")[0] == 2
    for path in (tmp_path / "before").rglob("[!.]*.*"):
        assert path.read_bytes() == (tmp_path / "runs" / path.relative_to(tmp_path / "before")).read_bytes()
    assert not list((tmp_path / "runs").glob("*unlearned*"))


@pytest.fixture
def pictures(tmp_path):
    """Five classes of pictures of different sizes, one damaged, one grey, one with an alpha channel."""
    random = np.random.default_rng(0)
    for n, kind in enumerate(("ant", "bee", "cow", "dog", "elk")):
        (tmp_path / "zoo" / kind).mkdir(parents=True)
        for i in range(12):
            height, width = random.integers(20, 90, 2)
            pixels = random.integers(0, 256, (height, width, 3)) // 2 + np.eye(3)[n % 3] * 25 * n
            suffix = "jpg" if i % 2 else "png"
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "zoo" / kind / f"{kind}{i}.{suffix}")
    damaged, grey, clear = (tmp_path / "zoo" / name for name in ("bee/bee2.png", "cow/cow4.png", "elk/elk0.png"))
    damaged.write_bytes(damaged.read_bytes()[:120])
    Image.open(grey).convert("L").save(grey)
    with_alpha = Image.open(clear).convert("RGBA")
    with_alpha.putalpha(100)
    with_alpha.save(clear)
    return tmp_path / "zoo"


def test_three_commands_lead_from_a_folder_and_weights_to_an_unlearned_model_and_its_figures(shell, pictures, tmp_path):
    torch.save(make_model("resnet18", 1000, size=32).state_dict(), tmp_path / "weights.pth")
    where = ["--model", "resnet18", "--data", str(pictures)]
    tuned = [*where, "--weights", str(tmp_path / "weights.pth"), "--size", "32", "--epochs", "2"]
    status, out, err = shell("train", *tuned)
    assert status == 0
    assert "zoo: 1 picture does not open and is left out: bee/bee2.png" in err
    assert shell("golden", *tuned, "--forget", "cow")[0] == 0
    status, out, _ = shell("unlearn", *where, "--forget", "cow", "--method", "distill")
    assert status == 0
    assert "forget cow" in out
    (folder,) = (tmp_path / "runs").glob("*-unlearned-*")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (folder / "per_class.png").is_file()
    assert metrics["golden"]["forget_accuracy"] == 0
    assert sum(map(sum, metrics["unlearned"]["confusion"])) == 10  # two of each class


def test_audit_passes_its_layer_and_its_folder_on(trained, tmp_path, monkeypatch):
    seen = {}

    def stop(experiment, run, **given):
        seen.update(given, data_root=experiment.data_root)
        raise UserError("audit: stopped")

    assert trained("unlearn", *LENET, *FORGET, "--method", "mask")[0] == 0
    monkeypatch.setattr("unlearn_lib.auditing.audit_run", stop)
    words = ["audit", "--run", "lenet5-digits-unlearned-1-4-mask-s0", "--layer", "fc2", "--data-root", str(tmp_path)]
    assert trained(*words)[0] == 2
    assert seen == {"layer": "fc2", "data_root": str(tmp_path), "seeds": None, "force": False}
