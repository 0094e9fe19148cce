"""Gaps between groups: the planted one is named, the shared patient is not counted twice."""

from __future__ import annotations

import numpy as np
import pytest

from common.models import metrics
from common.models.fairness import Judged, gaps, widest


def scanners(seed: int = 0, images: int = 600) -> tuple[Judged, np.ndarray]:
    """Three scanners; `weak` blurs away most of the difference."""
    rng = np.random.default_rng(seed)
    groups = np.array(["good", "fine", "weak"])[np.arange(images) % 3]
    labels = (rng.random(images) < 0.4).astype(float)
    scores = rng.normal(size=images) + labels * np.where(groups == "weak", 0.4, 2.0)
    return Judged(scores, labels, np.arange(images), 1.0), groups


@pytest.mark.parametrize("metric", ["auroc", "sensitivity"])
def test_the_weak_scanner_is_named(metric):
    judged, groups = scanners()
    found = {g.level: g.difference for g in gaps(metric, judged, groups)}
    assert found["weak"].high < 0
    assert found["good"].low > 0 or found["fine"].low > 0
    gap = widest(metric, judged, groups)
    assert gap.against == "weak"
    assert gap.difference.low > 0


def test_a_gap_is_the_difference_of_the_metric():
    judged, groups = scanners()
    inside = groups == "weak"
    found = next(g for g in gaps("auroc", judged, groups) if g.level == "weak")
    each = [
        metrics.auroc(judged.scores[i], judged.labels[i], judged.patients[i]).value for i in (inside, ~inside)
    ]
    assert found.difference.value == pytest.approx(each[0] - each[1])


def test_patients_in_both_groups_are_paired():
    """Every patient imaged in both projections with like scores: the gap is surer than between strangers."""
    rng = np.random.default_rng(1)
    labels = np.tile(rng.random(200) < 0.4, 2).astype(float)
    own = np.tile(rng.normal(size=200), 2)
    scores = labels + own + rng.normal(0, 0.2, 400)
    groups = np.repeat(["AP", "PA"], 200)
    same = gaps("auroc", Judged(scores, labels, np.tile(np.arange(200), 2)), groups)[0].difference
    strangers = gaps("auroc", Judged(scores, labels, np.arange(400)), groups)[0].difference
    assert same.value == strangers.value
    assert same.high - same.low < 0.5 * (strangers.high - strangers.low)


def test_groups_that_cannot_be_measured_are_left_out():
    """A group without the finding, or whose finding is one patient's, has no gap to report."""
    labels = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    groups = np.array(["a"] * 4 + ["b"] * 3 + ["c"] * 2 + ["d"] * 2)
    judged = Judged(np.linspace(0, 1, 11)[::-1] + labels, labels, np.arange(11))
    assert [g.level for g in gaps("auroc", judged, groups)] == ["a"]
    assert widest("auroc", judged, groups) is None


def test_perfect_groups_still_leave_doubt():
    """Sensitivity of 1 in both groups is no proof of a gap of exactly 0."""
    labels = np.tile([1.0, 0.0], 20)
    judged = Judged(labels, labels, np.arange(40), 0.5)
    found = gaps("sensitivity", judged, np.repeat(["a", "b"], 20))[0].difference
    assert found.value == 0
    assert found.low < -0.1 < 0.1 < found.high


def test_many_classes_are_averaged():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 300)
    scores = rng.random((300, 3)) + (truth[:, None] == np.arange(3))
    judged = Judged(scores, truth, np.arange(300))
    found = gaps("specificity", judged, np.arange(300) % 2)
    assert [g.level for g in found] == ["0", "1"]
    assert found[0].difference.value == pytest.approx(-found[1].difference.value)
