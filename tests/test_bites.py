"""Training, runs and what is kept, by what a reader would check by hand: what is looked at, shown, replaced, reused."""

import dataclasses
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib import (
    Experiment,
    Split,
    ZeroShotUnlearner,
    find_head,
    fit,
    make_impressions,
    make_model,
    open_run,
    store,
)
from unlearn_lib.networks import write_run
from unlearn_lib.store import cached, digest


class Untouchable:
    """Pictures that are there and may not be looked at."""

    def __init__(self, pictures):
        self.shape = pictures.shape

    def __getattr__(self, name):
        raise AssertionError(f"the test pictures were asked for {name}")

    def __getitem__(self, index):
        raise AssertionError("the test pictures were looked at")


@pytest.fixture
def little(digits):
    """The first 100 training digits."""
    return dataclasses.replace(digits, train=digits.train.take(torch.arange(100)))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(data, **arguments):
    model = make_model("lenet5", 10)
    history = fit(model, data, **{"epochs": 3} | arguments)
    return weights(model), history


@pytest.mark.parametrize("forget", [(), (3,)])
def test_training_and_the_choice_of_its_best_epoch_look_at_no_test_picture(little, forget):
    poisoned = dataclasses.replace(little, test=Split(Untouchable(little.test.images), little.test.labels))
    assert torch.equal(trained(poisoned, forget=forget)[0], trained(little, forget=forget)[0])


def test_golden_is_not_chosen_by_validation_pictures_of_the_forget_classes(little):
    images = little.val.images.clone()
    images[little.val.labels == 3] = 255
    poisoned = dataclasses.replace(little, val=Split(images, little.val.labels))
    assert trained(poisoned, forget=[3])[1] == trained(little, forget=[3])[1]
    assert trained(poisoned)[1] != trained(little)[1]


def test_the_learning_rate_rises_to_its_top_and_ends_near_zero(little):
    rates = trained(little, epochs=10, lr=2e-3, batch_size=10)[1]["lr"]
    top = rates.index(max(rates))
    assert 1.5e-3 < rates[top] <= 2e-3
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-5


def test_weight_decay_makes_the_weights_smaller(little):
    free, decayed = (trained(little, weight_decay=decay)[0].norm() for decay in (0.0, 10.0))
    assert decayed < 0.98 * free


class Watcher(nn.Module):
    """A linear network that remembers the pictures it was trained on."""

    def __init__(self, inputs):
        super().__init__()
        self.linear, self.seen = nn.Linear(inputs, 10), []

    def forward(self, x):
        if self.training:
            self.seen.extend(x.clone())
        return self.linear(x.flatten(1))


def shown(data, epochs):
    """All pictures that training shows to a network."""
    watcher = Watcher(data.test.images[0].numel())
    fit(watcher, data, epochs=epochs)
    return torch.stack(watcher.seen)


def test_pictures_that_keep_their_class_are_shown_mirrored_and_moved_by_up_to_two_pixels(digits):
    one = digits.train.take(torch.zeros(8, dtype=torch.int64))
    data = dataclasses.replace(digits, train=one, flip=True)
    seen = shown(data, epochs=60)
    padded = F.pad(digits.normalise(one.images[:1]), (2, 2, 2, 2), mode="replicate")[0]
    places = [(m, y, x) for m in (False, True) for y in range(5) for x in range(5)]
    versions = [(padded.flip(-1) if m else padded)[:, y : y + 28, x : x + 28] for m, y, x in places]
    same = torch.stack([(seen == version).flatten(1).all(1) for version in versions])
    found = [place for place, times in zip(places, same.sum(1).tolist(), strict=True) if times]
    assert same.any(0).all()
    assert {m for m, _, _ in found} == {False, True}
    assert {y for _, y, _ in found} == {x for _, _, x in found} == set(range(5))


def test_pictures_that_would_change_their_class_are_shown_as_they_are(little):
    seen = shown(little, epochs=1)
    expected = little.normalise(little.train.images)
    assert sorted(seen.flatten(1).sum(1).tolist()) == pytest.approx(sorted(expected.flatten(1).sum(1).tolist()))
    assert (seen[:, None] == expected).flatten(2).all(2).any(1).all()


