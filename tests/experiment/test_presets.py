import pytest
import torch

from unlearn_lib import (
    Switches,
    ZeroShotUnlearner,
    find_head,
    lab_grid,
    lab_run,
    make_impressions,
    presets,
)


@pytest.fixture(scope="module")
def published(experiment):
    return make_impressions(experiment.load(experiment.original()), "fc3", samples=20, recipe="published")


def after(model, impressions, forget, switches, epochs=3):
    unlearner = ZeroShotUnlearner(model, impressions, forget, method="published", switches=switches, epochs=epochs)
    return unlearner.unlearn()[0]


def test_without_smoothing_nothing_moves_the_published_update(model, published, experiment):
    still = after(model, published, experiment.forget_classes, Switches(smoothing=0.0))
    moving = after(model, published, experiment.forget_classes, Switches())
    step = (still.fc3.bias - model.fc3.bias).abs().max()
    assert step < 0.05 * (moving.fc3.bias - model.fc3.bias).abs().max()


def test_the_published_signs_lower_the_forget_biases_and_the_proses_raise_them(model, published, experiment):
    down, up = (
        after(model, published, experiment.forget_classes, Switches(prose_signs=prose)) for prose in (False, True)
    )
    assert bool(((down.fc3.bias - model.fc3.bias)[experiment.forget_classes] < 0).all())
    assert bool(((up.fc3.bias - model.fc3.bias)[experiment.forget_classes] > 0).all())


def test_the_weights_switch_lets_the_heads_weight_move(model, published, experiment):
    frozen, trained = (
        after(model, published, experiment.forget_classes, Switches(weights=weights)) for weights in (False, True)
    )
    assert torch.equal(frozen.fc3.weight, model.fc3.weight)
    assert not torch.equal(trained.fc3.weight, model.fc3.weight)


def test_the_published_combination_is_the_published_method(experiment):
    head = find_head(experiment.load(experiment.original()))
    run = experiment.unlearn("published", epochs=5, samples=10, layer=head, version="short")
    assert lab_run(experiment, samples=10, epochs=5) == run.metrics["unlearned"]


def test_an_unknown_choice_is_a_sentence(experiment):
    with pytest.raises(ValueError, match="signs: got 'both'; expected published or prose"):
        lab_run(experiment, signs="both")


def test_the_lab_has_sixteen_outcomes_and_reads_them_again(experiment):
    grid = lab_grid(experiment, samples=5, epochs=3)
    assert len(grid) == 16
    assert grid.index.is_unique
    assert lab_grid(experiment, samples=5, epochs=3).equals(grid)


def test_the_labs_grid_is_what_each_combination_gives(experiment):
    grid = lab_grid(experiment, samples=5, epochs=3)
    chosen = ("calibrated", "trained", "prose", 0.0)
    block = lab_run(experiment, *chosen, samples=5, epochs=3)
    assert tuple(grid.loc[chosen, ["FA", "RA"]]) == (block["forget_accuracy"], block["retain_accuracy"])


def test_the_lab_uses_the_experiments_seed_and_the_choices(experiment, monkeypatch):
    made = []

    def watch(*args, **choices):
        made.append(choices)
        return ZeroShotUnlearner(*args, **choices)

    monkeypatch.setattr(presets, "ZeroShotUnlearner", watch)
    seeded = experiment.variant(seed=3)
    monkeypatch.setattr(type(seeded), "original", lambda self: experiment.train())
    lab_run(seeded, signs="prose", smoothing=0.0, samples=3, epochs=1)
    assert made[0]["seed"] == 3
    assert made[0]["switches"] == Switches(prose_signs=True, smoothing=0.0, weights=False)
