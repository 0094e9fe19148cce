"""Are the figures right, and does no small cell get out, not even by subtraction?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from client.evaluation import Scores, best_threshold, compare, log_loss, measure, predict, progress
from client.suppression import Cell, releasable, suppressed_levels
from common.errors import DataError, WrongOrder
from common.models import build
from tests.client.few_patients import few_patients, small_plan

PLAN = small_plan(evaluation={"groups": ["projection", "sex"], "bootstrap": 100})


def scored(levels: dict[str, tuple[int, int]], seed=0, separation=1.5) -> Scores:
    """Two images for each of so many (positive, negative) patients per projection."""
    rng = np.random.default_rng(seed)
    truth, projection = [], []
    for level, (positives, negatives) in levels.items():
        truth += [1.0] * positives + [0.0] * negatives
        projection += [level] * (positives + negatives)
    patient_of = np.repeat(np.arange(len(truth)), 2)
    labels = np.array(truth)[patient_of]
    logits = rng.standard_normal(len(labels)) + separation * (labels - 0.5)
    return Scores(
        scores=1 / (1 + np.exp(-logits))[:, None],
        labels=labels[:, None].astype(np.float32),
        patient_of=patient_of,
        attributes={"projection": np.array(projection)[patient_of]},
        pseudonyms=[f"p{i}" for i in range(len(truth))],
    )


def groups(metrics) -> dict:
    return {(g.group, g.level): g for g in metrics.groups}


def hidden(group) -> bool:
    values = [getattr(group, f.name) for f in dataclasses.fields(group) if f.name not in ("group", "level")]
    return all(v is None or v == () for v in values)


def test_figures_of_the_whole_agree_with_an_independent_library():
    scores = scored({"PA": (40, 40), "AP": (30, 50)})
    whole = groups(measure(scores, PLAN, 0.5, 11))["all", "all"]
    assert (whole.positives, whole.negatives) == (70, 90)
    assert whole.auroc.value == pytest.approx(roc_auc_score(scores.labels[:, 0], scores.scores[:, 0]))
    called, truth = scores.scores[:, 0] >= 0.5, scores.labels[:, 0] > 0.5
    assert whole.sensitivity.value == pytest.approx(called[truth].mean())
    assert whole.specificity.value == pytest.approx((~called)[~truth].mean())
    assert whole.precision.value == pytest.approx(truth[called].mean())
    assert whole.auroc.low < whole.auroc.value < whole.auroc.high
    assert all(b.patients >= 11 for b in whole.calibration)


def test_every_level_is_listed_and_groups_the_data_lack_are_left_out():
    found = groups(measure(scored({"PA": (40, 40), "AP": (30, 50)}), PLAN, 0.5, 11))
    assert set(found) == {("all", "all"), ("projection", "PA"), ("projection", "AP")}
    assert found["projection", "AP"].negatives == 50


@pytest.mark.parametrize("small", [(10, 50), (50, 10), (3, 0), (0, 0)])
def test_a_level_with_a_small_cell_shows_nothing_at_all(small):
    levels = {"PA": (40, 40), "AP": (30, 30), "LL": small, "RL": (12, 12)}
    found = groups(measure(scored({k: v for k, v in levels.items() if sum(v)}), PLAN, 0.5, 11))
    if sum(small):
        assert hidden(found["projection", "LL"])
    assert not hidden(found["projection", "PA"])


def test_a_single_hidden_level_takes_the_smallest_other_with_it():
    """All minus the levels shown must not give the hidden one."""
    found = groups(measure(scored({"PA": (40, 40), "AP": (30, 30), "LL": (5, 20)}), PLAN, 0.5, 11))
    assert hidden(found["projection", "LL"])
    assert hidden(found["projection", "AP"])
    assert not hidden(found["projection", "PA"])
    two = groups(measure(scored({"PA": (40, 40), "LL": (5, 20)}), PLAN, 0.5, 11))
    assert hidden(two["projection", "PA"])
    assert not hidden(two["all", "all"])


def test_a_small_hospital_shows_nothing():
    assert all(hidden(g) for g in measure(scored({"PA": (10, 60)}), PLAN, 0.5, 11).groups)


@pytest.mark.parametrize("seed", range(200))
def test_no_hidden_cell_follows_by_subtraction(seed):
    """Whatever the sizes: hidden levels together are never one level, nor a small cell."""
    rng = np.random.default_rng(seed)
    levels = {f"L{i}": Cell(*map(int, rng.integers(0, 30, 2))) for i in range(rng.integers(1, 6))}

    def rest(shown):
        left = [cell for name, cell in levels.items() if name not in shown]
        return Cell(sum(c.positives for c in left), sum(c.negatives for c in left))

    gone = suppressed_levels(levels, rest, 11)
    for name, cell in levels.items():
        assert name in gone or min(cell.positives, cell.negatives) >= 11
    if gone and len(gone) < len(levels):
        assert len(gone) > 1
        assert min(sum(levels[n].positives for n in gone), sum(levels[n].negatives for n in gone)) >= 11


def test_no_hidden_cell_follows_by_subtraction_where_patients_were_imaged_twice():
    """Eight patients of each class in two levels are 32 in the levels' sum, and still only eight."""
    once, twice = scored({"PA": (40, 40)}), scored({"AP": (8, 8)}, seed=1)
    names = np.where(np.arange(len(twice.labels)) % 2, "AP", "LL")
    both = Scores(
        np.concatenate([once.scores, twice.scores]),
        np.concatenate([once.labels, twice.labels]),
        np.concatenate([once.patient_of, twice.patient_of + 80]),
        {"projection": np.concatenate([once.attributes["projection"], names])},
        [f"p{i}" for i in range(96)],
    )
    found = groups(measure(both, PLAN, 0.5, 11))
    assert found["all", "all"].positives == 48
    assert all(hidden(found["projection", level]) for level in ("PA", "AP", "LL"))


