"""Intervals hold the truth as often as they say: simulated hospitals, several images a patient."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from common.models import fairness, metrics
from common.models.bootstrap import Bootstrap

REPLICATES = 300
FEW = Bootstrap(resamples=200)


def hospital(rng: np.random.Generator, area: float, positives: int = 25, negatives: int = 60):
    """One to four correlated images a patient (correlation 0.6) at a true AUROC of `area`.

    Scores are normal with variance 1 in each class, shifted by sqrt(2) times the normal quantile.
    """
    counts = rng.integers(1, 5, positives + negatives)
    patients = np.repeat(np.arange(len(counts)), counts)
    labels = (patients < positives).astype(float)
    own, each = rng.normal(size=len(counts))[patients], rng.normal(size=len(patients))
    shift = np.sqrt(2) * NormalDist().inv_cdf(area)
    return shift * labels + np.sqrt(0.6) * own + np.sqrt(0.4) * each, labels, patients


def held(estimates, truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


@pytest.mark.parametrize("area", [0.7, 0.85, 0.97])
def test_auroc_intervals_hold_the_truth(area):
    rng = np.random.default_rng(11)
    found = [metrics.auroc(*hospital(rng, area)) for _ in range(REPLICATES)]
    assert 0.90 <= held(found, area) <= 0.99


def test_intervals_that_forget_the_patient_do_not():
    """The same simulation with every image its own patient falls short: the test can fail."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(REPLICATES):
        scores, labels, patients = hospital(rng, 0.85)
        found.append(metrics.auroc(scores, labels, np.arange(len(patients))))
    assert held(found, 0.85) < 0.88


def test_rates_hold_the_truth():
    """Sensitivity and specificity at a threshold with 80% of either."""
    rng = np.random.default_rng(12)
    cut = NormalDist().inv_cdf(0.8)
    area = NormalDist().cdf(2 * cut / np.sqrt(2))
    draws = [hospital(rng, area) for _ in range(REPLICATES)]
    assert 0.90 <= held([metrics.sensitivity(*d, cut) for d in draws], 0.8) <= 0.99
    assert 0.90 <= held([metrics.specificity(*d, cut) for d in draws], 0.8) <= 0.99


@pytest.mark.parametrize("metric", ["auprc", "f1", "precision"])
def test_bootstrapped_intervals_hold_the_truth(metric):
    """The truth is the figure of one very large hospital with the same share of positives."""
    rng = np.random.default_rng(13)

    def measure(sample, bootstrap):
        if metric == "auprc":
            return metrics.auprc(*sample, bootstrap)
        return getattr(metrics, metric)(*sample, 0.8, bootstrap)

    large = measure(hospital(rng, 0.85, 10_000, 24_000), Bootstrap(resamples=1)).value
    found = [measure(hospital(rng, 0.85), FEW) for _ in range(REPLICATES)]
    assert 0.90 <= held(found, large) <= 0.99


def test_differences_of_equal_models_hold_zero():
    """Two models equally good and correlated: at most the stated share of false alarms."""
    rng = np.random.default_rng(14)
    found = []
    for _ in range(REPLICATES):
        scores, labels, patients = hospital(rng, 0.85)
        pair = (scores + rng.normal(0, 0.5, len(scores)), scores + rng.normal(0, 0.5, len(scores)))
        found.append(metrics.auroc_difference(*pair, labels, patients))
    assert 0.90 <= held(found, 0.0) <= 0.99


@pytest.mark.parametrize("metric", ["auroc", "sensitivity", "specificity"])
def test_gaps_that_are_not_there_are_seldom_claimed(metric):
    """Three scanners equally good: all three gaps hold zero together, and so does the widest."""
    rng = np.random.default_rng(15)
    all_hold, widest_holds = [], []
    for _ in range(REPLICATES):
        scores, labels, patients = hospital(rng, 0.85, 45, 90)
        groups = np.array(["a", "b", "c"])[rng.integers(0, 3, patients.max() + 1)][patients]
        judged = fairness.Judged(scores, labels, patients, 0.7)
        found = fairness.gaps(metric, judged, groups)
        all_hold.append(all(g.difference.low <= 0 <= g.difference.high for g in found))
        widest = fairness.widest(metric, judged, groups)
        widest_holds.append(widest.difference.low <= 0 <= widest.difference.high)
    assert np.mean(all_hold) >= 0.90
    assert np.mean(widest_holds) >= 0.90
