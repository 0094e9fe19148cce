"""One door out: what may leave, in what form, and that it was written down first."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.egress import Egress, check, coarse, suppress
from common.audit import AuditLog, read, verify
from common.errors import PolicyRefused, StorageError
from common.messages import (
    CalibrationBin,
    Estimate,
    GroupMetrics,
    Instruction,
    IntakeSummary,
    Kind,
    ModelMetrics,
    Progress,
    Refusal,
    SiteMetrics,
    Update,
)

DIGEST = "sha256:" + "0" * 64
SOME = Estimate(0.8, 0.7, 0.9)


def _update(**changes):
    values = {
        "site": "alpha",
        "run": "run-1",
        "round": 1,
        "plan_digest": DIGEST,
        "code_digest": DIGEST,
        "weight": 100,
        "arrays": {"w": np.ones(3, np.float32)},
    }
    return Update(**{**values, **changes})


def _metrics(**changes):
    return SiteMetrics("alpha", "run-1", 1, DIGEST, **changes)


def _group(positives, negatives):
    return GroupMetrics(
        "all",
        "all",
        positives,
        negatives,
        **dict.fromkeys(("auroc", "auprc", "sensitivity", "specificity", "precision", "f1"), SOME),
        ece=0.1,
        calibration=(CalibrationBin(0.1, 0.2, 10), CalibrationBin(0.6, 0.5, 30)),
    )


def test_what_leaves_is_in_the_log_byte_for_byte_before_it_is_handed_over(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    released = Egress(log).release(_update(), 11)
    entry = next(read(tmp_path / "audit.jsonl"))
    assert entry["event"] == "egress.release"
    assert entry["fields"]["digest"] == "sha256:" + hashlib.sha256(released.blob).hexdigest()
    assert entry["fields"]["bytes"] == len(released.blob)
    assert verify(tmp_path / "audit.jsonl").count == 1


def test_nothing_leaves_when_it_cannot_be_written_down(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        Egress(AuditLog(tmp_path / "state" / "audit.jsonl")).release(_update(), 11)


@dataclasses.dataclass(frozen=True)
class Gossip(SiteMetrics):
    """A record that only looks like one of ours."""

    patient: str = "Anna"


@pytest.mark.parametrize(
    "reply",
    [
        {"site": "alpha"},
        b"bytes",
        Gossip("alpha", "run-1", 1, DIGEST),
        Instruction(Kind.SURVEY, "r", 0, "", DIGEST, DIGEST, {}),
        Progress(0.1, 0.2),
        _update(arrays={"w": np.ones(3, np.float64)}),
        _update(arrays={"w": np.array([1, np.nan], np.float32)}),
        _update(arrays={"w": np.array([np.inf], np.float32)}),
        _update(arrays={"w": np.array(["Anna"], dtype=object)}),
        _update(arrays={"w": [1.0, 2.0]}),
        _update(arrays={"Müller^Anna": np.ones(1, np.float32)}),
        _update(progress=Progress(float("nan"), None)),
        _update(epsilon=float("inf")),
        _update(site="x" * 200),
        _update(site="alpha\n"),
        _metrics(intake=IntakeSummary(None, None, {"blank\npatient": None}, 1)),
        _metrics(models=(ModelMetrics("federated", (_group(20, 20),), np.float64("nan")),)),
        _metrics(models=[{"patient": "P1"}]),
    ],
    ids=range(18),
)
def test_what_may_not_leave_is_refused_by_one_code(tmp_path, reply):
    with pytest.raises(PolicyRefused) as caught:
        check(reply)
    assert caught.value.code == "egress"
    assert "Anna" not in str(caught.value)
    with pytest.raises((PolicyRefused, AttributeError)):
        Egress(AuditLog(tmp_path / "a.jsonl")).release(reply, 11)
    assert not (tmp_path / "a.jsonl").exists()


def test_small_cells_and_what_would_tell_them_do_not_leave():
    group = (
        suppress(_metrics(models=(ModelMetrics("federated", (_group(10, 40),), 0.5),)), 11)
        .models[0]
        .groups[0]
    )
    assert (group.positives, group.negatives) == (None, 40)
    assert group.specificity == SOME
    assert (group.auroc, group.auprc, group.sensitivity, group.precision, group.f1) == (None,) * 5
    assert [b.patients for b in group.calibration] == [30]


def test_a_curve_leaves_for_the_whole_only_and_leaves_no_small_cell_over():
    """By subtraction a curve would otherwise tell what the counts keep."""

    def curve(group, total, *patients):
        bins = tuple(CalibrationBin(0.5, 0.5, count) for count in patients)
        given = GroupMetrics(group, "x", total // 2, total - total // 2, calibration=bins)
        (told,) = suppress(_metrics(models=(ModelMetrics("federated", (given,), 0.5),)), 11).models
        return [b.patients for b in told.groups[0].calibration]

    assert curve("all", 100, 40, 60) == [40, 60]
    assert curve("all", 100, 40, 51, 9) == [51]
    assert curve("all", 100, 40, 44, 9, 7) == [40, 44]
    assert curve("projection", 100, 40, 60) == []


def test_a_group_of_nobody_says_nothing():
    group = (
        suppress(_metrics(models=(ModelMetrics("federated", (_group(3, 0),), 0.5),)), 11).models[0].groups[0]
    )
    told = {k: v for k, v in vars(group).items() if k not in ("group", "level")}
    assert set(told.values()) == {None, ()}


def test_a_group_at_the_minimum_passes_as_it_is():
    model = ModelMetrics("federated", (_group(11, 11),), 0.5)
    kept = suppress(_metrics(models=(model,)), 11).models[0].groups[0]
    assert kept.auroc == SOME
    assert (kept.positives, kept.negatives) == (11, 11)


@given(count=st.integers(0, 10**7), min_cell=st.integers(1, 50))
def test_numbers_of_files_leave_in_tens_and_small_ones_not_at_all(count, min_cell):
    said = coarse(count, min_cell)
    assert (said is None) == (count < min_cell)
    if said is not None:
        assert said % 10 == 0
        assert said > 0
        assert abs(said - count) <= 9


def test_a_site_with_eight_broken_files_does_not_say_eight():
    metrics = _metrics(intake=IntakeSummary(128, 120, {"blank": 8, "burned-in": 14}, 100))
    intake = suppress(metrics, 11).intake
    assert intake == IntakeSummary(130, 120, {"blank": None, "burned-in": 10}, 100)


def test_a_refusal_leaves_too_and_only_with_its_code(tmp_path):
    released = Egress(AuditLog(tmp_path / "a.jsonl")).release(Refusal("alpha", "r", 1, "busy", DIGEST), 11)
    assert b"busy" in released.blob
