"""Every figure against somebody else's: published examples, scikit-learn, and sums written out in full."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from common.models.influence import auroc_figure, patient_codes
from common.statistics import calibrated
from common.statistics.catalogue import METRICS, measure_of
from common.statistics.cells import cells_of
from common.statistics.permutation import holm
from common.statistics.sample import Sample

# SAS/STAT user's guide, PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves": the data of
# DeLong, DeLong and Clarke-Pearson 1988 without missing values. Albumin, total protein, K-G score, whether surgery helped.
TABLE = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
    3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1
    4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1
    4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1
    3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""
OVARIAN = np.array(TABLE.split(), dtype=float).reshape(-1, 4)


def delong_in_full(scores, labels):
    """Area and standard error by the formulas of the paper, pair by pair."""
    wins = np.array([[(a > b) + 0.5 * (a == b) for b in scores[~labels]] for a in scores[labels]])
    above, below = wins.mean(axis=1), wins.mean(axis=0)
    return wins.mean(), np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_delong_on_the_data_of_its_paper(column):
    scores = OVARIAN[:, column] if column < 2 else 10 - OVARIAN[:, column]
    labels = OVARIAN[:, 3] == 1
    area, error = delong_in_full(scores, labels)
    figure = auroc_figure(scores, labels, np.arange(len(OVARIAN)))
    assert figure.value == pytest.approx(area, abs=1e-12)
    assert figure.error == pytest.approx(error, abs=1e-12)


def cohort(seed=0, patients=120, most=3):
    """Clustered images with ties, two scanners, two views that one patient may have both of."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, patients)
    owner = np.repeat(np.arange(patients), counts)
    labels = (rng.random(patients) < 0.35)[owner] ^ (rng.random(len(owner)) < 0.1)
    eta = 1.2 * labels - 0.8 + rng.normal(size=patients)[owner] * 0.7 + rng.normal(size=len(owner)) * 0.5
    attributes = {
        "scanner": np.array(["a", "b"])[rng.integers(0, 2, patients)][owner],
        "view": np.array(["AP", "PA"])[rng.integers(0, 2, len(owner))],
    }
    return Sample(np.round(1 / (1 + np.exp(-eta)), 2), labels, owner, attributes, 0.4)


FAMILIES = [("scanner",), ("view",), ("scanner", "view")]