def test_the_bins_shown_leave_no_small_cell_over():
    """Three patients alone in a bin are not told by all patients less those of the other bins."""
    scores = scored({"PA": (60, 60)}, separation=0.2)
    middle = 0.4 + 0.3 * (scores.scores - 0.5)
    lonely = dataclasses.replace(scores, scores=np.where(scores.patient_of[:, None] < 3, 0.97, middle))
    one = dataclasses.replace(lonely, scores=lonely.scores[::2], labels=lonely.labels[::2])
    one = dataclasses.replace(one, patient_of=one.patient_of[::2], attributes={})
    whole = measure(one, PLAN, 0.5, 11).groups[0]
    assert whole.calibration
    assert sum(b.patients for b in whole.calibration) == whole.positives + whole.negatives
    assert min(min(b.observed, 1 - b.observed) * b.patients for b in whole.calibration) >= 11


def test_only_the_whole_has_a_calibration_curve():
    """Bin by bin, all patients less one level would be the other."""
    found = measure(scored({"PA": (40, 40), "AP": (30, 50)}), PLAN, 0.5, 11).groups
    assert [bool(group.calibration) for group in found] == [True, False, False]


def test_positives_only_by_design_gives_sensitivity_alone():
    found = groups(measure(scored({"PA": (40, 0), "AP": (30, 0)}), PLAN, 0.5, 11))
    for group in found.values():
        assert group.sensitivity is not None
        assert (group.auroc, group.specificity, group.precision, group.f1, group.auprc) == (None,) * 5
        assert group.negatives is None
    assert found["all", "all"].positives == 70


def test_a_level_of_one_class_within_a_hospital_of_both_is_hidden():
    """Otherwise everybody in the level is known to be ill."""
    found = groups(measure(scored({"PA": (40, 40), "AP": (30, 0), "LL": (20, 20)}), PLAN, 0.5, 11))
    assert hidden(found["projection", "AP"])


def test_cells_count_patients_and_not_images():
    scores = scored({"PA": (10, 10)})
    assert scores.cell == Cell(10, 10)
    assert len(scores.scores) == 40
    assert not releasable(scores.cell, 11)


def test_a_patient_with_any_positive_image_is_a_positive_patient():
    scores = scored({"PA": (5, 5)})
    labels = scores.labels.copy()
    labels[0] = 0
    assert dataclasses.replace(scores, labels=labels).cell == Cell(5, 5)


