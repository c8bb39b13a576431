"""Whatever happens to a process or its files: runs are absent, resumable or whole, and the user reads one sentence.

The long version, with a hundred kills, is tests/benchmarks/bench_survival.py.
"""

import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import START, TinyExperiment

from unlearn_lib import Experiment, UserError, audit_run, make_model, open_run, save_figure
from unlearn_lib.__main__ import main
from unlearn_lib.networks import amend_run, check_run
from unlearn_lib.store import digest, load_kept, load_tensors, lock_folder, read_json, save_kept, scratch_path

FORGET = [1]
STEPS = {
    "train": lambda experiment: experiment.train(),
    "golden": lambda experiment: experiment.golden(),
    "impressions": lambda experiment: experiment.impressions(samples=20),
    "unlearn": lambda experiment: experiment.unlearn(samples=20),
}


def lab_in(root, dataset=None, **changes):
    numbers = {"forget": FORGET, "train_epochs": 2, "train_batch_size": 256, "runs_root": root}
    experiment = Experiment("lenet5", "digits", **numbers | changes)
    if dataset is not None:
        vars(experiment)["dataset"] = dataset
    return experiment


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """All steps without any disturbance."""
    root = tmp_path_factory.mktemp("whole")
    for step in STEPS.values():
        step(lab_in(root, digits))
    return root


def bits(root):
    """What lies in a runs folder, without what a clock has measured."""
    found = {}
    for path in sorted(root.glob("[!.]*/*")):
        if path.suffix == ".safetensors":
            found[str(path.relative_to(root))] = digest(load_tensors(path)[0])
        elif path.name == "metrics.json":
            metrics = {name: value for name, value in read_json(path).items() if name != "seconds"}
            found[str(path.relative_to(root))] = json.dumps(metrics, sort_keys=True)
    return found


def scratch(root):
    return [path for path in root.rglob(".*") if path.name.endswith((".new", ".old"))]


