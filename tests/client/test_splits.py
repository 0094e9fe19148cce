"""Parts are for good: who was tested on is never trained on later, whoever comes or leaves in between."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.dataset import load_dataset
from client.index import Index
from client.site import Site
from client.splits import PARTS, draw_parts, split_key
from client.store import build_store
from client.withdraw import withdraw
from common.errors import DataError, StorageError
from common.plan import Data
from tests.client.made import add, fill, made_image, made_plan, made_site, noise

PLAN = made_plan()
SEED_7_TEST = ["P004", "P007", "P008", "P009", "P012", "P017"]
SEED_7_VALIDATION = ["P010", "P018"]
FRACTIONS = st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.25))


def parts_of(site: Site, plan=PLAN) -> dict[str, str]:
    """Patient to part, as a load gives them."""
    data = load_dataset(site, plan)
    return {name: part for part in PARTS for name in getattr(data, part).pseudonyms}


def kept_in(site: Site, plan=PLAN) -> dict[str, str]:
    with Index(site.index) as index:
        return index.parts(split_key(plan.data))


def more(site: Site, first: int, count: int, **row: object) -> None:
    """Patients after `first`, one image each."""
    for number in range(first, first + count):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.9{number:03d}")
        add(site, ds, f"P{number:03d}", **{"label": int(number % 3 == 0), **row})


def rule_of_the_first_draw(kinds: dict[str, object], data: Data) -> dict[str, str]:
    """The rule by which every earlier simulation was split, written out once more."""
    strata = defaultdict(list)
    for patient, kind in kinds.items():
        strata[repr(kind)].append(patient)
    parts: dict[str, str] = {}
    seen = tested = validated = 0
    for _, members in sorted(strata.items(), key=lambda item: (len(item[1]), item[0])):
        seen += len(members)
        test = max(0, min(round(seen * data.test_fraction) - tested, len(members)))
        rest = len(members) - test
        validate = max(0, min(round(seen * data.validation_fraction) - validated, rest))
        tested, validated = tested + test, validated + validate
        words = {name: f"consilium split {data.split_seed} {name}".encode() for name in members}
        for place, name in enumerate(sorted(members, key=lambda one: hashlib.sha256(words[one]).digest())):
            parts[name] = "test" if place < test else "validation" if place < test + validate else "train"
    return parts


@settings(max_examples=100, deadline=None)
@given(
    strata=st.lists(st.integers(1, 40), min_size=1, max_size=5), fractions=FRACTIONS, seed=st.integers(0, 5)
)
def test_a_first_draw_is_what_it_always_was(strata: list[int], fractions, seed: int) -> None:
    """Simulations must be repeatable to the bit across this change."""
    data = Data(test_fraction=fractions[0], validation_fraction=fractions[1], split_seed=seed)
    kinds = {f"{kind}-{n}": kind for kind, count in enumerate(strata) for n in range(count)}
    assert draw_parts(kinds, data) == rule_of_the_first_draw(kinds, data)


def test_two_draws_of_long_ago_come_out_the_same() -> None:
    """Figures taken from the release before parts were kept."""
    kinds = {f"P{n:03d}": n % 3 == 0 for n in range(20)}
    parts = draw_parts(kinds, Data(split_seed=7))
    assert sorted(name for name, part in parts.items() if part == "test") == SEED_7_TEST
    assert sorted(name for name, part in parts.items() if part == "validation") == SEED_7_VALIDATION


@st.composite
def histories(draw):
    """Batches of patients with a kind each, and after each batch some who leave."""
    sizes = draw(st.lists(st.integers(1, 25), min_size=2, max_size=6))
    arriving = [draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) for n in sizes]
    leaving = [draw(st.lists(st.integers(0, 99), max_size=8)) for _ in sizes]
    return arriving, leaving


@settings(max_examples=300, deadline=None)
@given(history=histories(), fractions=FRACTIONS, seed=st.integers(0, 3))
def test_nobody_moves_and_the_fractions_hold_as_nearly_as_they_can(history, fractions, seed: int) -> None:
    """Against every way to place the newcomers: none comes nearer to what a fresh draw would give."""
    data = Data(test_fraction=fractions[0], validation_fraction=fractions[1], split_seed=seed)
    kinds: dict[str, int] = {}
    parts: dict[str, str] = {}
    for number, (arriving, leaving) in enumerate(zip(*history, strict=True)):
        kinds |= {f"{number}-{n}": kind for n, kind in enumerate(arriving)}
        before, parts = parts, draw_parts(kinds, data, parts)
        assert parts.keys() == kinds.keys()
        assert before.items() <= parts.items()
        wanted, had = Counter(draw_parts(kinds, data).values()), Counter(before.values())
        assert distance(Counter(parts.values()), wanted) == nearest(had, wanted, len(arriving))
        for place in leaving:
            gone = sorted(kinds)[place % len(kinds)]
            if len(kinds) > 1:
                del kinds[gone], parts[gone]


def distance(have: Counter[str], wanted: Counter[str]) -> int:
    """Patients in the wrong place, each counted where missing and where too many."""
    return sum(abs(have[part] - wanted[part]) for part in PARTS)


def nearest(had: Counter[str], wanted: Counter[str], newcomers: int) -> int:
    """The least distance that any placing of the newcomers reaches."""
    return min(
        distance(had + Counter({"train": newcomers - t - v, "validation": v, "test": t}), wanted)
        for t in range(newcomers + 1)
        for v in range(newcomers + 1 - t)
    )


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(6, 25), min_size=2, max_size=6), fractions=FRACTIONS)
def test_while_patients_only_come_the_fractions_hold_within_one(sizes: list[int], fractions) -> None:
    """Batches of six and more; every third patient is positive."""
    data = Data(test_fraction=fractions[0], validation_fraction=fractions[1])
    kinds: dict[str, int] = {}
    parts: dict[str, str] = {}
    for number, size in enumerate(sizes):
        kinds |= {f"{number}-{n}": n % 3 == 0 for n in range(size)}
        parts = draw_parts(kinds, data, parts)
        count = Counter(parts.values())
        assert abs(count["test"] - fractions[0] * len(kinds)) <= 1
        assert abs(count["validation"] - fractions[1] * len(kinds)) <= 1


def test_newcomers_are_drawn_around_those_who_were_there(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 40)
    first = parts_of(site)
    more(site, 40, 33)
    second = parts_of(site)
    assert first.items() <= second.items()
    assert Counter(second.values()) == {"train": 44, "validation": 7, "test": 22}
    assert kept_in(site) == second


def test_a_newcomer_would_have_moved_patients_before() -> None:
    """The danger is real: the same hospital drawn afresh tests patients it trained on."""
    kinds = {f"P{n:03d}": n % 3 == 0 for n in range(400)}
    first = draw_parts({patient: kinds[patient] for patient in list(kinds)[:40]}, PLAN.data)
    afresh, around = draw_parts(kinds, PLAN.data), draw_parts(kinds, PLAN.data, first)
    assert any(part == "train" and afresh[patient] == "test" for patient, part in first.items())
    assert first.items() <= around.items()


def test_who_leaves_takes_their_parts_along_and_moves_nobody(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 40)
    first = parts_of(site)
    parts_of(site, made_plan(data={"split_seed": 1}))
    leaving = [patient for patient, part in first.items() if part == "train"][:9]
    for patient in leaving:
        withdraw(site, patient)
    assert parts_of(site) == {p: part for p, part in first.items() if p not in leaving}
    with sqlite3.connect(site.index) as raw:
        left = {record[0] for record in raw.execute("SELECT patient FROM parts")}
    raw.close()
    assert left == first.keys() - set(leaving)


def test_a_part_is_not_kept_for_a_patient_who_left_while_it_was_drawn(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 5)
    withdraw(site, "P001")
    with Index(site.index) as index:
        index.keep_parts("split", {"P000": "test", "P001": "test", "nobody": "test"})
        assert index.parts("split") == {"P000": "test"}


def test_each_seed_and_each_fraction_has_parts_of_its_own(tmp_path: Path) -> None:
    plans = [PLAN] + [made_plan(data=d) for d in ({"split_seed": 1}, {"test_fraction": 0.2})]
    site = made_site(tmp_path)
    fill(site, 30)
    found = [parts_of(site, plan) for plan in plans]
    assert len({split_key(plan.data) for plan in plans}) == 3
    assert found[0] != found[1] != found[2]
    assert [parts_of(site, plan) for plan in plans] == found


def test_the_digest_of_the_data_does_not_change_who_is_where() -> None:
    assert split_key(Data(digest="sha256:1")) == split_key(Data())


def test_a_site_that_is_refused_keeps_no_parts(tmp_path: Path) -> None:
    """Its patients are drawn afresh, all at once, when there are enough of them."""
    site = made_site(tmp_path, min_patients=20)
    fill(site, 9)
    with pytest.raises(DataError):
        load_dataset(site, PLAN)
    assert kept_in(site) == {}


def test_reading_again_writes_nothing(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 12)
    parts_of(site)
    with Index(site.index) as index:
        before = index._one("PRAGMA data_version")
        parts_of(site)
        assert index._one("PRAGMA data_version") == before


def name_parts(site: Site, part: str, patients: list[str]) -> None:
    """As a newer label table would."""
    with Index(site.index) as index:
        for row in index.images():
            if row.patient in patients:
                index.set_label(row.sop_uid, row.label, source="table", version="2", split=part)


def test_the_label_table_goes_first_and_what_it_said_stays(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 40)
    first = parts_of(site)
    chosen = [patient for patient, part in first.items() if part == "train"][:3]
    name_parts(site, "test", chosen)
    assert parts_of(site) == {**first, **dict.fromkeys(chosen, "test")}
    name_parts(site, "", chosen)
    assert parts_of(site) == {**first, **dict.fromkeys(chosen, "test")}


@pytest.mark.parametrize("used_as", ["train", "validation"])
def test_whom_a_run_used_cannot_become_a_test_patient(tmp_path: Path, used_as: str) -> None:
    site = made_site(tmp_path)
    fill(site, 40)
    first = parts_of(site)
    used = sorted(patient for patient, part in first.items() if part == used_as)
    with Index(site.index) as index:
        index.record_run("run-1", used)
    name_parts(site, "train", used[:1])
    assert parts_of(site)[used[0]] == "train"
    name_parts(site, "test", used[:1])
    with pytest.raises(DataError) as error:
        load_dataset(site, PLAN)
    assert error.value.code == "data-split-conflict"
    assert used[0] not in str(error.value)
    name_parts(site, "", used[:1])
    assert parts_of(site)[used[0]] == "train"


def test_processes_that_draw_at_once_agree(tmp_path: Path) -> None:
    """Two populations that overlap, drawn for the same split: whoever is second takes what the first drew."""
    site = made_site(tmp_path)
    fill(site, 60)
    for number in range(60, 90):
        ds = made_image(noise(number), SOPInstanceUID=f"2.25.9{number}", Modality="CR")
        add(site, ds, f"P{number:03d}", label=int(number % 2 == 0))
    plans = [PLAN, made_plan(input={"modalities": ["DX", "CR"]})]
    seeds = range(6)
    for plan in plans:
        build_store(site, plan.input)
    barrier = Barrier(4)

    def load(seed: int, plan) -> dict[str, str]:
        barrier.wait()
        return parts_of(
            site, made_plan(input={"modalities": plan.input.modalities}, data={"split_seed": seed})
        )

    with ThreadPoolExecutor(4) as threads:
        for seed in seeds:
            jobs = [threads.submit(load, seed, plan) for plan in plans * 2]
            first, second, third, fourth = (job.result() for job in jobs)
            assert first == third
            assert second == fourth
            assert first.items() <= second.items()


def test_an_index_of_the_release_before_is_brought_up(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 12)
    older(site.index)
    first = parts_of(site)
    assert kept_in(site) == first
    with Index(site.index) as index:
        index.check_integrity()


def older(path: Path) -> None:
    """Make an index what the first release wrote."""
    with sqlite3.connect(path) as raw:
        for table in ("parts", "labels", "labels_waiting", "former_runs", "former_parts"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("ALTER TABLE images DROP COLUMN perceptual_hash")
        for column in ("modality", "scanner", "quality"):
            raw.execute(f"ALTER TABLE files DROP COLUMN {column}")
        raw.execute("PRAGMA user_version = 1")
    raw.close()


def test_somebody_elses_database_of_an_old_version_is_not_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (a)")
        other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(StorageError) as error:
        Index(path)
    assert error.value.code == "storage-version"
