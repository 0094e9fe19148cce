"""What a data-protection officer asks of de-identification, asked of every kind of nasty file in the table."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread

from client.deid.reader import walk
from client.intake.outcome import REVIEW as WAITS
from client.intake.parse import quiet, read
from tests.client.acceptance import letters
from tests.client.acceptance.case import BLANKED, CLEAN, REVIEW, WANTED
from tests.client.acceptance.corpus import CASES, DICOM
from tests.client.acceptance.search import Finder, contents, leaks
from tests.client.acceptance.table import page
from tests.client.acceptance.taking import Became, Taken, take_in
from tests.client.acceptance.values import is_code

PAGE = Path(__file__).parents[3] / "docs" / "deid-acceptance.md"
KINDS = [case.kind for case in CASES]
FEWEST = 60
"""Kinds that a hospital was promised."""


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Taken:
    return take_in(tmp_path_factory.mktemp("acceptance"))


def allowed(outcome: str) -> tuple[str, ...]:
    """The codes, or their beginnings, that a row of the table stands for."""
    return {CLEAN: ("accepted",), REVIEW: (WAITS,), BLANKED: ("accepted", WAITS)}.get(outcome, (outcome,))


def kept(taken: Taken, became: Became) -> Path:
    """The de-identified file of an image that was taken in."""
    if became.row is None:
        pytest.skip(f"its row says that it is not taken in: {became.nasty.case.outcome}")
    return taken.site.dicom / became.row.file


def test_the_table_in_the_documents_is_that_of_the_generator():
    """No row without a file, no file without a row; the outcomes as tested below."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_there_are_as_many_kinds_as_promised_and_each_once():
    assert len(CASES) >= FEWEST
    assert [kind for kind, count in Counter(KINDS).items() if count > 1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_ends_as_its_row_says(taken, kind):
    became = taken.files[kind]
    assert became.code.startswith(allowed(became.nasty.case.outcome)), became.code
    assert (became.row is not None) == (became.code == "accepted")


@pytest.mark.parametrize("kind", KINDS)
def test_no_canary_in_what_is_kept_of_it(taken, kind):
    """The image itself, with every text of its own patient, its trap and the names of its alphabet."""
    became = taken.files[kind]
    data = kept(taken, became).read_bytes()
    assert leaks(data, (*became.nasty.canary.texts(), *letters.NAMES)) == []


def test_no_canary_in_any_byte_the_hospital_keeps(taken):
    """Data and state of both hospitals: images, volumes, index, journal, audit log, quarantine, look-up table."""
    kinds = {text: kind for kind, one in taken.files.items() for text in words(one)}
    finder = Finder(kinds)
    found = {
        (path, kinds[text])
        for root in (taken.site.folder, taken.commanded)
        for path, data in contents(root).items()
        for text in finder.find(data)
    }
    assert found == set()


def words(one: Became) -> tuple[str, ...]:
    """The canaries of a file that no other file's shifted date or random UID can meet by chance."""
    canary = one.nasty.canary
    return (
        canary.word,
        canary.family,
        canary.given,
        canary.digits,
        canary.patient,
        canary.accession,
        canary.uid,
    )


def test_no_canary_in_what_lies_in_staging_on_the_way(taken):
    assert len(taken.on_the_way) > len(CASES) // 5
    everything = b"\n".join(taken.on_the_way.values()) + "\n".join(taken.on_the_way).encode()
    assert leaks(everything, [text for one in taken.files.values() for text in words(one)]) == []


def test_no_canary_in_what_is_said(taken):
    """Printed by the commands, logged at the most talkative, reported; of mistakes too."""
    assert "ingest.done" in taken.log
    said = taken.printed + taken.log.encode()
    said += json.dumps([report.as_record() for report in taken.reports]).encode()
    assert leaks(said, [text for one in taken.files.values() for text in one.nasty.canary.texts()]) == []


def test_no_name_of_any_alphabet_in_any_byte(taken):
    everything = b"\n".join(data for data in contents(taken.site.folder).values()) + taken.printed
    assert leaks(everything, letters.NAMES) == []


def test_no_canary_in_any_cell_of_the_index(taken):
    """Read as a database, not as bytes: a cell could be coded."""
    with sqlite3.connect(taken.site.index) as db:
        names = [row[0] for row in db.execute("select name from sqlite_master where type = 'table'")]
        rows = [row for name in names for row in db.execute(f'select * from "{name}"')]  # noqa: S608 (its own names)
    db.close()
    assert (
        leaks(
            "\n".join(map(str, rows)).encode(), [text for one in taken.files.values() for text in words(one)]
        )
        == []
    )


@pytest.mark.parametrize("kind", [case.kind for case in DICOM])
def test_what_a_study_wants_is_there_and_right(taken, kind):
    became = taken.files[kind]
    case, ours = became.nasty.case, dcmread(kept(taken, became))
    with quiet():
        source = read(became.nasty.data)
        for keyword in WANTED:
            wanted = None if keyword in case.lost else source.get(keyword)
            said = ours.get(keyword)
            assert said == wanted or (wanted is None and is_code(said)), keyword
        if "age" not in kind and "birth" not in kind:
            assert ours.PatientAge == "064Y"
        if case.check is not None:
            case.check(source, ours)


@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_walk_what_is_kept(taken, kind):
    """Our own second reader and pydicom agree on every element at the top."""
    path = kept(taken, taken.files[kind])
    ours = [
        (seen.group, seen.element) for seen in walk(path.read_bytes()) if not seen.depth and seen.group > 2
    ]
    assert ours == [(element.tag.group, element.tag.element) for element in dcmread(path)]


def test_the_command_counts_as_the_library_does(taken):
    printed = taken.printed.decode()
    second = json.loads(printed[printed.index("{", printed.index("st-anna")) :].split("\n}", 1)[0] + "\n}")
    assert second
    assert second["refused"] == taken.reports[1].refused


def test_every_file_is_counted_once(taken):
    for report, export in zip(taken.reports, taken.exports, strict=True):
        assert report.received == len(export.files)
        assert report.received == report.accepted + report.unchanged + sum(report.refused.values())


def test_sent_again_nothing_changes(taken):
    before = {p: p.read_bytes() for p in taken.site.dicom.rglob("*.dcm")}
    for first, second in zip(taken.reports, taken.again(), strict=True):
        assert second.accepted == 0
        assert second.unchanged == first.accepted + first.unchanged
        assert second.refused == first.refused
    assert {p: p.read_bytes() for p in taken.site.dicom.rglob("*.dcm")} == before
