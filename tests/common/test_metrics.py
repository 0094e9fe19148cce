"""Metrics agree with independent implementations, and with each other at the ends of the scale."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn import metrics as oracle

from common.errors import DataError
from common.messages import Estimate
from common.models import metrics
from common.models.bootstrap import Bootstrap
from common.models.influence import auroc_figure
from common.models.intervals import wilson

RNG = np.random.default_rng(7)


def cohort(images: int = 240, patients: int = 90, shift: float = 1.2, seed: int = 0):
    """Scores in [0, 1] with ties, labels and patients; several images a patient, some of both kinds."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(images) < 0.35).astype(float)
    scores = np.round(1 / (1 + np.exp(-rng.normal(shift * labels - 0.6))), 2)
    return scores, labels, rng.integers(0, patients, images)


@pytest.mark.parametrize("seed", range(4))
def test_values_are_sklearns(seed):
    """The point values, ties included, are those of a library everyone knows."""
    scores, labels, patients = cohort(seed=seed)
    calls = scores >= 0.4
    few = Bootstrap(resamples=100)
    pairs = [
        (metrics.auroc(scores, labels, patients), oracle.roc_auc_score(labels, scores)),
        (metrics.auprc(scores, labels, patients, few), oracle.average_precision_score(labels, scores)),
        (metrics.f1(scores, labels, patients, 0.4, few), oracle.f1_score(labels, calls)),
        (metrics.precision(scores, labels, patients, 0.4, few), oracle.precision_score(labels, calls)),
        (metrics.sensitivity(scores, labels, patients, 0.4), oracle.recall_score(labels, calls)),
        (metrics.specificity(scores, labels, patients, 0.4), oracle.recall_score(labels, calls, pos_label=0)),
    ]
    for found, expected in pairs:
        assert found.value == pytest.approx(expected, abs=1e-12)
        assert 0 <= found.low < found.value < found.high <= 1