def test_cells_of_several_classes_are_the_rarest_classs():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    scores = Scores(np.full((9, 3), 1 / 3), labels, np.arange(9), {}, [])
    assert scores.cell == Cell(2, 5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_several_classes_are_measured(exclusive):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    chances = np.eye(3)[labels] * 0.4 + rng.random((150, 3)) * 0.6
    chances /= chances.sum(axis=1, keepdims=True)
    truth = labels if exclusive else np.eye(3)[labels].astype(np.float32)
    scores = Scores(chances, truth, np.arange(150), {}, [])
    whole = measure(scores, PLAN, 0.5, 11).groups[0]
    wanted = roc_auc_score(np.eye(3)[labels], chances, average="macro")
    assert whole.auroc.value == pytest.approx(wanted)
    assert best_threshold(scores) is None
    assert log_loss(scores) > 0


def test_the_threshold_separates_best_and_is_coarse():
    scores = scored({"PA": (60, 60)}, separation=4)
    threshold = best_threshold(scores, 11)
    assert threshold == round(threshold, 3)
    called, truth = scores.scores >= threshold, scores.labels > 0.5
    assert called[truth].mean() + (~called)[~truth].mean() > 1.8
    assert best_threshold(scored({"PA": (10, 60)}), 11) is None
    assert best_threshold(scored({"PA": (60, 0)})) is None


def test_progress_is_suppressed_like_a_test():
    small, large = scored({"PA": (5, 60)}), scored({"PA": (50, 60)})
    assert progress(small, 11) == type(progress(small, 11))(None, None)
    assert progress(large, 11).loss == round(log_loss(large), 3)
    assert progress(large, 11).auroc > 0.7
    assert progress(scored({"PA": (60, 0)}), 11).auroc is None


def test_the_loss_is_averaged_over_patients():
    scores = Scores(np.array([[0.9], [0.9], [0.9], [0.5]]), np.array([[1.0], [1.0], [1.0], [0.0]]),
                    np.array([0, 0, 0, 1]), {}, [])  # fmt: skip
    assert log_loss(scores) == pytest.approx((-np.log(0.9) - np.log(0.5)) / 2)


def test_a_comparison_is_paired_and_antisymmetric():
    one, two = scored({"PA": (40, 40)}, separation=3), scored({"PA": (40, 40)}, separation=1)
    there = compare(one, two, PLAN, names=("federated", "alone"))
    back = compare(two, one, PLAN, names=("alone", "federated"))
    assert there.difference.low > 0
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert (there.model, there.other, there.metric) == ("federated", "alone", "auroc")
    same = compare(one, one, PLAN, names=("a", "a"), metric="sensitivity").difference
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_comparison_of_a_small_cell_or_of_nothing_is_not_made():
    assert compare(*[scored({"PA": (5, 40)})] * 2, PLAN, names=("a", "b")) is None
    assert compare(*[scored({"PA": (50, 0)})] * 2, PLAN, names=("a", "b")) is None
    assert compare(*[scored({"PA": (50, 0)})] * 2, PLAN, names=("a", "b"), metric="sensitivity") is not None


def test_models_on_different_patients_are_not_compared():
    with pytest.raises(WrongOrder):
        compare(scored({"PA": (40, 40)}), scored({"PA": (40, 41)}), PLAN, names=("a", "b"))


@pytest.mark.parametrize(("name", "options"), [("small-cnn", {}), ("scatter", {"scales": 2, "grid": 4})])
def test_prediction_leaves_mode_and_weights_alone_and_does_not_depend_on_the_batch(name, options):
    plan = small_plan(model={"name": name, "options": options}, training={"learning_rate": 0.1})
    net, data = build(plan.model, 1, (16, 16)), few_patients(40)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    scores = predict(net, data)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert scores.scores.shape == (data.n_images, 1)
    half = predict(net, data.subset(range(20)))
    assert np.allclose(half.scores, scores.scores[: len(half.scores)], atol=1e-6)
    assert scores.pseudonyms == data.pseudonyms


def test_nobody_to_score_is_said_so():
    plan = small_plan()
    with pytest.raises(DataError):
        predict(build(plan.model, 1, (16, 16)), few_patients(3).subset([]))
