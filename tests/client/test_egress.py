"""One door out: what may leave, in what form, and that it was written down first."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.coarsen import Rules, cleaned, suppress
from client.egress import Egress, check
from client.policy import Policy
from client.suppression import Least, public_count, public_files
from client.vocabulary import WITHHELD
from common import errors, wire
from common.audit import AuditLog, read, verify
from common.codes import INTERNAL, OTHER, REFUSALS, file_code, refusal_code
from common.errors import PolicyRefused, StorageError
from common.messages import (
    CalibrationBin,
    Comparison,
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
from tests.client.made import made_plan

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "0" * 64
SOME = Estimate(0.8, 0.7, 0.9)
RULES = Rules(Least(11, 11))


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
    released = Egress(log).release(_update(), RULES)
    entry = next(read(tmp_path / "audit.jsonl"))
    assert entry["event"] == "egress.release"
    assert entry["fields"]["digest"] == "sha256:" + hashlib.sha256(released.blob).hexdigest()
    assert entry["fields"]["bytes"] == len(released.blob)
    assert verify(tmp_path / "audit.jsonl").count == 1


def test_nothing_leaves_when_it_cannot_be_written_down(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        Egress(AuditLog(tmp_path / "state" / "audit.jsonl")).release(_update(), RULES)


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
        _metrics(models=(ModelMetrics("federated", (_group(20, 20),), np.float64("nan")),)),
        _metrics(models=[{"patient": "P1"}]),
    ],
    ids=range(17),
)
def test_what_may_not_leave_is_refused_by_one_code(tmp_path, reply):
    with pytest.raises(PolicyRefused) as caught:
        check(reply)
    assert caught.value.code == "egress"
    assert "Anna" not in str(caught.value)
    with pytest.raises((PolicyRefused, AttributeError)):
        Egress(AuditLog(tmp_path / "a.jsonl")).release(reply, RULES)
    assert not (tmp_path / "a.jsonl").exists()


def _told(group, rules=RULES):
    model = ModelMetrics("federated", (group,), 0.5)
    return suppress(_metrics(models=(model,)), rules).models[0].groups[0]


@pytest.mark.parametrize("cells", [(10, 40), (40, 10), (3, 0), (5, 5), (0, 0)])
def test_a_group_with_a_small_cell_says_nothing_at_all(cells):
    """Were one of the two counts shown, the curve's or a rate's denominator would tell the other."""
    told = {k: v for k, v in vars(_told(_group(*cells))).items() if k not in ("group", "level")}
    assert set(told.values()) == {None, ()}


def test_a_hospital_of_one_class_may_say_how_many_it_has():
    assert (_told(_group(0, 43)).positives, _told(_group(0, 43)).negatives) == (None, 40)


def test_the_bins_of_a_curve_are_joined_until_each_has_enough_of_both_kinds_and_nothing_is_left_over():
    """A bin's share of positives times its patients is a count, too."""

    def curve(*bins, least=RULES.least):
        made = tuple(CalibrationBin(n / 10, share, count) for n, (share, count) in enumerate(bins))
        group = replace(_group(60, 60), calibration=made)
        return [(b.observed, b.patients) for b in _told(group, Rules(least)).calibration]

    assert curve((0.5, 40), (0.75, 60)) == [(0.5, 40), (0.75, 60)]
    assert curve((0.0, 40), (0.5, 40), (0.5, 40)) == [(0.25, 80), (0.5, 40)]
    assert curve((0.5, 100), (1.0, 20)) == [(0.583, 120)]
    assert curve((0.0, 100), (1.0, 5)) == []
    assert curve((0.5, 40), (0.75, 60), least=Least(20, 11)) == []
    assert curve((0.1, 9), (0.9, 9), least=Least(1, 1)) != []


def test_no_level_has_a_curve():
    level = replace(_group(40, 40), group="projection", level="AP")
    model = ModelMetrics("federated", (_group(80, 80), level), 0.5)
    assert suppress(_metrics(models=(model,)), RULES).models[0].groups[1].calibration == ()


def test_the_names_of_hidden_levels_do_not_leave_and_a_single_one_takes_another_along():
    """That a hospital has three patients of a rare maker is a small cell even without the three."""
    sizes = {"Rare & Co": (3, 40), "Aster": (50, 50), "Borealis": (20, 30)}
    levels = [replace(_group(*n), group="manufacturer", level=name) for name, n in sizes.items()]
    model = ModelMetrics("federated", (_group(73, 120), *levels), 0.5)
    told = suppress(_metrics(models=(model,)), RULES).models[0].groups
    assert [(g.group, g.level) for g in told] == [
        ("all", "all"),
        ("manufacturer", "Aster"),
        ("manufacturer", WITHHELD),
    ]
    check(_metrics(models=(ModelMetrics("federated", told, 0.5),)))


def test_a_group_at_the_minimum_passes_and_its_counts_are_coarse():
    kept = _told(_group(11, 28))
    assert kept.auroc == SOME
    assert (kept.positives, kept.negatives) == (11, 25)


