"""What an analysis says of hospitals: distances by hand, planted trouble found, and nothing found where there is none."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from common.analytics import schema_of
from common.cells import coarse, exact_tables
from common.errors import AdmissionRefused, InputError, PlanError
from common.messages import CountTable, Tally
from server.analytics.distance import (
    against,
    chance_of,
    divergence,
    filled,
    holm,
    judged,
    labels_of,
    prevalence,
)
from server.analytics.gather import Summed, _checked, written
from server.analytics.page import page
from server.analytics.records import AnalysisRecord, Bins, Part, read_analysis, write_analysis
from server.analytics.trouble import predicted
from server.commands.survey import checked
from tests.client.made import made_plan
from tests.counted import survey_plan

PLAN = survey_plan()
SCHEMA = schema_of(PLAN)
NAMES = ("anna", "bert", "carla", "dora")
DIGEST = "sha256:" + "0" * 64


def usual(seed: int = 0) -> dict[str, np.ndarray]:
    """One distribution of every attribute, [bins]; some bins rare."""
    rng = np.random.default_rng(seed)
    return {axis.name: rng.dirichlet(np.full(len(axis.bins), 0.7)) for axis in SCHEMA.axes}


def drawn(rng, patients: int, ill: float, share: dict[str, np.ndarray], **by_label: np.ndarray) -> np.ndarray:
    """The counts of one hospital; `by_label` [labels, bins] replaces an axis."""
    labels = rng.multinomial(patients, (1 - ill, ill, 0.0))
    rows = []
    for axis in SCHEMA.axes:
        for place, count in enumerate(labels):
            of = by_label[axis.name][place] if axis.name in by_label else share[axis.name]
            rows.append(rng.multinomial(count, of))
    return np.concatenate(rows).astype(np.int64)


def part(counts: np.ndarray, *sites: str) -> Part:
    return Part(sites, {one.axis: one.cells for one in coarse(exact_tables(SCHEMA, counts), 11, 11)})


def record(own, summed=None, **more) -> AnalysisRecord:
    wanted = tuple(site for one in [*own, *([summed] if summed else [])] for site in one.sites)
    return AnalysisRecord(
        **{
            "run": "run-1",
            "created": "2031-05-04T10:00:00+00:00",
            "study": "lungs",
            "question": "is it there?",
            "plan_digest": PLAN.digest,
            "code_digest": DIGEST,
            "simulated": True,
            "labels": SCHEMA.labels,
            "positive": SCHEMA.positive,
            "axes": tuple(Bins(axis.name, axis.bins, axis.ordered) for axis in SCHEMA.axes),
            "min_cell": 11,
            "own": tuple(own),
            "summed": summed,
            "wanted": wanted,
            **more,
        }
    )


def test_a_hospital_too_small_to_tell_anything_keeps_nobody_else_from_being_compared():
    """Eight patients, every cell held back; the two large hospitals have other machines and are told apart as without it."""
    rng, share = np.random.default_rng(4), usual()
    axis = next(one for one in SCHEMA.axes if one.name == "median")
    dark, bright = np.zeros((3, len(axis.bins))), np.zeros((3, len(axis.bins)))
    dark[:, 2], bright[:, 5] = 1.0, 1.0
    large = [
        part(drawn(rng, 300, 0.4, share, median=dark), "anna"),
        part(drawn(rng, 300, 0.4, share, median=bright), "bert"),
    ]
    tiny = part(drawn(rng, 8, 0.4, share), "carla")
    assert set(against(record([*large, tiny]), "median")) == {"anna", "bert"}
    for name, (mine, others) in against(record([*large, tiny]), "median").items():
        assert divergence(mine, others) == pytest.approx(1.0), name
    told = [trouble.title for trouble in predicted(record([*large, tiny]))]
    assert told == [trouble.title for trouble in predicted(record(large))]
    assert any(title.startswith("Images look different") for title in told)


def same(seed: int) -> AnalysisRecord:
    """Four hospitals and a sum, all drawn from one population."""
    rng, share = np.random.default_rng(seed), usual(seed)
    own = [part(drawn(rng, int(rng.integers(80, 600)), 0.35, share), name) for name in NAMES]
    return record(own, part(drawn(rng, 900, 0.35, share), "emil", "frida", "gustav"))


def test_divergence_by_hand():
    assert divergence(np.array([5.0, 5.0]), np.array([50.0, 50.0])) == pytest.approx(0)
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)
    half = divergence(np.array([1.0, 1.0]), np.array([1.0, 0.0]))
    middle = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert half == pytest.approx(middle - 0.5)
    assert math.isnan(divergence(np.zeros(2), np.ones(2)))


def test_chance_is_kept_in_nineteen_of_twenty_draws():
    rng = np.random.default_rng(2)
    share, beyond = np.array([0.5, 0.3, 0.2]), 0
    for seed in range(200):
        one, other = (rng.multinomial(count, share).astype(float) for count in (120, 800))
        beyond += divergence(one, other) > chance_of(one, other, seed)
    assert 2 <= beyond <= 22


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_cramers_v_of_a_table_by_hand():
    found = judged(np.array([[50.0, 50.0], [50.0, 50.0]]), None)
    assert found.size == 0
    assert found.p == pytest.approx(1)
    assert judged(np.array([[100.0, 0.0], [0.0, 100.0]]), None).size == pytest.approx(1, abs=0.01)
    assert judged(np.array([[3.0, 0.0], [0.0, 2.0]]), None) is None


def test_hidden_patients_go_where_the_others_have_them_so_that_nobody_looks_different_for_it():
    rng, share = np.random.default_rng(1), usual(3)
    many, few = drawn(rng, 5000, 0.4, share), drawn(rng, 90, 0.4, share)
    told = record([part(many, "anna"), part(few, "bert")])
    table = filled(told, "age")["bert"]
    assert not np.isnan(table).any()
    assert table.sum() == pytest.approx(labels_of(told.own[1]).sum())


def test_where_nothing_is_different_hardly_anything_is_named():
    """One page in twenty at most. The sizes that a warning needs make it rarer still: 1 of these 150."""
    warned = sum(any(one.p is not None for one in predicted(same(seed))) for seed in range(150))
    assert warned <= 5


def noisy_sum(seed: int, **by_label: np.ndarray) -> AnalysisRecord:
    """Three hospitals together, with noise of twenty patients in every cell."""
    rng = np.random.default_rng(seed)
    counts = drawn(rng, 1200, 0.35, usual(seed), **by_label)
    noise = np.rint(rng.normal(0, 20, SCHEMA.size)).astype(np.int64)
    summed = Summed(NAMES[:3], counts + noise, {}, 3, 3)
    return record([], written(SCHEMA, summed, 11, noisy=True), epsilon=1.0, delta=1e-5, noise=20.0)


def test_noise_is_not_taken_for_a_shortcut_and_a_shortcut_is_not_lost_in_noise():
    """5 of 100 null sums warned when this was measured; more than 14 would come once in ten thousand times."""
    warned = sum(any(one.p is not None for one in predicted(noisy_sum(seed))) for seed in range(100))
    assert warned <= 14
    found = predicted(noisy_sum(1, manufacturer=carried(0.9)))
    assert ("shortcut", "manufacturer") in {(one.kind, one.axis) for one in found}
    assert "noise of about 20 patients" in page(noisy_sum(1))


def test_a_planted_label_shift_is_named_and_nobody_else():
    rng, share = np.random.default_rng(4), usual()
    own = [part(drawn(rng, 400, 0.15 if name == "bert" else 0.4, share), name) for name in NAMES]
    found = [one for one in predicted(record(own)) if one.p is not None]
    assert [(one.kind, one.where) for one in found] == [("label-shift", "bert")]
    assert "lower" in found[0].will


def test_a_hospital_with_hardly_any_positives_is_told_apart_by_what_can_be_held_back():
    rng, share = np.random.default_rng(8), usual()
    own = [part(drawn(rng, 500, 0.01 if name == "dora" else 0.4, share), name) for name in NAMES]
    told = record(own)
    assert told.own[3].tables["patients"][1] == (None,)
    assert prevalence(told, [told.own[3]])[0] == 10
    assert ("label-shift", "dora") in {(one.kind, one.where) for one in predicted(told)}
    few = record([*own[:3], part(drawn(rng, 24, 0.4, share), "dora")])
    assert not [one for one in predicted(few) if one.kind == "label-shift"]


def carried(strength: float) -> np.ndarray:
    """Manufacturers by label: the ill come from the first machine, the others from the second."""
    bins = len(SCHEMA.axis("manufacturer").bins)
    table = np.zeros((3, bins))
    table[0, :2], table[1, :2], table[2, 0] = (1 - strength, strength), (strength, 1 - strength), 1
    return table


def test_one_machine_that_carries_one_class_is_named_where_it_is():
    rng, share = np.random.default_rng(5), usual()
    even = carried(0.5)
    own = [
        part(drawn(rng, 400, 0.4, share, manufacturer=carried(0.8) if name == "anna" else even), name)
        for name in NAMES
    ]
    found = [one for one in predicted(record(own)) if one.p is not None]
    assert [(one.kind, one.where, one.axis) for one in found] == [("shortcut", "anna", "manufacturer")]


def test_where_the_cells_that_would_tell_it_are_too_small_to_be_shown_it_is_said_so():
    rng, share = np.random.default_rng(6), usual()
    own = [
        part(drawn(rng, 400, 0.4, share, manufacturer=carried(0.99 if name == "anna" else 0.5)), name)
        for name in NAMES
    ]
    found = {(one.kind, one.where) for one in predicted(record(own))}
    assert ("held", "anna") in found
    assert not [one for one in found if one[0] == "held" and one[1] != "anna"]


def test_two_hospitals_without_any_cell_and_an_empty_analysis_have_a_page():
    nothing = part(np.zeros(SCHEMA.size, np.int64), "anna")
    for made in (
        record([nothing]),
        record([]),
        record([nothing, part(np.zeros(SCHEMA.size, np.int64), "bert")]),
    ):
        assert "What to expect" in page(made)


def test_the_page_loads_nothing_and_escapes_what_it_is_given():
    text = page(record([*same(1).own], study="<script>alert(1)</script>", refused={"x": "<b>"}))
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", text)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    made = same(2)
    write_analysis(made, tmp_path / "analysis.json")
    assert read_analysis(tmp_path / "analysis.json") == made
    (tmp_path / "analysis.json").write_text("{}")
    with pytest.raises(InputError):
        read_analysis(tmp_path / "analysis.json")


def tally(**changes) -> Tally:
    tables = exact_tables(SCHEMA, np.zeros(SCHEMA.size, np.int64))
    values = {"schema": SCHEMA.digest, "plan_digest": PLAN.digest, "tables": tables, **changes}
    return Tally("anna", "run-1", 1, values["plan_digest"], DIGEST, values["schema"], values["tables"])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"schema": DIGEST}, "schema"),
        ({"plan_digest": DIGEST}, "plan-mismatch"),
        ({"tables": (CountTable("sex", ((1, 2),)),)}, "shape"),
        ({"tables": (CountTable("weight", ()),)}, "names"),
        ({"tables": (CountTable("sex", ((-1, 0, 0, 0),) * 3),)}, "shape"),
        ({"tables": ()}, "names"),
    ],
)
def test_a_tally_that_is_not_the_plans_is_refused_by_name(changes, code):
    assert _checked("anna", tally(), SCHEMA, PLAN.digest)
    with pytest.raises(AdmissionRefused) as caught:
        _checked("anna", tally(**changes), SCHEMA, PLAN.digest)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "plan",
    [
        made_plan(),
        survey_plan(NAMES, own=("anna", "bert")),
        survey_plan(NAMES, own=("zoe",)),
    ],
)
def test_a_plan_whose_sum_could_never_be_opened_is_refused_before_it_is_queued(plan):
    with pytest.raises(PlanError):
        checked(plan, "plan.toml")


def test_a_good_plan_of_an_analysis_is_let_pass():
    checked(survey_plan(NAMES), "plan.toml")
    checked(survey_plan(NAMES, own=NAMES), "plan.toml")


def test_noise_goes_with_sums_only():
    with pytest.raises(PlanError):
        survey_plan(NAMES, own=("anna",), analytics={"epsilon": 1.0})
