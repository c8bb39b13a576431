"""Metrics on numbers that a hand computes."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_network

from unlearn_lib import agreement, js_divergence, misplaced_answers, weight_changes, zrf

HALVES = torch.zeros(3, 2)
MIXED = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, -torch.inf]])  # three pictures: 1/2, 3/4 and 1 on class 0

logits = st.lists(st.floats(-30, 30), min_size=4, max_size=4).map(lambda row: torch.tensor([row]))


def entropy(*p):
    return -sum(x * math.log(x) for x in p if x)


def test_js_of_disjoint_one_hots_is_ln_2():
    one_hots = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    assert js_divergence(one_hots[:1], one_hots[1:]).item() == pytest.approx(math.log(2))


@given(logits, logits)
def test_js_is_symmetric_and_lies_between_0_and_ln_2(first, second):
    value = js_divergence(first, second).item()
    assert value == pytest.approx(js_divergence(second, first).item(), abs=1e-12)
    assert 0 <= value <= math.log(2)
    assert js_divergence(first, first).item() == pytest.approx(0, abs=1e-12)


def test_js_of_three_pictures_and_zrf_is_one_minus_their_mean():
    half = entropy(0.5, 0.5)
    by_hand = [0.0]
    for p in (0.75, 1.0):
        mixture = (0.5 + p) / 2
        by_hand.append(entropy(mixture, 1 - mixture) - (half + entropy(p, 1 - p)) / 2)
    assert js_divergence(HALVES, MIXED).tolist() == pytest.approx(by_hand)
    assert zrf(HALVES, MIXED) == pytest.approx(1 - sum(by_hand) / 3)


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("metric", [js_divergence, zrf])
def test_logits_that_make_no_distribution_are_refused(bad, metric):
    with pytest.raises(ValueError, match="logits: got NaN"):
        metric(torch.tensor([bad]), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="logits: got NaN"):
        metric(torch.zeros(1, 2), torch.tensor([bad]))


def test_js_accepts_two_networks_of_different_precision():
    assert js_divergence(HALVES.half(), MIXED.double()).tolist() == js_divergence(HALVES, MIXED).tolist()


def test_agreement_of_three_pictures():
    first = torch.tensor([[1, 0], [0, 1], [1, 0]])
    second = torch.tensor([[2, 1], [3, 1], [5, 0]])
    assert agreement(first, second) == pytest.approx(2 / 3)
    assert agreement(first, first) == 1


def test_misplaced_answers_averages_over_classes_and_not_over_pictures():
    labels = torch.tensor([1, 1, 1, 3])
    golden = torch.tensor([0, 2, 2, 2])
    assert misplaced_answers(torch.tensor([2, 2, 2, 2]), golden, labels, 5) == pytest.approx(1 / 6)  # of 1/3 and 0
    assert misplaced_answers(torch.tensor([0, 2, 2, 0]), golden, labels, 5) == pytest.approx(1 / 2)  # of 0 and 1


def test_misplaced_answers_compares_counts_in_any_order():
    labels = torch.tensor([1, 1, 1, 3])
    golden = torch.tensor([0, 2, 2, 2])
    assert misplaced_answers(torch.tensor([2, 2, 0, 2]), golden, labels, 5) == 0
    assert misplaced_answers(labels, golden, labels, 5) == 1


def test_misplaced_answers_of_three_classes_is_a_mean_and_not_a_median():
    labels = torch.tensor([1, 3, 4])
    golden = torch.tensor([0, 0, 0])
    assert misplaced_answers(torch.tensor([0, 0, 2]), golden, labels, 5) == pytest.approx(1 / 3)


def test_weight_changes_names_each_changed_tensor_with_its_relative_change():
    net = tiny_network(5)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias.mul_(1.5)
        other.norm.running_var.mul_(0)
    assert weight_changes(net, net) == {}
    assert weight_changes(other, net) == {"head.bias": pytest.approx(0.5, rel=1e-5), "norm.running_var": 1.0}
    assert weight_changes(net, other)["head.bias"] == pytest.approx(1 / 3, rel=1e-5)


def test_a_tensor_of_zeros_changes_by_its_new_norm_over_1e_12():
    net = tiny_network(5)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.norm.running_mean.fill_(0.5)  # four channels: a norm of 1
    assert weight_changes(other, net) == {"norm.running_mean": pytest.approx(1e12)}