def test_figures_leave_with_three_digits():
    fine = Estimate(18 / 19, 1 / 3, 0.98765)
    told = _told(replace(_group(19, 30), sensitivity=fine, ece=1 / 7))
    assert told.sensitivity == Estimate(0.947, 0.333, 0.988)
    assert told.ece == 0.143


def test_what_the_policy_does_not_name_does_not_leave():
    rules = replace(RULES, figures=frozenset({"auroc"}), groups=frozenset({"sex"}))
    levels = (
        replace(_group(40, 40), group="sex", level="F"),
        replace(_group(40, 40), group="age", level="40-59"),
    )
    model = ModelMetrics("federated", (_group(80, 80), *levels), 0.5)
    both = (
        Comparison("federated", "alone", "auroc", SOME),
        Comparison("federated", "alone", "f1", SOME),
    )
    full = _metrics(models=(model,), comparisons=both, threshold=0.4)
    told = suppress(full, rules)
    assert [g.group for g in told.models[0].groups] == ["all", "sex"]
    assert {g.auroc for g in told.models[0].groups} == {SOME}
    named = ("auprc", "sensitivity", "specificity", "precision", "f1", "ece")
    assert {getattr(g, name) for g in told.models[0].groups for name in named} == {None}
    assert (told.threshold, told.comparisons) == (None, ())
    compared = suppress(full, replace(rules, figures=frozenset({"auroc", "comparison"})))
    assert compared.comparisons == both[:1]


def test_strict_rates_leave_only_where_hits_and_misses_are_many():
    strict = replace(RULES, strict_rates=True)
    group = replace(_group(40, 200), sensitivity=Estimate(0.9, 0.8, 1.0), specificity=Estimate(0.9, 0.8, 1.0))
    assert _told(group).sensitivity is not None
    assert _told(group, strict).sensitivity is None
    assert _told(group, strict).specificity is not None


def test_a_learning_curve_leaves_only_where_the_rules_say_so():
    update = _update(progress=Progress(0.69314, 0.51234))
    assert cleaned(update, RULES).progress == Progress(0.693, 0.512)
    assert cleaned(update, replace(RULES, progress=False)).progress == Progress(None, None)


@pytest.mark.parametrize(
    ("allowed", "private", "leaves"), [(False, True, False), (True, True, True), (False, False, True)]
)
def test_under_privacy_a_learning_curve_needs_the_policys_word(allowed, private, leaves):
    """Validation patients are not covered by epsilon."""
    plan = made_plan(privacy={"mode": "patient-dp"}) if private else made_plan()
    rules = Rules.of(Policy(private_progress=allowed), plan)
    assert rules.progress is leaves
    assert rules.vote is leaves, "a word made of it follows the same rule"
    assert not Rules.of(Policy(private_progress=allowed, metrics=("progress",)), plan).vote
    said = SiteMetrics("alpha", "run-1", 1, "sha256:c", worse=True)
    assert suppress(said, rules).worse is (True if leaves else None), "and the door holds to it"


def error_classes():
    """Every class of the error tree."""
    found = [errors.ConsiliumError]
    for kind in found:
        found += [one for one in vars(errors).values() if isinstance(one, type) and kind in one.__bases__]
    return found


@given(count=st.integers(0, 10**7), min_cell=st.integers(1, 50))
def test_numbers_of_files_leave_in_tens_or_two_digits_and_small_ones_not_at_all(count, min_cell):
    said = public_files(count, min_cell)
    assert (said is None) == (count < min_cell)
    if said is not None:
        assert said % 10 == 0
        assert said > 0
        assert abs(said - count) <= max(9, 0.05 * count)
        assert said == 10 or len(str(said).rstrip("0")) <= 2 or said < 1000


@given(count=st.integers(11, 10**6))
def test_counts_of_patients_leave_in_fives_and_never_too_many(count):
    said = public_count(count, 11)
    assert count - 5 < said <= count
    assert said == 11 or said % 5 == 0


@given(count=st.integers(11, 500), asked=st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_no_series_of_minima_finds_the_exact_count(count, asked):
    """A server tries plan after plan; where the group vanishes would otherwise be its size."""
    answers = {
        least: count >= Least.of(least, 11).cell and public_count(count, 11)
        for least in asked
        if least <= 500
    }
    for other in {count // 5 * 5 + k for k in range(5)} - set(range(11)):
        assert answers == {
            least: other >= Least.of(least, 11).cell and public_count(other, 11) for least in answers
        }


def test_a_site_with_eight_broken_files_does_not_say_eight():
    metrics = _metrics(intake=IntakeSummary(128, 120, {"quality-blank": 8, "burned-in": 14}, 100))
    intake = suppress(metrics, RULES).intake
    assert intake == IntakeSummary(130, 120, {"quality-blank": None, "burned-in": 10}, 100)


def test_a_reason_that_is_not_on_the_list_is_counted_as_another():
    """A worker that a hostile file took over could answer with any word."""
    refused = {"anna-mueller": 30, "wilhelm": 40, "quality-anna": 20}
    intake = suppress(_metrics(intake=IntakeSummary(90, 0, refused, 1)), RULES).intake
    assert intake.refused == {"other": 70, "quality": 20}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("busy", "busy"),
        ("ledger-spent", "ledger-spent"),
        ("ledger-mueller", "ledger"),
        ("mueller", "internal"),
        ("", "internal"),
    ],
)
def test_only_a_code_of_the_closed_list_leaves(tmp_path, code, said):
    released = Egress(AuditLog(tmp_path / "a.jsonl")).release(Refusal("alpha", "r", 1, code, DIGEST), RULES)
    assert released.reply.code == said
    assert b"mueller" not in released.blob
    assert b"mueller" not in (tmp_path / "a.jsonl").read_bytes()


