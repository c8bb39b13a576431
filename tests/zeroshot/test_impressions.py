import copy
import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from unlearn_lib import (
    Impressions,
    default_layer,
    diagnose,
    fit,
    follow_impression,
    make_impressions,
    make_model,
    responsive_layers,
    statistics_distance,
)
from unlearn_lib.networks import Feasible
from unlearn_lib.zeroshot import closed_form, impressions, recipes, soft_targets, unlearner


@pytest.fixture(scope="module")
def normed(digits):
    """A small network with BatchNorm, trained on digits."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
    ]
    net = nn.Sequential(*layers, nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    net.input_shape, net.input_range = digits.shape, digits.pixel_range
    fit(net, digits, epochs=4, lr=3e-3)
    return net


@torch.no_grad()
def bisection(head, x0, labels, low, target):
    """The length t by plain bisection, slow and sure; and whether the target can be reached at all."""
    direction = F.normalize(head.weight - head.weight.mean(0))[labels]
    near, far = torch.zeros(len(x0), 1), torch.full((len(x0), 1), 1e3)
    for _ in range(60):
        t = (near + far) / 2
        p = head((x0 + t * direction).clamp(min=low)).softmax(1).gather(1, labels[:, None])
        near, far = torch.where(p < target, t, near), torch.where(p < target, far, t)
    return (x0 + far * direction).clamp(min=low), (near > 0).squeeze(1) & (far < 999).squeeze(1)


def test_make_impressions_reaches_the_class_with_confidence_and_stays_feasible(model):
    made = make_impressions(model, samples=20, recipe="calibrated")
    p = model.fc3(made.x).softmax(1).gather(1, made.labels[:, None])
    assert made.layer == "fc3"
    assert made.labels.bincount().tolist() == [20] * 10
    assert p.min() >= 0.9
    assert made.x.min() >= 0


@pytest.mark.parametrize("layer", ["conv2", "fc1", "fc2"])
def test_make_impressions_reaches_the_class_at_inner_layers(model, layer):
    diagnosis = diagnose(model, make_impressions(model, layer, samples=5, recipe="calibrated"))
    assert diagnosis["confidence"].min() >= 0.9
    assert diagnosis["infeasible"].max() == 0


def test_diagnose_cosine_is_the_mean_over_pairs_of_one_class(model):
    made = make_impressions(model, samples=4, classes=[3])
    pairs = F.cosine_similarity(made.x[:, None], made.x[None], dim=-1)[~torch.eye(4, dtype=bool)]
    assert diagnose(model, made)["cosine"][3] == pytest.approx(pairs.mean().item(), abs=1e-5)


def test_follow_impression_measures_confidence_and_norm_of_each_state(model):
    growth, states = follow_impression(model, 3, "fc3")
    p = model.fc3(states).softmax(1)[:, 3]
    assert growth["confidence"].tolist() == pytest.approx(p.tolist(), abs=1e-6)
    assert growth["norm"].tolist() == pytest.approx([state.norm().item() for state in states])
    assert len(growth) == len(states) > 2


def test_diagnose_norm_and_spread_by_hand(model):
    x = torch.zeros(2, 84)
    x[0, 0], x[1, 0], x[1, 1] = 5.0, 9.0, 12.0  # of length 5 and 15
    row = diagnose(model, Impressions("fc3", x, torch.tensor([3, 3]), "natural", 0.0)).loc[3]
    assert (row["norm"], row["spread"], row["infeasible"]) == pytest.approx((10, 0.5, 0))


def test_make_impressions_of_pixels_stays_within_their_range_and_is_smooth(model):
    made = make_impressions(model, "input", samples=5, recipe="calibrated")
    low, high = model.input_range
    assert made.x.shape == (50, 1, 28, 28)
    assert made.x.diff(dim=3).abs().mean() < 0.3 * made.x.std()  # smooth; without the total variation it is noise
    assert low <= made.x.min() <= made.x.max() <= high
    assert diagnose(model, made)["confidence"].mean() >= 0.9


def test_calibrated_impressions_are_more_diverse_and_smaller_than_published_ones(model):
    calibrated = diagnose(model, make_impressions(model, samples=20, recipe="calibrated"))
    published = diagnose(model, make_impressions(model, samples=20, recipe="published"))
    assert published["cosine"].mean() > 0.98 > calibrated["cosine"].mean()
    assert published["infeasible"].mean() > 0.3
    assert published["norm"].mean() > 20 * calibrated["norm"].mean()


def test_published_impressions_end_at_the_start_plus_100_signs_of_the_weights(model):
    made = make_impressions(model, samples=2, recipe="published")
    start = torch.randn(20, 84, generator=torch.Generator().manual_seed(0))
    end = start + 100 * model.fc3.weight[made.labels].sign()
    assert torch.isclose(made.x, end, atol=0.1).float().mean() > 0.99


def test_calibrated_impressions_are_zero_where_no_logit_depends_on_them(model):
    """The squared norm in the objective, seen where nothing else pulls."""
    with torch.no_grad():
        model.fc2.weight[:, :20] = 0
    start, end = (
        make_impressions(model, "fc2", samples=3, steps=steps, recipe="calibrated").x[:, :20] for steps in (0, 100)
    )
    assert start.max() > 1
    assert end.abs().max() < 0.05


def test_calibrated_impressions_stop_at_the_smoothed_labels(model):
    for layer in ("fc2", "fc3"):
        made = make_impressions(model, layer, samples=10, recipe="calibrated")
        assert 0.93 < diagnose(model, made)["confidence"].mean() < 0.97


@pytest.mark.parametrize("recipe", ["natural", "calibrated"])
def test_make_impressions_in_chunks_equals_one_batch(model, recipe):
    whole, parts = (
        make_impressions(model, "fc2", samples=3, recipe=recipe, steps=20, memory=m) for m in (2**29, 2**13)
    )
    assert torch.allclose(whole.x, parts.x, atol=1e-4)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_soft_targets_are_distributions_whose_likeliest_class_is_their_own(k, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (40,), generator=generator)
    y = soft_targets(torch.randn(k, 5, generator=generator), labels, (generator, generator))
    assert torch.allclose(y.sum(1), torch.ones(40), atol=1e-5)
    assert y.min() >= 0
    assert torch.equal(y.argmax(1), labels)
    assert 1 / k <= y.amax(1).min()
    assert y.amax(1).max() <= 0.9901


def test_soft_targets_mix_in_similar_classes_most():
    rows = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0], [0, -1.0, 0]])
    draws = tuple(torch.Generator().manual_seed(i) for i in range(2))
    mixed = soft_targets(rows, torch.zeros(2000, dtype=torch.int64), draws).mean(0)
    assert mixed[1] > 1.5 * mixed[2:].max()


def test_natural_impressions_are_ambiguous_and_feasible(model):
    made = make_impressions(model, samples=60)
    p = model.fc3(made.x).softmax(1).gather(1, made.labels[:, None])
    assert made.recipe == "natural"
    assert p.quantile(0.1) < 0.55
    assert p.quantile(0.9) > 0.9
    assert made.x.min() >= 0
    diagnosis = diagnose(model, made)
    assert diagnosis["reached"].mean() > 0.95
    assert diagnosis["spread"].mean() > 0.1
    sure = diagnose(model, make_impressions(model, samples=60, recipe="calibrated"))
    assert diagnosis["entropy"].mean() > 2 * sure["entropy"].mean()
    assert diagnosis["margin"].mean() < sure["margin"].mean()


@pytest.mark.parametrize("layer", ["input", "conv2", "fc2"])
def test_natural_impressions_meet_their_targets_at_every_kind_of_layer(model, layer):
    diagnosis = diagnose(model, make_impressions(model, layer, samples=10))
    assert diagnosis["reached"].mean() > 0.9
    assert 0.5 < diagnosis["confidence"].mean() < 0.8
    assert diagnosis["infeasible"].max() == 0


def test_make_impressions_with_less_noise_gives_smaller_ones(model):
    faint, strong = (make_impressions(model, samples=20, noise=noise).x.norm(dim=1).mean() for noise in (0.1, 1.0))
    assert faint < strong


def test_make_impressions_gives_the_same_bits_for_the_same_seed(model):
    first, second, other = (make_impressions(model, samples=3, seed=s).x for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_make_impressions_shows_every_step_from_noise_to_impression(model):
    seen = []
    made = make_impressions(model, "fc2", samples=1, steps=5, on_step=lambda step, x: seen.append((step, x.clone())))
    assert [step for step, _ in seen] == list(range(6))
    assert torch.equal(seen[-1][1], made.x)


def test_responsive_layers_are_nearly_all_of_a_trained_network(model):
    before = copy.deepcopy(model.state_dict())
    table = responsive_layers(model, tries=4)
    assert list(table.index) == ["conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "fc2", "fc3"]
    assert table["responsive"].sum() >= 6
    assert list(table.index[table["learnable"]]) == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_responsive_layers_reach_the_share(model):
    reached = responsive_layers(model, tries=4, layers=["fc3"], share=1.01)
    assert reached["reached"].item() == 1.0
    assert not reached["responsive"].item()


def test_default_layer_is_the_last_learnable_one_that_responds(model):
    assert default_layer(model) == "fc3"


def test_default_layer_of_a_model_that_sees_nothing_is_refused():
    model = make_model("lenet5", 10)
    torch.nn.init.zeros_(model.fc3.weight)
    with pytest.raises(ValueError, match="layer: .*LeNet5"):
        default_layer(model)


@given(
    st.integers(2, 300),
    st.integers(32, 200),
    st.floats(0.1, 3),
    st.sampled_from([0.0, -float("inf")]),
    st.integers(0, 99),
)
def test_closed_form_equals_bisection(k, width, scale, low, seed):
    torch.manual_seed(seed)
    head = nn.Linear(width, k)
    nn.init.normal_(head.weight, std=scale / width**0.5)
    x0, labels = 0.7 * torch.randn(k, width).clamp(min=0), torch.arange(k)
    x = closed_form(head, x0, labels, Feasible((low, float("inf"))), target=0.95)
    by_bisection, reachable = bisection(head, x0, labels, low, 0.95)
    p = head(x).softmax(1).diagonal()
    assert x.min() >= low
    assert ((p - 0.95).abs() < 0.02)[reachable].all()
    assert F.cosine_similarity(x - x0, by_bisection - x0)[reachable].gt(0.999).all()


def test_calibrated_impressions_of_a_thousand_classes_need_three_steps():
    model = make_model("mobilenet_v3_small", 1000, size=32)
    made = make_impressions(model, "classifier.3", samples=1, recipe="calibrated")
    assert diagnose(model, made)["confidence"].min() >= 0.9


class Head(nn.Module):
    """A head in a part of its own, that does more than its linear layer."""

    def __init__(self, way):
        super().__init__()
        self.fc, self.way = nn.Linear(8, 4), way

    def forward(self, x):
        return self.way(self.fc, x)


@pytest.mark.parametrize(
    "way",
    [
        lambda fc, x: fc(F.relu(x).mean((2, 3))),
        lambda fc, x: fc(F.relu(-x.mean((2, 3)))),
        lambda fc, x: 20 * fc(x.mean((2, 3))),
    ],
)
def test_make_impressions_at_a_head_that_is_more_than_linear(way):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), Head(way))
    net.input_shape = (1, 8, 8)
    made = make_impressions(net, "1", samples=10, recipe="calibrated", steps=400)
    assert diagnose(net, made)["reached"].mean() > 0.9


def test_make_impressions_cuts_the_work_into_chunks_of_the_memory(model):
    sizes = []
    make_impressions(model, "fc2", samples=40, steps=1, memory=2**20, on_step=lambda step, x: sizes.append(x.shape))
    numbers = 8 * 120 + 3 * (84 + 10)
    assert all(4 * numbers * rows <= 2**20 for rows, _ in sizes)
    assert sum(rows for rows, _ in sizes) == 2 * 400  # each chunk is shown before and after its step


def test_responsive_layers_tries_ten_of_many_classes():
    layers = responsive_layers(make_model("mobilenet_v3_small", 200, size=32), tries=2, layers=["classifier.3"])
    assert layers["responsive"].item()


def test_deepinversion_is_nearer_to_the_running_statistics_and_reaches_the_class(normed):
    plain, like = (make_impressions(normed, "input", samples=8, recipe=r) for r in ("calibrated", "deepinversion"))
    assert statistics_distance(normed, like.x) < 0.8 * statistics_distance(normed, plain.x)
    assert diagnose(normed, like)["reached"].min() == 1
    low, high = normed.input_range
    assert low - 1e-5 <= like.x.min() < like.x.max() <= high + 1e-5


def test_deepinversion_leaves_the_running_statistics_as_they_were_and_no_hooks(normed):
    before = {name: tensor.clone() for name, tensor in normed.state_dict().items()}
    make_impressions(normed, "input", samples=2, steps=3, recipe="deepinversion")
    assert all(torch.equal(tensor, before[name]) for name, tensor in normed.state_dict().items())
    with pytest.raises(RuntimeError, match="enough"):
        make_impressions(normed, "input", samples=2, recipe="deepinversion", on_step=stop)
    assert not any(module._forward_pre_hooks for module in normed.modules())


def stop(step, x):
    raise RuntimeError("enough")


@pytest.mark.parametrize("layer", ["input", "fc1", None])
def test_check_recipe_refuses_deepinversion_without_batchnorm_or_inside_the_network(model, normed, layer):
    with pytest.raises(ValueError, match="recipe: got deepinversion"):
        make_impressions(model, layer, recipe="deepinversion")
    with pytest.raises(ValueError, match="recipe: got deepinversion at layer 10"):
        make_impressions(normed, "10", recipe="deepinversion")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"recipe": "deep"}, "recipe: got 'deep'"),
        ({"samples": 0}, "samples: got 0"),
        ({"samples": 1.5}, "samples: got 1.5"),
        ({"steps": -1}, "steps: got -1"),
        ({"seed": -1}, "seed: got -1"),
        ({"noise": float("nan")}, "noise: got nan"),
        ({"memory": 0}, "memory: got 0"),
        ({"layer": "fc9"}, "layer: .*'fc9'"),
        ({"classes": [10]}, r"classes: .*\[10\]"),
        ({"layer": "fc3", "recipe": "drawn", "classes": [1]}, r"classes: got \[1\]"),
    ],
)
def test_make_impressions_names_an_argument_that_is_not_accepted(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_impressions(model, **arguments)


def test_make_impressions_refuses_a_network_that_returns_probabilities(model):
    ended = nn.Sequential(model, nn.Softmax(1))
    ended.input_shape = model.input_shape
    with pytest.raises(ValueError, match="model: Sequential returns probabilities"):
        make_impressions(ended, "0.fc3")


def test_statistics_distance_refuses_a_network_without_batchnorm(model):
    with pytest.raises(ValueError, match="model: got LeNet5"):
        statistics_distance(model, torch.rand(2, 1, 28, 28))


@pytest.mark.parametrize(
    "work",
    [
        lambda net: make_impressions(net, "10", samples=1, steps=1),
        lambda net: make_impressions(net, "input", samples=1, recipe="drawn"),
        lambda net: make_impressions(net, "input", samples=1, steps=1, recipe="deepinversion"),
        lambda net: follow_impression(net, 1, "10", steps=1),
        lambda net: responsive_layers(net, tries=1, layers=["10"]),
        lambda net: statistics_distance(net, torch.rand(2, 1, 28, 28)),
        default_layer,
        lambda net: diagnose(net, Impressions("10", torch.rand(2, 512), torch.arange(2), "natural", 0.0)),
    ],
)
def test_training_mode_and_buffers_stay_as_they_were(normed, work):
    net = copy.deepcopy(normed).train()
    net[1].eval()
    work(net)
    assert [name for name, part in net.named_modules() if not part.training] == ["1"]
    before = normed.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_dropout_of_a_network_in_training_mode_is_off(model):
    made = make_impressions(model, samples=2)
    assert torch.equal(make_impressions(model.train(), samples=2).x, made.x)


def test_a_layer_may_be_named_by_the_number_zero(normed):
    made = make_impressions(normed, 0, samples=1, steps=1, recipe="calibrated")
    assert made.layer == "0"
    assert made.x.shape == (10, 1, 28, 28)
    assert list(responsive_layers(normed, layers=[0], tries=1).index) == ["0"]
    growth, _ = follow_impression(normed, 3, 0, steps=1)
    assert len(growth) == 2


def test_no_function_here_or_in_unlearning_takes_pictures():
    for room in (impressions, recipes, unlearner):
        assert not {"Data", "Split", "load_data"} & set(vars(room))
        for _, function in inspect.getmembers(room, inspect.isfunction):
            assert not {"data", "images", "pictures", "loader"} & set(inspect.signature(function).parameters)


def test_targets_do_not_depend_on_what_all_rows_of_the_head_have_in_common():
    rows = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5).repeat_interleave(3)
    first, shifted = (
        soft_targets(each, labels, tuple(torch.Generator().manual_seed(i) for i in (2, 3)))
        for each in (rows, rows + torch.linspace(-3, 3, 12))
    )
    assert torch.allclose(first, shifted, atol=1e-4)


def test_impressions_start_from_noise_of_their_seed(model):
    made = make_impressions(model, "fc3", samples=2, recipe="published", steps=0, seed=5)
    assert torch.equal(made.x, torch.randn(20, 84, generator=torch.Generator().manual_seed(5)))


def test_targets_are_drawn_from_the_seed(model, monkeypatch):
    seeds = []

    def catch(rows, labels, draws):
        seeds.extend(draw.initial_seed() for draw in draws)
        return soft_targets(rows, labels, draws)

    monkeypatch.setattr("unlearn_lib.zeroshot.impressions.soft_targets", catch)
    make_impressions(model, "fc3", samples=2, seed=5)
    assert seeds == [7, 8]


def test_confidence_is_the_mean_probability_of_the_class(model):
    x = torch.rand(6, 84, generator=torch.Generator().manual_seed(0)) * 9
    labels = torch.tensor([1, 1, 1, 3, 3, 3])
    found = diagnose(model, Impressions("fc3", x, labels, "natural", 0.0))["confidence"]
    p = model.fc3(x).softmax(1)
    assert found.loc[1] == pytest.approx(p[:3, 1].mean().item(), rel=1e-4)
    assert found.loc[3] == pytest.approx(p[3:, 3].mean().item(), rel=1e-4)


def test_responsive_layers_pass_their_seed_on(model, monkeypatch):
    seeds = []

    def catch(*given, seed=0, **named):
        seeds.append(seed)
        return make_impressions(*given, seed=seed, **named)

    monkeypatch.setattr("unlearn_lib.zeroshot.impressions.make_impressions", catch)
    responsive_layers(model, layers=["fc3"], tries=1, seed=9)
    assert seeds == [9]