def killed(step, experiment, after):
    """A step in a process that is killed after so many seconds, if it lives so long."""
    process = START.Process(target=lambda: step(experiment))
    process.start()
    process.join(after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def told_by(words, before=lambda: None):
    """The shell in a process of its own: exit status and standard error."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        sys.stdout, sys.stderr = io.StringIO(), os.fdopen(writing, "w")
        status = 1
        try:
            before()
            status = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_killed_ends_with_the_same_bits_the_next_time(tmp_path, whole, digits, name):
    root, chance = tmp_path / "runs", random.Random(name)
    for earlier in [*STEPS][: [*STEPS].index(name)]:
        STEPS[earlier](lab_in(root, digits))
    begin = time.perf_counter()
    STEPS[name](lab_in(tmp_path / "timed" if name == "train" else shutil.copytree(root, tmp_path / "timed"), digits))
    lasts = time.perf_counter() - begin
    for _ in range(3):
        killed(STEPS[name], lab_in(root, digits), chance.random() * lasts)
        for path in root.glob("*/config.json"):
            open_run(root, path.parent.name).verify()  # what is there is whole
    for step in [*STEPS][: [*STEPS].index(name) + 1]:
        STEPS[step](lab_in(root, digits))
    found = bits(root)
    assert all(bits(whole)[path] == value for path, value in found.items() if path.endswith(".safetensors"))
    assert not scratch(root)


def test_an_audit_that_is_killed_says_the_same_the_next_time(tmp_path, monkeypatch):
    for room in ("attacks", "verdict"):  # relearning is given up early, in the forked processes too
        monkeypatch.setattr(sys.modules[f"unlearn_lib.auditing.{room}"], "LIMIT", 20)
    blocks = []
    for name, kills in (("whole", 0), ("killed", 3)):
        experiment = TinyExperiment(tmp_path / name)
        experiment.root.mkdir()
        run = (experiment.train(), experiment.golden(), experiment.unlearn())[-1]
        for i in range(kills):
            killed(lambda experiment, run=run: audit_run(experiment, run), experiment, 0.2 + 0.3 * i)
            open_run(experiment.root, run.name).verify()
        blocks.append(audit_run(experiment, run).metrics["audit"])
        assert not scratch(experiment.root)
    assert blocks[0] == blocks[1]


def test_what_the_dead_left_half_written_is_swept_and_what_the_living_write_is_not(tmp_path):
    dead = START.Process(target=lambda: None)
    dead.start()
    dead.join()
    living = scratch_path(tmp_path / "run" / "model.safetensors")
    left = living.with_name(living.name.replace(f".{os.getpid()}@", f".{dead.pid}@"))
    folder = tmp_path / f".run.abc.{dead.pid}@{living.name.partition('@')[2]}"
    for path in (living, left, folder / "model.safetensors"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with lock_folder(tmp_path / "run"):
        assert living.exists() and not left.exists() and not folder.exists()


def test_of_two_processes_one_trains_the_other_waits_and_takes_over_when_its_owner_is_gone(tmp_path, whole, digits):
    def train(log):
        import logging

        from unlearn_lib.common import show_log

        show_log(open(log, "w", buffering=1))  # noqa: SIM115, the process ends with it
        logging.getLogger("unlearn_lib").setLevel(logging.INFO)
        lab_in(tmp_path / "runs", digits).train()

    first, second = (START.Process(target=train, args=(tmp_path / name,)) for name in ("first", "second"))
    first.start()
    checkpoint = tmp_path / "runs" / "lenet5-digits-s0" / "checkpoint.safetensors"
    while not checkpoint.exists() and first.is_alive():
        time.sleep(0.001)
    os.kill(first.pid, signal.SIGSTOP)
    second.start()
    while not (tmp_path / "second").exists() or "waiting" not in (tmp_path / "second").read_text():
        time.sleep(0.01)
    assert f"another one works on it (process {first.pid} on" in (tmp_path / "second").read_text()
    os.kill(first.pid, signal.SIGKILL)
    second.join()
    first.join()
    assert second.exitcode == 0
    told = (tmp_path / "second").read_text()
    assert "continued after epoch 1" in told and "trained in" in told
    assert bits(tmp_path / "runs").items() <= bits(whole).items()


def test_three_processes_on_one_folder_train_once(tmp_path, digits):
    import logging

    def train(log):
        handler = logging.FileHandler(log)
        logging.getLogger("unlearn_lib").addHandler(handler)
        logging.getLogger("unlearn_lib").setLevel(logging.INFO)
        lab_in(tmp_path / "runs", digits).golden()

    workers = [START.Process(target=train, args=(tmp_path / str(i),)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted("trained in" in (tmp_path / str(i)).read_text() for i in range(3)) == [False, False, True]


def flipped(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def reading(run, arguments):
    found = check_run(open_run(run.path.parent, run.name), arguments)
    model = found.load_model().state_dict()
    return found.arguments, found.metrics, found.history, digest(model)


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "history.json", "model.safetensors"])
def test_one_flipped_bit_in_any_file_of_a_run_is_named_or_changes_nothing(tmp_path, whole, name):
    run = open_run(shutil.copytree(whole, tmp_path / "runs"), "lenet5-digits-unlearned-1-neggrad+-s0")
    before, content, chance = reading(run, run.arguments), (run.path / name).read_bytes(), random.Random(name)
    refused = 0
    for _ in range(60):
        flipped(run.path / name, chance.randrange(8 * len(content)))
        try:
            assert reading(run, before[0]) == before
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        (run.path / name).write_bytes(content)
    assert refused > 30


@pytest.mark.parametrize("name", ["impressions.safetensors", "audit.json"])
def test_one_flipped_bit_in_what_is_kept_makes_it_anew(tmp_path, name):
    path, chance = tmp_path / "run" / name, random.Random(0)
    tensors = {"x": torch.rand(20)} if path.suffix == ".safetensors" else {}
    save_kept(path, {"a": 1}, tensors, {"seconds": 2.5})
    content = path.read_bytes()
    for _ in range(60):
        flipped(path, chance.randrange(8 * len(content)))
        found = load_kept(path, {"a": 1})
        assert found is None or (found[1] == {"seconds": 2.5} and digest(found[0]) == digest(tensors))
        path.write_bytes(content)


@pytest.mark.parametrize("fault", ["missing", "extra", "misshapen", "nan", "pickle"])
def test_a_model_file_with_other_tensors_or_a_pickle_is_refused_in_a_sentence(tmp_path, whole, fault):
    run = open_run(shutil.copytree(whole, tmp_path / "runs"), "lenet5-digits-s0")
    path, tensors = run.path / "model.safetensors", make_model("lenet5", 10).state_dict()
    if fault == "missing":
        del tensors["fc3.bias"]
    if fault == "extra":
        tensors["more"] = torch.zeros(3)
    if fault == "misshapen":
        tensors["fc3.bias"] = torch.zeros(7)
    if fault == "nan":
        tensors["fc3.bias"][3] = float("nan")
    save_file(tensors, path)
    if fault == "pickle":
        path.write_bytes(pickle.dumps(Opened(tmp_path / "opened")))
    words = "unlearn --model lenet5 --data digits --forget 1 --force --runs-root".split()
    status, told = told_by([*words, str(run.path.parent)])
    assert status == 2 and "model.safetensors" in told and "Traceback" not in told
    assert not (tmp_path / "opened").exists()


class Opened:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.write_text, ("opened",)


@pytest.mark.parametrize("room", [0, 2_000, 100_000])
def test_a_full_disk_is_a_sentence_and_what_was_there_stays_whole(tmp_path, whole, room):
    root = shutil.copytree(whole, tmp_path / "runs")
    before = bits(root)
    words = "train --model lenet5 --data digits --seed 1 --epochs 1 --runs-root".split()
    status, told = told_by([*words, str(root)], lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    assert "Traceback" not in told
    assert status == 2 and "cannot be written" in told.splitlines()[-1]
    assert before.items() <= bits(root).items()
    assert told_by([*words, str(root)])[0] == 0
    assert not scratch(root)


def test_a_figure_for_which_there_is_no_room_is_a_sentence(tmp_path):
    def draw():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            save_figure(plt.figure(), "drawn", tmp_path)
        except UserError:
            os._exit(2)

    child = START.Process(target=draw)
    child.start()
    child.join()
    assert child.exitcode == 2
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_data_lie(tmp_path):
    folder = tmp_path / "data" / "toys"
    for label in ("left", "right"):
        (folder / label).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (8, 8), (i * 30, 40, 10 if label == "left" else 90)).save(folder / label / f"{i}.png")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    experiment = Experiment("resnet18", str(folder), ["left"], size=32, train_epochs=1, runs_root=tmp_path / "runs")
    experiment.train()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


@pytest.mark.parametrize("after", [0.1, 0.3, 0.6])
def test_a_runs_folder_that_vanishes_costs_no_more_than_a_sentence(tmp_path, whole, digits, after):
    root, faults = tmp_path / "runs", []

    def work():
        try:
            lab_in(root, digits).train()
        except UserError:
            pass
        except BaseException as error:
            faults.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    time.sleep(after)
    with suppress(OSError):
        shutil.rmtree(root)
    worker.join()
    assert not faults
    lab_in(root, digits).train()
    assert bits(root).items() <= bits(whole).items()


def test_a_clock_set_back_makes_nothing_anew(tmp_path, whole, digits):
    root = shutil.copytree(whole, tmp_path / "runs")
    for path in root.rglob("*"):
        os.utime(path, (4e9, 4e9))  # in the year 2096
    for step in STEPS.values():
        step(lab_in(root, digits))
    kinds = ("model", "impressions")
    assert all(path.stat().st_mtime == 4e9 for path in root.glob("*/*.safetensors") if path.name.startswith(kinds))


def test_two_versions_of_the_program_on_one_folder_tell_each_other_apart(tmp_path, whole, digits):
    root = shutil.copytree(whole, tmp_path / "runs")
    path = root / "lenet5-digits-s0" / "config.json"
    config = read_json(path)
    old = {name: value for name, value in config.items() if name not in ("files", "digest")} | {"format": 2}
    path.write_text(json.dumps(old))
    assert lab_in(root, digits).train().metrics == open_run(whole, "lenet5-digits-s0").metrics
    path.write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(UserError, match="has format 99, of a newer version of this program"):
        lab_in(root, digits).train()


def test_a_run_is_whole_between_the_two_files_that_new_metrics_change(tmp_path, whole, monkeypatch):
    run = open_run(shutil.copytree(whole, tmp_path / "runs"), "lenet5-digits-s0")
    before, written = run.metrics, []

    def dies_after_the_first(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_text(json.dumps(content))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("unlearn_lib.networks.runs.write_json", dies_after_the_first)
        amend_run(run, before | {"audit": {"a": 1}})
    again = open_run(run.path.parent, run.name)
    again.verify()
    assert again.metrics == before
    assert amend_run(again, before | {"audit": {"a": 1}}).metrics["audit"] == {"a": 1}


def state_of(path):
    """What a sync is good for: this file or folder, as it is now."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def test_a_power_loss_finds_no_name_whose_content_is_not_on_the_disk_and_undoes_no_name(tmp_path, digits, monkeypatch):
    """Before a file or folder takes its name all of it is synced, and then the folder that holds the name."""
    synced, owed, named = set(), [], []

    def sync(handle, real=os.fsync):
        real(handle)
        found = os.fstat(handle)
        synced.add((found.st_ino, found.st_size, found.st_mtime_ns))
        owed[:] = [folder for folder in owed if folder.stat().st_ino != found.st_ino]

    def naming(real, only_if=lambda done: True):
        def rename(source, target):
            parts = [source, *source.rglob("*")]
            assert not owed, f"{owed} not synced before the next rename"
            assert {state_of(part) for part in parts} <= synced, parts
            done = real(source, target)
            if only_if(done):
                owed.append(target.parent)
                named.append(target.name)
            return done

        return rename

    monkeypatch.setattr(os, "fsync", sync)
    for method in ("replace", "rename"):
        monkeypatch.setattr(Path, method, naming(getattr(Path, method)))
    experiment = lab_in(tmp_path, digits)
    for step in (
        experiment.train,
        experiment.unlearn,
        lab_in(tmp_path, digits, force=True).train,
    ):  # the last one in the first's place
        step()
    assert not owed
    assert {"checkpoint.safetensors", "config.json", "model.safetensors"} <= set(named)