def delong_covariance(scores: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong 1988 by its definition, every pair compared: areas and their covariance matrix."""
    kernel = [
        (s[labels == 1][:, None] > s[labels == 0]) + 0.5 * (s[labels == 1][:, None] == s[labels == 0])
        for s in scores
    ]
    tens, ones = np.array([k.mean(1) for k in kernel]), np.array([k.mean(0) for k in kernel])
    return np.array([k.mean() for k in kernel]), np.cov(tens) / tens.shape[1] + np.cov(ones) / ones.shape[1]


def test_one_image_a_patient_is_delong():
    """Without clusters the variance, and that of a paired difference, are DeLong's to rounding."""
    scores, labels, _ = cohort()
    other = scores + RNG.normal(size=len(scores)) / 3
    patients = np.arange(len(scores))
    areas, covariance = delong_covariance([scores, other], labels)
    assert metrics.auroc_of(scores, labels, patients).error ** 2 == pytest.approx(covariance[0, 0])
    found = metrics.auroc_difference(scores, other, labels, patients)
    wide = 1.959964 * np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    expected = areas[0] - areas[1] + np.array([0, -wide, wide])
    assert [found.value, found.low, found.high] == pytest.approx(list(expected), abs=1e-6)


def obuchowski_variance(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> float:
    """Obuchowski 1997, equations written out cluster by cluster."""
    sick, well = scores[labels == 1], scores[labels == 0]
    m, n, ids = len(sick), len(well), np.unique(patients)

    def beats(a: float, b: float) -> float:
        return float(a > b) + 0.5 * float(a == b)

    area = sum(beats(a, b) for a, b in product(sick, well)) / (m * n)
    tens = {a: sum(beats(a, b) for b in well) / n for a in set(sick)}
    ones = {b: sum(beats(a, b) for a in sick) / m for b in set(well)}
    ten = [sum(tens[s] - area for s in scores[(patients == i) & (labels == 1)]) for i in ids]
    one = [sum(ones[s] - area for s in scores[(patients == i) & (labels == 0)]) for i in ids]
    i10, i01, i = len(set(patients[labels == 1])), len(set(patients[labels == 0])), len(ids)
    s10 = i10 / ((i10 - 1) * m) * sum(t * t for t in ten)
    s01 = i01 / ((i01 - 1) * n) * sum(t * t for t in one)
    s11 = i / (i - 1) * sum(a * b for a, b in zip(ten, one, strict=True))
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("seed", range(3))
def test_several_images_a_patient_is_obuchowski(seed):
    """With clusters the variance is the published one, but for the factor of the cross term (under 2%)."""
    scores, labels, patients = cohort(seed=seed)
    expected = obuchowski_variance(scores, labels, patients)
    assert metrics.auroc_of(scores, labels, patients).error ** 2 == pytest.approx(expected, rel=0.02)


def test_copying_every_image_of_a_patient_makes_nothing_surer():
    """Ten copies of each image are not ten times the evidence; an unclustered interval would shrink."""
    scores, labels, patients = cohort()
    patients = np.arange(len(scores))
    once = (scores, labels, patients)
    often = tuple(np.repeat(a, 10) for a in once)
    few = Bootstrap(resamples=200)
    for measure in (
        metrics.auroc,
        lambda *a: metrics.auprc(*a, few),
        lambda *a: metrics.f1(*a, 0.4, few),
        lambda *a: metrics.sensitivity(*a, 0.4),
        lambda *a: metrics.specificity(*a, 0.4),
    ):
        a, b = measure(*once), measure(*often)
        assert [a.value, a.low, a.high] == pytest.approx([b.value, b.low, b.high], abs=0.01)


def test_names_of_patients_do_not_matter():
    scores, labels, patients = cohort()
    names = np.array([f"p{p:04d}" for p in patients])
    assert metrics.auroc(scores, labels, patients) == metrics.auroc(scores, labels, names)


@pytest.mark.parametrize("turn", [1, -1])
def test_complete_separation_still_has_an_interval(turn):
    """AUROC 1 from 8 and 20 patients is not certainty: the exact bound is 0.025 ** (1 / 8)."""
    labels = np.array([1.0] * 8 + [0.0] * 20)
    found = metrics.auroc(turn * labels, labels, np.arange(28))
    ends = sorted(abs(x - (turn < 0)) for x in (found.low, found.high))
    assert ends == pytest.approx([0.025 ** (1 / 8), 1.0])
    assert found.value == (turn > 0)


def test_copies_do_not_sharpen_complete_separation():
    labels = np.array([1.0] * 80 + [0.0] * 200)
    patients = np.concatenate([np.arange(80) % 8, 8 + np.arange(200) % 20])
    assert metrics.auroc(labels, labels, patients).low == pytest.approx(0.025 ** (1 / 8))


def test_a_single_patient_with_the_finding_says_nothing():
    """No variance can be had from one patient, however many images."""
    labels = np.array([1.0, 1, 1, 0, 0, 0, 0])
    found = metrics.auroc(np.array([0.9, 0.2, 0.8, 0.1, 0.3, 0.5, 0.2]), labels, [1, 1, 1, 2, 3, 4, 5])
    assert (found.low, found.high) == (0.0, 1.0)


def test_constant_scores_are_chance_with_an_interval():
    found = metrics.auroc(np.zeros(40), np.arange(40) % 2, np.arange(40))
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_flawless_calls_still_have_an_interval():
    """F1, precision and AUPRC of 1: no resample holds an error, yet the next patient may."""
    labels = np.array([1.0] * 12 + [0.0] * 20)
    for measure in (
        metrics.auprc,
        lambda *a: metrics.f1(*a, 0.5),
        lambda *a: metrics.precision(*a, 0.5),
    ):
        found = measure(labels, labels, np.arange(32))
        assert found == Estimate(1.0, pytest.approx(0.025 ** (1 / 12)), 1.0)


def test_wilson_is_the_published_interval():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    found = wilson(81 / 263, 263, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0.0, 20, 0.95).high == pytest.approx(0.1611, abs=1e-4)


@pytest.mark.parametrize(
    ("measure", "labels"),
    [
        (metrics.auroc, np.ones(5)),
        (metrics.auroc, np.zeros(5)),
        (metrics.auprc, np.zeros(5)),
        (lambda *a: metrics.sensitivity(*a, 0.5), np.zeros(5)),
        (lambda *a: metrics.specificity(*a, 0.5), np.ones(5)),
        (lambda *a: metrics.precision(*a, 2.0), np.ones(5)),
    ],
)
def test_a_figure_that_does_not_exist_is_refused_by_name(measure, labels):
    with pytest.raises(DataError) as caught:
        measure(np.linspace(0, 1, 5), labels, np.arange(5))
    assert caught.value.code == "one-class"


@pytest.mark.parametrize("scores", [np.zeros(4), np.array([0.1, np.nan, 0.2, 0.3, 0.4])])
def test_scores_that_do_not_belong_to_the_labels_are_refused(scores):
    with pytest.raises(DataError):
        metrics.auroc(scores, np.array([0, 1, 0, 1, 1]), np.arange(len(scores)))


def test_positives_alone_give_sensitivity_alone():
    """As the external hospital with positives only."""
    scores, patients = RNG.random(30), np.arange(30)
    found = metrics.sensitivity(scores, np.ones(30), patients, 0.5)
    assert found.value == (scores >= 0.5).mean()


def many(seed: int = 0):
    """Four classes: scores that sum to 1, class numbers, and the same as yes or no a class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)) + 1.5 * (truth[:, None] == np.arange(4))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return scores, truth, rng.integers(0, 150, 300)


def test_multiclass_is_the_macro_average_of_each_against_the_rest():
    scores, truth, patients = many()
    few = Bootstrap(resamples=100)
    calls = scores.argmax(1)
    expected = oracle.roc_auc_score(truth, scores, multi_class="ovr")
    assert metrics.auroc(scores, truth, patients).value == pytest.approx(expected)
    assert metrics.f1(scores, truth, patients, 0.5, few).value == pytest.approx(
        oracle.f1_score(truth, calls, average="macro")
    )
    assert metrics.sensitivity(scores, truth, patients, 0.5).value == pytest.approx(
        oracle.recall_score(truth, calls, average="macro")
    )


def test_multilabel_is_the_macro_average_of_outputs():
    scores, truth, patients = many(1)
    labels = (np.eye(4)[truth] + (RNG.random((300, 4)) < 0.1) > 0).astype(float)
    few = Bootstrap(resamples=100)
    assert metrics.auroc(scores, labels, patients).value == pytest.approx(
        oracle.roc_auc_score(labels, scores, average="macro")
    )
    assert metrics.auprc(scores, labels, patients, few).value == pytest.approx(
        oracle.average_precision_score(labels, scores, average="macro")
    )
    assert metrics.precision(scores, labels, patients, 0.3, few).value == pytest.approx(
        oracle.precision_score(labels, scores >= 0.3, average="macro")
    )


def test_a_class_without_images_is_left_out_of_the_average():
    scores, truth, patients = many(2)
    kept = truth != 3
    found = metrics.auroc(scores[kept], truth[kept], patients[kept])
    each = [auroc_figure(scores[kept, k], truth[kept] == k, np.arange(kept.sum())).value for k in range(3)]
    assert found.value == pytest.approx(np.mean(each))


def test_youden_separates_best():
    """No other threshold has a larger J, and the lower of two equally good ones is taken."""
    scores, labels, _ = cohort()
    best = metrics.youden_threshold(scores, labels)

    def quality(t: float) -> float:
        return (scores[labels == 1] >= t).mean() + (scores[labels == 0] < t).mean() - 1

    assert quality(best) == pytest.approx(max(quality(t) for t in np.unique(scores)))
    assert metrics.youden_threshold(np.array([0.1, 0.2, 0.6, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(
        0.4
    )
    assert metrics.youden_threshold(np.array([0.2, 0.4, 0.6, 0.8]), np.array([0, 1, 0, 1])) == pytest.approx(
        0.3
    )
    with pytest.raises(DataError):
        metrics.youden_threshold(np.array([0.2, 0.4]), np.array([1, 1]))


def test_calibration_by_hand():
    """Three bins filled by hand; a score of exactly 1 belongs to the last; copies count one patient."""
    scores, labels = np.array([0.05, 0.15, 0.15, 1.0]), np.array([0, 1, 0, 1])
    bins = metrics.calibration(scores, labels, [0, 1, 1, 2])
    assert [(b.mean_score, b.observed, b.patients) for b in bins] == [
        (0.05, 0.0, 1),
        (pytest.approx(0.15), 0.5, 1),
        (1.0, 1.0, 1),
    ]
    assert metrics.ece(scores, labels) == pytest.approx((0.05 + 2 * 0.35 + 0) / 4)


def test_a_calibrated_model_shows_the_chance_error_of_its_size():
    """The facts: about 0.075 with 100 images, which a reader must not take for a fault."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        scores = rng.random(100)
        found.append(metrics.ece(scores, rng.random(100) < scores))
    assert np.mean(found) == pytest.approx(0.10, abs=0.04)


@pytest.mark.parametrize("metric", ["auroc", "auprc", "f1", "precision", "sensitivity", "specificity"])
def test_a_model_differs_from_itself_by_nothing(metric):
    scores, labels, patients = cohort()
    few = Bootstrap(resamples=100)
    found = metrics.difference(metric, (scores, scores), labels, patients, threshold=0.4, bootstrap=few)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", ["auroc", "auprc", "sensitivity"])
def test_pairing_makes_a_difference_surer(metric):
    """Two models that agree on most images differ with less doubt than two hospitals would."""
    scores, labels, patients = cohort()
    other = np.clip(scores + np.random.default_rng(1).normal(0, 0.05, len(scores)), 0, 1)
    few = Bootstrap(resamples=300)
    found = metrics.difference(metric, (scores, other), labels, patients, threshold=0.4, bootstrap=few)
    alone = {
        "auroc": metrics.auroc(scores, labels, patients),
        "auprc": metrics.auprc(scores, labels, patients, few),
        "sensitivity": metrics.sensitivity(scores, labels, patients, 0.4),
    }[metric]
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.8 * (alone.high - alone.low)


def test_a_difference_from_perfection_is_not_certain():
    """One model separates completely: the paired variance vanishes for it, the doubt does not."""
    _, labels, patients = cohort(images=40, patients=40)
    found = metrics.auroc_difference(labels, labels + RNG.normal(0, 0.4, 40), labels, patients)
    assert found.low < found.value < found.high
    both = metrics.auroc_difference(labels, labels * 2 + np.arange(40) / 100, labels, patients)
    assert both.value == 0


def test_the_same_seed_draws_the_same_interval():
    scores, labels, patients = cohort()
    runs = [metrics.auprc(scores, labels, patients, Bootstrap(resamples=100, seed=s)) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
