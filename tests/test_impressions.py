import inspect

import pytest
import torch

from unlearn_lib import (
    default_layer,
    diagnose,
    impressions,
    make_impressions,
    make_model,
    responsive_layers,
    unlearning,
)


def test_impressions_reach_their_class_with_confidence_and_stay_feasible(model):
    made = make_impressions(model, samples=20)
    p = model.fc3(made.x).softmax(1).gather(1, made.labels[:, None])
    assert made.layer == "fc3"
    assert made.labels.bincount().tolist() == [20] * 10
    assert p.min() >= 0.9
    assert made.x.min() >= 0


@pytest.mark.parametrize("layer", ["conv2", "fc1", "fc2"])
def test_at_inner_layers_too(model, layer):
    diagnosis = diagnose(model, make_impressions(model, layer, samples=5))
    assert diagnosis["confidence"].min() >= 0.9
    assert diagnosis["infeasible"].max() == 0


def test_in_pixels_they_stay_within_the_range_of_pixels(model):
    made = make_impressions(model, "input", samples=5)
    low, high = model.input_range
    assert made.x.shape == (50, 1, 28, 28)
    assert low <= made.x.min() <= made.x.max() <= high
    assert diagnose(model, made)["confidence"].mean() >= 0.9


def test_they_are_not_one_point_plus_noise(model):
    calibrated = diagnose(model, make_impressions(model, samples=20))
    published = diagnose(model, make_impressions(model, samples=20, recipe="published"))
    assert published["cosine"].mean() > 0.98 > calibrated["cosine"].mean()
    assert published["infeasible"].mean() > 0.3
    assert published["norm"].mean() > 20 * calibrated["norm"].mean()


def test_the_published_recipe_ends_at_the_start_plus_100_signs_of_the_weights(model):
    made = make_impressions(model, samples=2, recipe="published")
    start = torch.randn(20, 84, generator=torch.Generator().manual_seed(0))
    end = start + 100 * model.fc3.weight[made.labels].sign()
    assert torch.isclose(made.x, end, atol=0.1).float().mean() > 0.99


def test_in_chunks_they_come_out_as_in_one_batch(model):
    whole, parts = (make_impressions(model, "fc2", samples=3, steps=20, memory=m) for m in (2**29, 2**13))
    assert torch.allclose(whole.x, parts.x, atol=1e-4)


def test_the_same_seed_gives_the_same_bits(model):
    first, second, other = (make_impressions(model, samples=3, seed=s).x for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_every_step_can_be_watched_from_noise_to_impression(model):
    seen = []
    made = make_impressions(model, "fc2", samples=1, steps=5, on_step=lambda step, x: seen.append((step, x.clone())))
    assert [step for step, _ in seen] == list(range(6))
    assert torch.equal(seen[-1][1], made.x)


def test_nearly_every_layer_of_a_trained_network_responds_and_none_of_the_weights_change(model):
    before = [p.clone() for p in model.parameters()]
    table = responsive_layers(model, tries=4)
    assert list(table.index) == ["conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "fc2", "fc3"]
    assert table["responsive"].sum() >= 6
    assert list(table.index[table["learnable"]]) == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_layer_is_responsive_from_the_share_on(model):
    reached = responsive_layers(model, tries=4, layers=["fc3"], share=1.01)
    assert reached["reached"].item() == 1.0
    assert not reached["responsive"].item()


def test_the_default_layer_is_the_last_learnable_one_that_responds(model):
    assert default_layer(model) == "fc3"


def test_a_model_that_sees_nothing_responds_nowhere():
    model = make_model("lenet5", 10)
    torch.nn.init.zeros_(model.fc3.weight)
    with pytest.raises(ValueError, match="none of LeNet5 is responsive"):
        default_layer(model)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"recipe": "deep"}, "recipe: 'deep' given"),
        ({"samples": 0}, "samples, steps: 0"),
        ({"layer": "fc9"}, "layer: 'fc9' given"),
    ],
)
def test_what_cannot_be_made_is_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_impressions(model, **arguments)


def test_zero_shot_means_that_no_function_here_or_in_unlearning_takes_pictures():
    for room in (impressions, unlearning):
        assert not {"Data", "Split", "load_data"} & set(vars(room))
        for _, function in inspect.getmembers(room, inspect.isfunction):
            assert not {"data", "images", "pictures", "loader"} & set(inspect.signature(function).parameters)