JOINING = ("enrolment.py", "link.py", "keyfiles.py", "tunnel.py", "kit.py", "certificates.py", "pki.py")
"""Modules by which a hospital joins its federation; what they refuse is told at the terminal."""
AT_THE_TERMINAL = ("doctor", "node.py", "moved.py", "studies.py", "release.py")
"""What a person looks at, approves or starts."""


def test_every_code_that_is_raised_is_on_a_list():
    """Otherwise a hospital would have to guess what `internal` was. Dynamic codes are left to their own tests."""
    raised = set()
    for path in (*ROOT.glob("client/**/*.py"), *ROOT.glob("common/**/*.py")):
        room = path.relative_to(ROOT).parts[1]
        if room in ("pacs", "review", "commands", "benchmarks", *JOINING, *AT_THE_TERMINAL):
            continue  # never asked by a server
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                raised.add(node.value.value)
    at_home = ("labels-", "quarantine-", "release-", "lookup-", "rotate-", "standard-", "storage-", "key-")
    said = {code for code in raised if refusal_code(code) != INTERNAL or file_code(code) != OTHER}
    unknown = {code for code in raised - said if not code.startswith(at_home)} - {INTERNAL}
    assert unknown == set()
    assert {kind.default_code for kind in error_classes()} - REFUSALS - {"pacs", "standard"} == set()


@pytest.mark.parametrize(
    "words",
    [
        {"site": "Anna Müller"},
        {"run": "Anna Mueller"},
        {"code_digest": "Mueller"},
        {"models": (ModelMetrics("anna", (), 0.5),)},
        {"models": (ModelMetrics("federated", (replace(_group(20, 20), group="patient"),), 0.5),)},
        {"comparisons": (Comparison("federated", "anna", "auroc", SOME),)},
        {"intake": IntakeSummary(None, None, {"anna": None}, 1)},
    ],
    ids=range(7),
)
def test_no_field_takes_a_word_of_its_own(words):
    with pytest.raises(PolicyRefused):
        check(replace(_metrics(), **words))


@pytest.mark.parametrize(
    ("group", "level"),
    [("sex", "Anna"), ("age", "Anna"), ("projection", "ANNA"), ("all", "Anna"), ("manufacturer", "Anna\n")],
)
def test_no_level_takes_a_word_of_its_own(group, level):
    told = replace(_group(20, 20), group=group, level=level)
    with pytest.raises(PolicyRefused):
        check(_metrics(models=(ModelMetrics("federated", (told,), 0.5),)))


def test_an_answer_that_left_before_leaves_again_as_the_same_bytes_and_is_written_down_again(tmp_path):
    door = Egress(AuditLog(tmp_path / "a.jsonl"))
    first = door.release(_metrics(threshold=0.4), RULES)
    assert door.again(first.blob).blob == first.blob
    assert [entry["event"] for entry in read(tmp_path / "a.jsonl")] == ["egress.release"] * 2
    for blob in (b"junk", wire.pack(Instruction(Kind.SURVEY, "r", 0, "", DIGEST, DIGEST, {}))):
        with pytest.raises(PolicyRefused):
            door.again(blob)


@pytest.mark.parametrize(
    "kept", [Refusal("alpha", "r", 1, "patient anna", DIGEST), SiteMetrics("alpha", "anna m", 1, DIGEST)]
)
def test_what_was_kept_and_is_not_what_may_leave_stays(tmp_path, kept):
    """What lies on the disk may have been put there by somebody else, or by an older release."""
    door = Egress(AuditLog(tmp_path / "a.jsonl"))
    with pytest.raises(PolicyRefused):
        door.again(wire.pack(kept))
    assert not (tmp_path / "a.jsonl").exists()


def test_every_limit_of_the_policy_on_what_leaves_reaches_the_door():
    strict = Policy(
        strict_rates=True, min_cell=20, metrics=("auroc",), groups=("sex",), private_progress=False
    )
    rules = Rules.of(strict, made_plan(privacy={"mode": "patient-dp"}, evaluation={"min_cell": 11}))
    assert (rules.strict_rates, rules.least) == (True, Least(20, 20))
    assert (rules.figures, rules.groups) == (frozenset({"auroc"}), frozenset({"sex"}))
    assert (rules.progress, rules.vote) == (False, False)
    assert Rules.of(strict).strict_rates, "also before a plan was read"


def test_a_refusal_leaves_too_and_only_with_its_code(tmp_path):
    released = Egress(AuditLog(tmp_path / "a.jsonl")).release(Refusal("alpha", "r", 1, "busy", DIGEST), RULES)
    assert b"busy" in released.blob
