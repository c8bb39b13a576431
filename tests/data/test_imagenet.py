import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_lib import Experiment, evaluate, load_data, make_model
from unlearn_lib.__main__ import main
from unlearn_lib.data import imagenet_classes
from unlearn_lib.evaluation import evaluate_tail, load_activations
from unlearn_lib.networks import Framing

SMALL = Framing((3, 32, 32), 36, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CHOSEN = [0, 7, 134, 999]


@pytest.fixture
def root(tmp_path):
    """Three pictures each of four classes, one picture damaged, as ImageNet lies on disk."""
    random = np.random.default_rng(0)
    _, wnids = imagenet_classes()
    for n, label in enumerate(CHOSEN):
        folder = tmp_path / "data" / "ImageNet" / "val" / wnids[label]
        folder.mkdir(parents=True)
        for i in range(3):
            noise = random.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"ILSVRC2012_val_{3 * n + i + 1:08}.JPEG")
    broken = sorted((tmp_path / "data" / "ImageNet" / "val" / wnids[7]).iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:100])
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path):
    torch.save(make_model("mobilenet_v3_small", 1000, size=32, seed=5).state_dict(), tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


@pytest.fixture
def experiment(root, weights, tmp_path):
    words = {"data_root": root, "runs_root": tmp_path / "runs"}
    return Experiment("mobilenet_v3_small", "imagenet", forget=["0-49", "crane"], size=32, weights=weights, **words)


def flatten(root):
    """Put all pictures into one folder, and give the true wnid of each, in order."""
    val = root / "ImageNet" / "val"
    pictures = sorted(val.glob("*/*"), key=lambda path: path.name)
    for path in pictures:
        shutil.move(path, val / path.name)
    wnids = [path.parent.name for path in pictures]
    for folder in set(wnids):
        (val / folder).rmdir()
    return [path.name for path in pictures], wnids


def test_classes_stand_in_the_order_of_their_wnids():
    names, wnids = imagenet_classes()
    assert len(set(wnids)) == len(names) == 1000
    assert wnids == sorted(wnids)
    assert (names[0], wnids[0]) == ("tench", "n01440764")
    assert (names[999], wnids[999]) == ("toilet tissue", "n15075141")


def test_a_folder_a_class_is_read_with_the_indices_of_the_whole_thousand(root):
    data = load_data("imagenet", root, framing=SMALL)
    assert data.num_classes == 1000
    assert data.test.labels.tolist() == [c for c in CHOSEN for _ in range(3)]
    assert (len(data.train), data.shape) == (0, (3, 32, 32))


@pytest.mark.parametrize("kind", ["val.txt", "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"])
def test_the_flat_layout_gives_the_same_labels(root, kind):
    names, wnids = flatten(root)
    index = {wnid: i for i, wnid in enumerate(imagenet_classes()[1])}
    folder = root / "ImageNet"
    if kind == "val.txt":
        lines = [f"{name} {index[wnid]}" for name, wnid in zip(names, wnids, strict=True)]
    elif kind == "LOC_val_solution.csv":
        lines = ["ImageId,PredictionString"]
        lines += [f"{n.removesuffix('.JPEG')},{w} 1 2 30 40" for n, w in zip(names, wnids, strict=True)]
    else:  # numbered as the devkit does, here backwards
        from scipy.io import savemat

        table = np.zeros(1000, dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")])
        for i, wnid in enumerate(imagenet_classes()[1]):
            table[i] = (1000 - i, wnid)
        savemat(folder / "meta.mat", {"synsets": table})
        lines = [str(1000 - index[wnid]) for wnid in wnids]
    (folder / kind).write_text("\n".join(lines) + "\n")
    assert load_data("imagenet", root, framing=SMALL).test.labels.tolist() == [c for c in CHOSEN for _ in range(3)]


def test_a_flat_folder_without_its_ground_truth_is_refused(root):
    flatten(root)
    with pytest.raises(FileNotFoundError, match=r"is flat; put val.txt or LOC_val_solution.csv"):
        load_data("imagenet", root)


def test_a_picture_that_the_ground_truth_does_not_name_is_named(root):
    names, _ = flatten(root)
    (root / "ImageNet" / "val.txt").write_text("\n".join(f"{name} 0" for name in names[1:]))
    with pytest.raises(ValueError, match=f"does not name {names[0]}"):
        load_data("imagenet", root)


def test_an_absent_imagenet_is_said_with_both_layouts(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"val/<wnid>/\*.JPEG there, or val/ILSVRC2012_val_\*.JPEG"):
        load_data("imagenet", tmp_path)


def test_weights_are_taken_as_they_come_and_what_does_not_open_is_left_out(experiment):
    original = experiment.train()
    assert sum(map(sum, original.metrics["original"]["confusion"])) == 11
    assert original.config["unreadable"] == ["val/n01514668/ILSVRC2012_val_00000005.JPEG"]
    assert original.history == {}


def test_golden_is_refused_where_there_are_no_training_pictures(experiment):
    with pytest.raises(ValueError, match="golden: imagenet has no training pictures"):
        experiment.golden()


def test_without_weights_there_is_nothing_to_take(root, tmp_path):
    experiment = Experiment("resnet18", "imagenet", size=32, data_root=root, runs_root=tmp_path / "runs")
    with pytest.raises(ValueError, match="weights: none given"):
        experiment.train()


def test_weights_for_other_classes_are_refused(root, tmp_path):
    torch.save(make_model("resnet18", 10, size=32).state_dict(), tmp_path / "ten.pth")
    words = {"data_root": root, "runs_root": tmp_path / "runs", "size": 32}
    experiment = Experiment("resnet18", "imagenet", weights=str(tmp_path / "ten.pth"), **words)
    with pytest.raises(ValueError, match="ten.pth is for other classes"):
        experiment.train()


def test_the_bodys_activations_serve_after_the_pictures_are_gone(experiment, root):
    run = experiment.train()
    model = experiment.load(run)
    x, labels = load_activations(run, model, experiment.dataset, "classifier.0")
    assert len(x) == len(labels) == 11
    for path in (root / "ImageNet" / "val").glob("*/*"):
        path.write_bytes(b"")
    again, _ = load_activations(run, model, experiment.dataset, "classifier.0")
    assert torch.equal(x, again)


def test_the_tail_on_kept_activations_is_judged_as_the_whole_on_pictures_is(experiment):
    run = experiment.train()
    model = experiment.load(run)
    kept = load_activations(run, model, experiment.dataset, "features.9")
    whole = evaluate(model, experiment.dataset, experiment.forget_classes)
    assert evaluate_tail(model, "features.9", *kept, experiment.dataset, experiment.forget_classes) == whole


def test_activations_of_another_model_are_not_taken(experiment):
    run = experiment.train()
    model = experiment.load(run)
    x, _ = load_activations(run, model, experiment.dataset, "features.12")
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    (run.path / "model.safetensors").write_bytes(b"another")
    y, _ = load_activations(run, model, experiment.dataset, "features.12")
    assert not torch.equal(x, y)
    assert y.shape == x.shape


def test_from_the_shell_a_thousand_classes_lose_a_hundred_and_fifty(root, weights, tmp_path, capsys):
    where = ["--data-root", str(root), "--runs-root", str(tmp_path / "runs")]
    words = ["--model", "mobilenet_v3_small", "--data", "imagenet", "--size", "32", "--weights", weights]
    words += ["--forget", "0-49", "390-439", "950-999", "--method", "mask"]
    assert main(["run", *words, *where]) == 0
    said = capsys.readouterr()
    assert "no golden model" in said.err
    assert said.err.splitlines()[-1].startswith("next: open ") and "audit" not in said.err  # which needs such pictures
    (folder,) = (tmp_path / "runs").glob("*-unlearned-*")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["unlearned"]["forget_accuracy"] == 0.0
    assert len(metrics["unlearned"]["per_class_accuracy"]) == 1000