def parts(sample, family):
    cells = cells_of(sample, family)
    inside = cells.level == 0
    images = np.zeros(len(sample.truth), dtype=bool)
    images[cells.images[inside[cells.cell]]] = True
    return cells, inside.astype(np.float32)[:, None], images


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("metric", ["auroc", "auprc", "brier", "sensitivity", "specificity"])
def test_figures_inside_and_outside_are_those_of_scikit_learn(metric, family):
    sample = cohort()
    cells, member, images = parts(sample, family)
    oracle = {
        "auroc": lambda i: roc_auc_score(sample.truth[i], sample.scores[i]),
        "auprc": lambda i: average_precision_score(sample.truth[i], sample.scores[i]),
        "brier": lambda i: brier_score_loss(sample.truth[i], sample.scores[i]),
        "sensitivity": lambda i: sample.calls[i & sample.truth].mean(),
        "specificity": lambda i: (~sample.calls[i & ~sample.truth]).mean(),
    }[metric]
    found = measure_of(metric, sample, cells).contrast(member)
    assert found.inside[0] == pytest.approx(oracle(images), abs=1e-6)
    assert found.outside[0] == pytest.approx(oracle(~images), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_variance_of_an_auroc_gap_is_the_clustered_one(family):
    """Obuchowski's, as the interval has it, but for its small-sample factors (1% with 60 patients)."""
    sample = cohort()
    cells, member, images = parts(sample, family)
    codes = patient_codes(sample.patients)
    one, two = (auroc_figure(sample.scores, sample.truth, codes, i) for i in (images, ~images))
    found = measure_of("auroc", sample, cells).contrast(member)
    assert np.sqrt(found.variance[0]) == pytest.approx(one.minus(two).error, rel=0.03)


@pytest.mark.parametrize("tied", [False, True])
def test_the_variance_of_an_auroc_gap_with_one_image_a_patient_is_delongs(tied):
    """Both classes' parts of both groups, pair by pair; sums over n and not n - 1, as permutations compare alike with alike."""
    rng = np.random.default_rng(7)
    truth, group = rng.random(40) < 0.4, np.array(["a", "b"])[rng.integers(0, 2, 40)]
    scores = np.round(rng.random(40) * 0.5 + truth * 0.3, 1 if tied else 9)
    sample = Sample(scores, truth, np.array([f"p{n}" for n in range(40)]), {"group": group})
    cells = cells_of(sample, ("group",))
    found = measure_of("auroc", sample, cells).contrast((cells.level == 0).astype(np.float32)[:, None])
    whole = 0.0
    for name in ("a", "b"):
        own, ill = group == name, truth[group == name]
        wins = np.array([[(a > b) + 0.5 * (a == b) for b in scores[own][~ill]] for a in scores[own][ill]])
        whole += wins.mean(axis=1).var() / ill.sum() + wins.mean(axis=0).var() / (~ill).sum()
    assert found.variance[0] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_a_thousand_draws_at_once_are_a_thousand_draws_one_by_one(metric):
    sample = cohort(3)
    cells = cells_of(sample, ("scanner",))
    measure = measure_of(metric, sample, cells)
    member = (np.random.default_rng(1).random((cells.count, 40)) < 0.4).astype(np.float32)
    together = measure.contrast(member)
    for k in range(40):
        one = measure.contrast(member[:, k : k + 1])
        assert together.gap[k] == pytest.approx(one.gap[0], abs=1e-5)
        if together.variance is not None:
            assert together.variance[k] == pytest.approx(one.variance[0], rel=1e-3)


def penalised(parameters, x, y):
    """Minus Firth's penalised likelihood, with its intercept alone or with its slope."""
    eta = parameters[0] + (parameters[1] if len(parameters) > 1 else 1.0) * x
    chance = 1 / (1 + np.exp(-eta))
    design = np.stack([np.ones_like(x), x])[: len(parameters)]
    information = (design * chance * (1 - chance)) @ design.T
    return -(np.sum(y * eta - np.logaddexp(0, eta)) + 0.5 * np.linalg.slogdet(information)[1])


@pytest.mark.parametrize("seed", range(3))
def test_slope_and_intercept_are_where_the_penalised_likelihood_is_largest(seed):
    sample = cohort(seed)
    cells, member, images = parts(sample, ("scanner",))
    x = np.log(sample.scores[images] / (1 - sample.scores[images]))
    y = sample.truth[images].astype(float)
    for name, start in (("slope", [0.0, 1.0]), ("intercept", [0.0])):
        best = minimize(penalised, start, args=(x, y), tol=1e-10).x[-1]
        found = measure_of(name, sample, cells).contrast(member).inside[0]
        assert found == pytest.approx(best, abs=1e-3)


def test_a_perfect_ranking_has_a_slope():
    labels = np.repeat([0, 1], 10)
    sample = Sample(0.2 + 0.6 * labels, labels, np.arange(20), {"g": np.tile(["a", "b"], 10)})
    cells = cells_of(sample, ("g",))
    found = measure_of("slope", sample, cells).contrast((cells.level == 0).astype(np.float32)[:, None])
    assert 1 < found.inside[0] < 10


def test_the_calibration_error_is_kumars_where_scores_are_constant_in_a_bin():
    """E^2 = sum of w (y - s)^2 - y (1 - y) / (n - 1) over bins, one image a patient (Kumar et al. 2019)."""
    rng = np.random.default_rng(2)
    scores = np.repeat([0.1, 0.5, 0.9], 40)
    labels = rng.random(120) < np.repeat([0.2, 0.5, 0.7], 40)
    sample = Sample(scores, labels, np.arange(120), {"g": np.full(120, "a")})
    cells = cells_of(sample, ("g",))
    found = calibrated.error(cells, scores, sample.truth, bins=3)(np.ones((120, 1), dtype=np.float32))[0]
    shares = np.array([labels[scores == s].mean() for s in (0.1, 0.5, 0.9)])
    squared = np.mean((shares - [0.1, 0.5, 0.9]) ** 2 - shares * (1 - shares) / 39)
    assert found == pytest.approx(np.sign(squared) * np.sqrt(abs(squared)))


@pytest.mark.parametrize("images", [1, 4])
def test_the_squared_calibration_error_of_a_calibrated_model_is_zero_on_average(images):
    """However many images a patient has; the plain error is far from it."""
    rng = np.random.default_rng(5)
    squared = []
    for _ in range(400):
        chance = rng.beta(1, 2, 80)
        owner = np.repeat(np.arange(80), images)
        labels = (rng.random(80) < chance)[owner]
        sample = Sample(chance[owner], labels, owner, {"g": np.full(len(owner), "a")})
        cells = cells_of(sample, ("g",))
        value = calibrated.error(cells, sample.scores, sample.truth)(np.ones((80, 1), dtype=np.float32))[0]
        squared.append(np.sign(value) * value**2)
    assert abs(np.mean(squared)) < 3 * np.std(squared) / 20


def test_holm_is_the_textbook_example():
    """Holm by hand: 0.01, 0.02, 0.03, 0.04 with four tests; and adjusted values never fall."""
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])
