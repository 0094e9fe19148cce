"""What a hospital counts, worked out by hand, and what it does when it is asked again."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest

from client.analytics.analyst import Analyst
from client.analytics.count import counted, patients_of
from client.analytics.differencing import singled_out
from client.analytics.memory import NAME, OWN, SUM, Memory, Wanted
from client.analytics.noise import discrete_gaussian, noisy
from client.policy import Policy
from client.privacy.masking import Masking
from client.service import SiteService
from common import wire
from common.analytics import FIGURES, decoded, encoded, most, schema_of, sensitivity
from common.analytics_noise import Noise
from common.audit import read
from common.code import code_digest
from common.errors import FederationError, PolicyRefused, PrivacyRefused
from common.messages import Instruction, Kind, Tally, Terms
from common.plan import dump_plan
from tests.client.made import made_plan
from tests.counted import MAKERS, add, counted_site, patient, population, survey_plan

PLAN = survey_plan()
DIGEST = "sha256:" + "0" * 64


def tables(site, plan=PLAN):
    """By axis and label, the bins that are not empty."""
    schema = schema_of(plan)
    found = schema.tables(counted(patients_of(site, plan), plan))
    return {
        axis.name: {
            label: {name: int(n) for name, n in zip(axis.bins, row, strict=True) if n}
            for label, row in zip(schema.labels, found[axis.name], strict=True)
        }
        for axis in schema.axes
    }


def test_three_patients_counted_by_hand(tmp_path):
    site = counted_site(
        tmp_path,
        "anna",
        [
            patient(0, label=1, age=7, sex="M", manufacturer="ASTER imaging", quality={"exposure": 0.05}),
            # Two images of one patient that disagree in everything.
            patient(1, label=0, age=93, projection="AP", patient="P1", quality={"exposure": 0.3}),
            patient(
                2,
                label=1,
                age=91,
                projection="PA",
                patient="P1",
                manufacturer="Borealis",
                quality={"exposure": 0.5},
            ),
            patient(3, label=None, age=None, sex="", projection="", manufacturer="Nobody"),
        ],
    )
    found = tables(site)
    assert found["age"] == {"negative": {}, "positive": {"0-9": 1, "90+": 1}, "unlabelled": {"unknown": 1}}
    assert found["sex"]["positive"] == {"M": 1, "F": 1}
    assert found["projection"] == {
        "negative": {},
        "positive": {"PA": 1, "several": 1},
        "unlabelled": {"unknown": 1},
    }
    assert found["manufacturer"]["positive"] == {"Aster Imaging": 1, "several": 1}
    assert found["manufacturer"]["unlabelled"] == {"other": 1}
    assert found["images"]["positive"] == {"1": 1, "2": 1}
    assert found["exposure"]["positive"] == {"below 0.1": 1, "0.4 to 0.5": 1}
    assert found["exposure"]["unlabelled"] == {"0.4 to 0.5": 1}


def test_every_patient_is_in_one_cell_of_every_table(tmp_path):
    site = counted_site(tmp_path, "anna", population(3, 50))
    counts = counted(patients_of(site, PLAN), PLAN)
    for table in schema_of(PLAN).tables(counts).values():
        assert table.sum() == 50
    alone = counted({"one": patients_of(site, PLAN)["spend-P0001"]}, PLAN)
    assert np.linalg.norm(alone) == pytest.approx(sensitivity(schema_of(PLAN)))


def test_bins_cover_everything_and_another_plan_has_another_digest():
    for name, edges in FIGURES.items():
        assert list(edges) == sorted(edges)
        assert len(schema_of(PLAN).axis(name).bins) == len(edges) + 2
    assert schema_of(PLAN).digest != schema_of(survey_plan(analytics={"manufacturers": ["Aster"]})).digest
    assert schema_of(PLAN).digest == schema_of(survey_plan(study={"name": "other"})).digest


@pytest.mark.parametrize(
    ("kind", "classes", "label", "expected"),
    [
        ("multiclass", ["none", "mild", "grave"], 2, "grave"),
        ("multilabel", ["a", "b"], (0.0, 1.0), "any"),
        ("multilabel", ["a", "b"], (0.0, 0.0), "none"),
    ],
)
def test_other_tasks_have_labels_of_their_own(tmp_path, kind, classes, label, expected):
    site = counted_site(tmp_path, "anna", [patient(0, label=label)])
    plan = made_plan(task={"kind": kind, "classes": classes}, analytics={"survey": True})
    found = tables(site, plan)
    assert found["sex"][expected] == {"F": 1}
    if kind == "multilabel":
        assert found["finding"][expected] == {"b" if expected == "any" else "none": 1}


def test_sums_of_the_largest_counts_do_not_wrap():
    for parties in (3, 8, 1000):
        edge = np.array([most(parties), -most(parties), 0])
        total = np.sum([encoded(edge, parties) for _ in range(parties)], axis=0, dtype=np.uint32)
        assert list(decoded(total)) == [int(value) * parties for value in edge]
        with pytest.raises(FederationError, match="beyond"):
            encoded(edge + 1, parties)


def ask(plan, run="run-1", kind=Kind.ANALYSE):
    return Instruction(kind, run, 1, dump_plan(plan), plan.digest, code_digest(), {})


def test_a_patient_more_changes_nothing_this_year(tmp_path):
    """Else the difference of two answers would be that patient, attribute by attribute."""
    site = counted_site(tmp_path, "anna", population(4, 100))
    service, plan = SiteService(site), survey_plan(("anna",), own=("anna",))
    first = service.handle(ask(plan))
    assert isinstance(first, Tally)
    add(site, [patient(900, label=1, sex="M", age=3) for _ in range(1)])
    add(site, (patient(1000 + n, label=1, sex="M", age=3, patient=f"N{n}") for n in range(40)))
    again = service.handle(ask(plan, run="run-2"))
    assert again.tables == first.tables
    other = survey_plan(("anna",), own=("anna",), study={"name": "other"})
    assert service.handle(ask(other, run="run-3")).tables == first.tables


def test_a_label_that_changes_changes_no_answer_of_this_year(tmp_path):
    """The same patients with another truth: the difference would be about those whose label was put right."""
    site = counted_site(tmp_path, "anna", population(4, 100))
    service, plan = SiteService(site), survey_plan(("anna",), own=("anna",))
    first = service.handle(ask(plan))
    add(site, (patient(1000 + n, n + 1, label=1, patient=f"P{n:04d}") for n in range(40)))
    assert service.handle(ask(plan, run="run-2")).tables == first.tables


def test_the_patients_of_a_year_are_those_who_were_there_first_for_other_bins_too(tmp_path):
    kept, moment = memory(tmp_path)
    year = kept.begin(wanted("a"), Policy())
    assert kept.cohort(year, {"one", "two"}) == {"one", "two"}
    assert kept.cohort(year, {"one", "two", "three"}) == {"one", "two"}
    moment[0] = datetime(2032, 1, 1, tzinfo=UTC)
    assert kept.cohort(kept.begin(wanted("b"), Policy()), {"one", "three"}) == {"one", "three"}


def test_other_bins_of_the_same_year_are_over_the_same_patients(tmp_path):
    """In sums of other bins a patient more would be told by the difference too."""
    site = counted_site(tmp_path, "anna", population(4, 50))
    kept, plan = Memory(site.state / NAME), survey_plan(("anna",))
    schema = schema_of(plan)

    def part(of, run):
        terms = Terms(DIGEST, ("anna",), 1, 32, 1.0, 1, schema.size)
        return Analyst(site).part(ask(of, run=run), of, terms).counts

    assert schema.tables(part(plan, "run-1"))["sex"].sum() == 50
    add(site, [patient(900)])
    other = survey_plan(("anna",), analytics={"manufacturers": ["Aster Imaging"]})
    assert schema_of(other).tables(part(other, "run-2"))["sex"].sum() == 50
    assert len(kept.cohort(datetime.now(UTC).year, set())) == 50


def test_the_same_question_of_the_same_run_gets_the_same_bytes(tmp_path):
    site = counted_site(tmp_path, "anna", population(4, 100))
    service, plan = SiteService(site), survey_plan(("anna",), own=("anna",))
    for _ in range(2):
        service.handle(ask(plan))
    released = [line["fields"] for line in read(site.audit) if line["event"] == "egress.release"]
    assert len(released) == 2
    assert released[0]["digest"] == released[1]["digest"]


def test_only_who_is_named_and_wants_to_shows_its_own(tmp_path):
    site = counted_site(tmp_path, "anna", population(1, 50))
    assert SiteService(site).handle(ask(survey_plan(("anna",)))).code == "policy-analytics"
    plan = survey_plan(("bert",), own=("bert",))
    for choice in ("totals", "off"):
        other = counted_site(tmp_path / choice, "bert", population(1, 50), analytics=choice)
        assert SiteService(other).handle(ask(plan)).code == "policy-analytics"


def test_groups_that_the_policy_keeps_are_not_in_the_tables(tmp_path):
    site = counted_site(tmp_path, "anna", population(1, 200), groups=["sex"])
    told = SiteService(site).handle(ask(survey_plan(("anna",), own=("anna",))))
    axes = {table.axis for table in told.tables}
    assert "sex" in axes
    assert not axes & {"age", "projection", "manufacturer"}


def test_no_word_of_a_hospital_leaves_only_numbers(tmp_path):
    """A canary in every text that an image of the index has; the bins' names are the plan's."""
    words = ("Kanari", "Zeisig", "Stieglitz", "Gimpel", "Meise")
    rows = (
        patient(
            n,
            label=n % 2,
            manufacturer=words[0],
            model=words[1],
            projection=words[2],
            label_source=words[3],
            label_version=words[4],
            patient=f"Drossel{n}",
        )
        for n in range(60)
    )
    site = counted_site(tmp_path, "anna", rows)
    told = SiteService(site).handle(ask(survey_plan(("anna",), own=("anna",))))
    assert isinstance(told, Tally)
    left = wire.pack(told)
    for word in (*words, "Drossel", "spend-", "2.25."):
        assert word.encode() not in left
    assert [one.cells for one in told.tables if one.axis == "patients"] == [((30,), (30,), (None,))]


def memory(tmp_path, year=2031):
    moment = [datetime(year, 3, 1, tzinfo=UTC)]
    return Memory(tmp_path / "analytics.sqlite", lambda: moment[0]), moment


def wanted(run, place=SUM, bins="sha256:" + "1" * 64):
    return Wanted(run, place, bins)


def refused(call, *args):
    with pytest.raises(PolicyRefused) as caught:
        call(*args)
    return caught.value.code


def test_a_hospital_is_in_a_sum_or_on_its_own_within_a_year_never_both(tmp_path):
    kept, moment = memory(tmp_path)
    policy = Policy()
    kept.begin(wanted("a"), policy)
    assert refused(kept.begin, wanted("b", OWN), policy) == "policy-analytics"
    moment[0] = datetime(2032, 1, 1, tzinfo=UTC)
    kept.begin(wanted("b", OWN), policy)
    assert refused(kept.begin, wanted("c"), policy) == "policy-analytics"


def test_own_cells_are_shown_in_one_set_of_bins_a_year(tmp_path):
    kept, _ = memory(tmp_path)
    kept.begin(wanted("a", OWN), Policy())
    assert refused(kept.begin, wanted("b", OWN, "sha256:" + "2" * 64), Policy()) == "policy-analytics"
    kept.begin(wanted("b", OWN), Policy())


def test_a_year_has_so_many_runs_and_a_clock_set_back_frees_none(tmp_path):
    kept, moment = memory(tmp_path)
    for run in "abcd":
        kept.begin(wanted(run), Policy())
    kept.begin(wanted("a"), Policy())
    assert refused(kept.begin, wanted("e"), Policy()) == "policy-questions"
    moment[0] = datetime(2030, 1, 1, tzinfo=UTC)
    assert refused(kept.begin, wanted("e"), Policy()) == "policy-questions"


def test_sums_that_single_a_hospital_out_are_found():
    five = list("abcde")
    assert singled_out([five]) == ()
    assert singled_out([five, five]) == ()
    assert singled_out([five, five[:4]]) == ("e",)
    assert singled_out([five, five[:3]]) == ("d", "e")
    assert singled_out([list("abcdef"), list("abc")]) == ()
    # No two of these tell anything alone; all three together do: ab+cd+ef - abc-def ... leaves one.
    assert singled_out([list("abcdef"), list("abc"), list("abd")]) == ("c", "d")
    assert singled_out([list("abcdefghi"), list("abcdef"), list("abcghi"), list("defghi")]) == ()
    assert singled_out([list("abc"), list("def"), list("abcdefg")]) == ("g",)


def test_no_combination_of_allowed_sums_is_about_one_or_two():
    """Against brute force: over random lists, whatever is let through leaves every pair of hospitals hidden."""
    rng = np.random.default_rng(5)
    let = 0
    for _ in range(300):
        rows = rng.random((3, 7)) < 0.6
        names = [[str(n) for n in np.flatnonzero(row)] for row in rows]
        found = singled_out(names)
        about = _about_few(rows.astype(float))
        assert bool(found) == about
        let += not found
    assert 0 < let < 300


def _about_few(rows):
    """Whether some combination has at most two sites: by solving for each pair."""
    used = np.flatnonzero(rows.any(axis=0))
    for one in used:
        for other in used:
            outside = [n for n in used if n not in (one, other)]
            kernel = _kernel(rows[:, outside].T)
            if kernel.size and np.abs(kernel.T @ rows[:, [one, other]]).max() > 1e-9:
                return True
    return False


def _kernel(matrix):
    _, values, rows = np.linalg.svd(matrix)
    rank = int((values > 1e-9).sum())
    return rows[rank:].T


def test_the_discrete_gaussian_has_its_shape():
    """Against its own formula: chi-squared over 20,000 draws."""
    variance, count = Fraction(9), 20_000
    drawn = np.array([discrete_gaussian(variance) for _ in range(count)])
    places = np.arange(-9, 10)
    shape = np.exp(-(places**2) / (2 * 9.0))
    shape /= np.exp(-(np.arange(-60, 61) ** 2) / (2 * 9.0)).sum()
    seen = np.array([(drawn == place).sum() for place in places])
    statistic = float(((seen - count * shape) ** 2 / (count * shape)).sum())
    assert statistic < 60  # 19 bins: beyond it once in a million


def test_a_sum_has_the_noise_that_the_accountants_were_told_even_if_some_tell_theirs():
    plan = survey_plan(analytics={"epsilon": 1.0})
    noise = Noise.of(plan, parties=8, threshold=6)
    needed = noise.multiplier * sensitivity(schema_of(plan))
    honest = 6 - 3  # three of eight may collude with a threshold of six
    assert noise.share * honest**0.5 == pytest.approx(needed)
    drawn = np.concatenate([noisy(np.zeros(306, np.int64), noise) for _ in range(10)])
    assert np.std(drawn) == pytest.approx(noise.share, rel=0.1)


def test_too_little_noise_to_hide_in_whole_numbers_is_refused():
    with pytest.raises(PrivacyRefused) as caught:
        Noise.of(survey_plan(analytics={"epsilon": 40.0}), parties=20, threshold=20)
    assert caught.value.code == "dp"


def test_a_masked_part_waits_for_its_terms(tmp_path):
    """Under a plan that is an analysis a masked stage comes with terms, as everywhere."""
    site = counted_site(tmp_path, "anna", population(1, 30))
    with pytest.raises(FederationError):
        Masking(site).answer(ask(PLAN, kind=Kind.KEYS), PLAN, lambda: None)


def test_makers_are_compared_without_their_capitals():
    assert schema_of(PLAN).axis("manufacturer").bins[:2] == MAKERS