def test_a_seed_reaches_the_start_the_training_the_impressions_and_the_unlearning(tmp_path):
    def lab(seed):
        return Experiment("lenet5", "digits", [1, 2], seed=seed, train_epochs=1, runs_root=tmp_path)

    three = lab(3)
    original = three.train()
    model = original.load_model()
    model.input_range = three.dataset.pixel_range
    expected = make_model("lenet5", 10, seed=3)
    fit(expected, three.dataset, seed=3, **{name: original.config[name] for name in ("epochs", "lr", "batch_size")})
    assert torch.equal(weights(model), weights(expected))
    assert not torch.equal(weights(make_model("lenet5", 10, seed=3)), weights(make_model("lenet5", 10, seed=0)))

    head = find_head(model)
    made = three.impressions(head, samples=5)
    assert torch.equal(made.x, make_impressions(model, head, samples=5, seed=3).x)
    assert not torch.equal(made.x, make_impressions(model, head, samples=5, seed=0).x)

    run = three.unlearn("distill", samples=5, epochs=2, batch_size=7)
    numbers = {name: run.config[name] for name in ("lr", "epochs", "batch_size")}
    same, other = (
        ZeroShotUnlearner(model, made, [1, 2], method="distill", seed=seed, **numbers).unlearn()[0] for seed in (3, 0)
    )
    assert torch.equal(weights(run.load_model()), weights(same))
    assert not torch.equal(weights(same), weights(other))


def test_who_reads_a_run_while_it_is_written_anew_always_finds_one(tmp_path):
    model, over, found = make_model("lenet5", 10), threading.Event(), []
    write_run(tmp_path, "lenet5-digits-s0", {"count": 0}, model, {}, {})

    def read():
        while not over.is_set():
            try:
                found.append(open_run(tmp_path, "lenet5-digits-s0").config["count"])
            except Exception as error:
                found.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for count in range(1, 21):
        write_run(tmp_path, "lenet5-digits-s0", {"count": count}, model, {}, {})
    over.set()
    reader.join()
    assert not [what for what in found if isinstance(what, Exception)]
    assert found == sorted(found)


def test_a_digest_tells_apart_what_differs_in_shape_type_value_or_place(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    x = torch.zeros(2, 3)
    others = [x.view(3, 2), x.view(6), x.double(), x.int(), x + 1, {"x": x}, {"y": x}, tmp_path / "file", 0, 0.0, "0"]
    assert len({digest(other) for other in [x, *others]} | {digest(x, 0), digest(0, x)}) == len(others) + 3
    assert digest({"a": x, "b": 1}) == digest({"b": 1, "a": torch.zeros(2, 3)})


@pytest.mark.parametrize("name", ["kept.safetensors", "kept.json"])
def test_what_is_kept_is_taken_again_under_the_same_key_alone(tmp_path, name):
    made = []

    def make():
        made.append({} if name.endswith("json") else {"x": torch.full((2,), float(len(made)))})
        return made[-1], {"count": len(made)}

    def counts(key, **more):
        tensors, facts = cached(tmp_path / name, key, make, **more)
        assert tensors.keys() == made[-1].keys() and all(torch.equal(tensors[k], made[-1][k]) for k in tensors)
        return facts["count"]

    assert [counts({"seed": 0, "shape": (1, 2)}) for _ in range(2)] == [1, 1]
    assert [counts({"seed": 1, "shape": (1, 2)}) for _ in range(2)] == [2, 2]
    assert [counts({"seed": 1}), counts({"seed": 1}, force=True), counts({"seed": 1})] == [3, 4, 4]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    assert counts({"seed": 1}) == 5


def test_two_that_want_the_same_do_the_work_once(tmp_path):
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make():
        made.append(1)
        begun.set()
        assert go_on.wait(60)
        return {}, {}

    threads = [threading.Thread(target=cached, args=(tmp_path / "kept.json", {}, make)) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.3)  # it either waits now or makes its own
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1


@pytest.mark.parametrize("swaps", [True, False])
def test_a_run_is_replaced_also_where_names_cannot_be_swapped_and_comes_back_after_a_death(
    tmp_path, monkeypatch, swaps
):
    if not swaps:
        monkeypatch.setattr(store, "_swap", lambda one, other: False)
    model = make_model("lenet5", 10)
    for count in range(2):
        write_run(tmp_path, "lenet5-digits-s0", {"count": count}, model, {}, {})
    assert open_run(tmp_path, "lenet5-digits-s0").config["count"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lenet5-digits-s0"]
    (tmp_path / "lenet5-digits-s0").rename(tmp_path / ".lenet5-digits-s0.old")  # died in between
    assert open_run(tmp_path, "lenet5-digits-s0").config["count"] == 1


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Softmax(1), nn.BatchNorm1d(10)])
def test_a_network_that_ends_in_anything_but_a_linear_layer_has_no_head(last):
    assert find_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 10))) == "1"
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        find_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 10), last))
