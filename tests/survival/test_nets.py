"""Losses against torchsurv and by hand, NumPy against torch, and that the networks find what there is to find."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from wsikit.metrics import concordance_index
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.forward import attention, attention_risk, discrete_survival, mlp
from wsikit.survival.nets import GatedAttention, Perceptron, bins_of, cox_loss, hazard_bins, hazard_loss
from wsikit.survival.recipe import Patients, fit_signature

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchsurv.loss.cox import neg_partial_log_likelihood


def test_the_cox_loss_is_that_of_torchsurv_with_ties(train: FollowUp) -> None:
    rng = np.random.default_rng(0)
    risk = torch.from_numpy(rng.normal(size=len(train))).requires_grad_()
    time, event = torch.from_numpy(np.round(train.time_months / 5) * 5), torch.from_numpy(train.event)
    expected = neg_partial_log_likelihood(risk, event, time, ties_method="efron", reduction="sum")
    mine = cox_loss(risk, time, event) * train.event.sum()
    assert float(mine) == pytest.approx(float(expected), rel=1e-6)
    assert torch.autograd.grad(mine, risk)[0].numpy() == pytest.approx(torch.autograd.grad(expected, risk)[0].numpy(), abs=1e-6)


def test_the_cox_loss_does_not_overflow(train: FollowUp) -> None:
    risk = torch.linspace(-400, 400, len(train)).float()
    assert torch.isfinite(cox_loss(risk, torch.from_numpy(train.time_months), torch.from_numpy(train.event)))


def test_the_hazard_loss_by_hand() -> None:
    """h = 1/4, 1/2: died in the second interval ln(3/4 · 1/2); left after the first ln(3/4)."""
    logits = torch.log(torch.tensor([[1 / 3, 1.0]] * 2))
    loss = hazard_loss(logits, torch.tensor([1, 1]), torch.tensor([True, False]))
    assert float(loss) == pytest.approx(-(np.log(3 / 8) + np.log(3 / 4)) / 2, rel=1e-6)
    f = FollowUp(np.array(list("abcde")), np.array([1.0, 10.0, 11.0, 14.9, 50.0]), np.array([True, True, False, False, False]), "OS")
    assert bins_of(f, np.array([10.0, 20.0])).tolist() == [0, 0, 1, 1, 2]


def test_discrete_survival_is_a_product_and_linear_between() -> None:
    logits = np.log(np.array([[1 / 3, 1.0]]))
    found = discrete_survival(logits, np.array([10.0, 20.0]), np.array([0.0, 5.0, 10.0, 15.0, 20.0, 99.0]))
    assert found[0].tolist() == pytest.approx([1, 0.875, 0.75, 0.5625, 0.375, 0.375])


def test_numpy_says_what_torch_says() -> None:
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    net = Perceptron(5, 3, bias=True)
    x = rng.normal(size=(40, 5))
    for _ in range(5):
        net(torch.from_numpy(x).float())  # batch norm learns means and variances
    net.eval()
    with torch.no_grad():
        assert mlp(net.tensors(), x) == pytest.approx(net(torch.from_numpy(x).float()).numpy(), abs=1e-5)
    bags = [rng.normal(size=(n, 5)).astype(np.float32) for n in (1, 7, 30)]
    pool = GatedAttention(5).eval()
    with torch.no_grad():
        expected = pool(torch.from_numpy(np.concatenate(bags)), torch.tensor([0] + [1] * 7 + [2] * 30), 3).numpy()
    tensors = pool.tensors(np.zeros(5), np.ones(5))
    assert attention_risk(tensors, bags) == pytest.approx(expected, abs=1e-5)
    a, score = attention(tensors, bags[2])
    assert a.sum() == pytest.approx(1)
    assert float((a * score).sum()) == pytest.approx(attention_risk(tensors, bags[2:])[0], abs=1e-9), "the log risk is the mean score, by attention"


@pytest.fixture(scope="module")
def cohort() -> Patients:
    """160 patients: a column that acts by its square, and bags of 20 tiles of which one in five carries the risk."""
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-2, 2, 160), rng.normal(size=160)
    time, censored = rng.exponential(30 * np.exp(-1.2 * (x**2 - 4 / 3) - 1.0 * y)), rng.uniform(20, 90, 160)
    follow = FollowUp(np.arange(160).astype(str), np.minimum(time, censored).clip(0.1), time <= censored, "OS")
    bags = []
    for value in y:
        tiles = rng.normal(size=(20, 6)).astype(np.float32)
        tiles[:4, 0] += 4
        tiles[:4, 1] += 2 * value
        bags.append(rng.permutation(tiles))
    return Patients(pd.DataFrame({"x": x, "noise": rng.normal(size=160)}), follow, bags)


@pytest.mark.parametrize("kind", ["deepsurv", "discrete"])
def test_networks_find_what_is_not_a_line(cohort: Patients, kind: str) -> None:
    _, scores = fit_signature(kind, ["x", "noise"], cohort)  # type: ignore[arg-type]
    linear = concordance_index(cohort.follow.time_months, cohort.follow.event, cohort.table["x"].to_numpy()).c_index
    assert abs(linear - 0.5) < 0.08
    assert concordance_index(cohort.follow.time_months, cohort.follow.event, scores).c_index > 0.65


def test_attention_finds_the_tiles_that_matter_and_repeats_itself(cohort: Patients) -> None:
    signature, scores = fit_signature("attention", [], cohort, seed=1)
    carried = [float(bag[np.argsort(-bag[:, 0])[:4], 1].mean()) for bag in cohort.bags or []]
    assert np.corrcoef(scores, carried)[0, 1] > 0.55, "out of fold, from the four tiles of twenty that carry the risk"
    again, _ = fit_signature("attention", [], cohort, seed=1)
    assert signature.score(cohort).tolist() == again.score(cohort).tolist()
    assert len(hazard_bins(cohort.follow)) == 10
