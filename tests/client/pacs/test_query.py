"""What an archive is asked for, and that exactly this comes back, by C-FIND and by QIDO-RS alike."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from datetime import date
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from client.deid.pseudonyms import Pseudonyms
from client.pacs import find_web
from client.pacs.accessions import read_accessions
from client.pacs.connect import finder
from client.pacs.find_dimse import matches
from client.pacs.query import Wanted, find, summarise
from client.pacs.remote import find_remote
from client.site import Site
from common.errors import LabelError, PacsError
from tests.client.pacs.archive import COMMAND, environment, no_identifier, site_of, typed
from tests.orthanc import Orthanc
from tests.studies import ct_study, study

VIAS = ("dimse", "web")


@pytest.fixture
def site(orthanc: Orthanc, tmp_path: Path) -> Site:
    """An archive with five studies of three kinds."""
    orthanc.upload(
        *study(0, 2, StudyDate="20200101"),
        *study(1, 1, StudyDate="20210615", BodyPartExamined="HAND"),
        *study(2, 1, StudyDate="20211231", Modality="DX", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1"),
        *ct_study(3, 4, size=64, StudyDate="20220101"),
        *ct_study(4, 2, size=64, StudyDate="20230101", BodyPartExamined="ABENDROTHPART"),
    )
    return site_of(tmp_path / "site", orthanc)


def asked(site: Site, via: str, wanted: Wanted) -> dict[str, int]:
    """Accession numbers found, with the instances of the wanted series."""
    with finder(find_remote(site, None), via) as one:
        return {study.accession: study.instances for study in find(one, wanted)}


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), {0: 2, 1: 1, 2: 1, 3: 4, 4: 2}),
        (Wanted(modalities=("CT",)), {3: 4, 4: 2}),
        (Wanted(modalities=("CT", "DX")), {2: 1, 3: 4, 4: 2}),
        (Wanted(body_parts=("HAND",)), {1: 1}),
        (Wanted(modalities=("CT",), body_parts=("CHEST",)), {3: 4}),
        (Wanted(begin=date(2021, 6, 15), end=date(2021, 12, 31)), {1: 1, 2: 1}),
        (Wanted(begin=date(2022, 1, 1)), {3: 4, 4: 2}),
        (Wanted(end=date(2020, 1, 1)), {0: 2}),
        (Wanted(accessions=("ACC000001", "ACC000003", "ACC999999")), {1: 1, 3: 4}),
        (Wanted(accessions=("acc000001",)), {}),
        (Wanted(accessions=()), {}),
        (Wanted(studies=("1.2.276.0.7230010.3.1", "1.2.276.0.7230010.3.4")), {0: 2, 3: 4}),
        (Wanted(modalities=("MR",)), {}),
    ],
)
def test_exactly_what_is_wanted_is_found(
    site: Site, via: str, wanted: Wanted, expected: dict[int, int]
) -> None:
    assert asked(site, via, wanted) == {f"ACC{number:06d}": count for number, count in expected.items()}


def test_a_study_of_two_modalities_counts_only_the_wanted_series(site: Site, orthanc: Orthanc) -> None:
    """Body part and modality stand in the series: the rest of the study is neither counted nor fetched."""
    orthanc.upload(*study(3, 3, SeriesInstanceUID="1.2.276.0.7230010.3.4.9", StudyDate="20220101"))
    for via in VIAS:
        assert asked(site, via, Wanted(modalities=("CR",), accessions=("ACC000003",))) == {"ACC000003": 3}
        assert asked(site, via, Wanted(accessions=("ACC000003",))) == {"ACC000003": 7}


@pytest.mark.parametrize(
    ("codes", "rule"),
    [
        ((0xFF00, None), "one of its matches cannot be read"),
        ((0xFF01, None), "one of its matches cannot be read"),
        ((0xB001, None), "may have more matches"),
        ((0xA700, None), "status"),
        ((None, None), "before the answer was whole"),
    ],
)
def test_a_list_that_is_not_whole_is_no_list(site: Site, codes: tuple[int | None, None], rule: str) -> None:
    """A match that cannot be read must not be left out in silence: nobody would miss that study."""
    code, nothing = codes
    found, bad, end = Dataset(), Dataset(), Dataset()
    found.Status, end.Status = 0xFF00, 0x0000
    if code is not None:
        bad.Status = code
    answer = Dataset()
    with finder(find_remote(site, None), "dimse") as one:
        caller = one._caller
    assert matches(caller, [(found, answer), (found, answer), (end, None)]) == [answer, answer]
    with pytest.raises(PacsError, match=rule):
        matches(caller, [(found, answer), (bad, nothing), (end, None)])


def test_what_is_printed_counts_and_names_nobody(site: Site) -> None:
    """Codes, counts and words of the standard; a name that stands for a body part does not pass."""
    for via in VIAS:
        done = typed(site, "query", "--via", via, "--json")
        assert done.returncode == 0, done.stderr
        no_identifier(done.stdout, done.stderr)
        answer = json.loads(done.stdout)
        assert answer["by_modality"] == {"CR": 2, "CT": 2, "DX": 1}
        assert answer["by_year"] == {"2020": 1, "2021": 2, "2022": 1, "2023": 1}
        assert answer["by_body_part"] == {"CHEST": 3, "HAND": 1, "other": 1}
        assert len({one["study"] for one in answer["codes"]}) == 5
    table = typed(site, "query", "--modality", "CT")
    assert "2 studies" in table.stdout
    no_identifier(table.stdout, table.stderr)


def test_accession_numbers_are_shown_on_a_terminal_only(site: Site) -> None:
    """Into a pipe they are refused; at a terminal they are there when asked for."""
    piped = typed(site, "query", "--show-identifiers")
    assert piped.returncode == 2
    no_identifier(piped.stdout, piped.stderr)
    ours, theirs = pty.openpty()
    command = [COMMAND, "pacs", "query", "--show-identifiers", "--site", site.folder]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env=environment(), check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "ACC000003" in shown
    no_identifier(done.stderr)


def test_what_was_asked_for_and_is_not_there_is_counted(site: Site) -> None:
    wanted = Wanted(accessions=("ACC000001", "ACC999998", "ACC999999"))
    with finder(find_remote(site, None), None) as one:
        summary = summarise("archive", find(one, wanted), wanted, Pseudonyms.of(site))
    assert (summary.studies, summary.accessions_not_found) == (1, 2)


def test_an_archive_of_more_studies_than_a_page(site: Site, orthanc: Orthanc) -> None:
    """QIDO-RS answers in pages; none is lost and none comes twice."""
    orthanc.upload(*(file for number in range(10, 10 + 30) for file in study(number, size=16)))
    page, find_web.PAGE = find_web.PAGE, 8
    try:
        assert len(asked(site, "web", Wanted())) == 35
    finally:
        find_web.PAGE = page


@pytest.mark.parametrize("words", [("--modality", "C*"), ("--from", "2024-01-01", "--to", "2023-01-01")])
def test_a_search_that_would_mean_something_else_is_refused(site: Site, words: tuple[str, ...]) -> None:
    done = typed(site, "query", *words)
    assert done.returncode == 2
    assert done.stdout == ""


def test_accession_numbers_come_from_a_list_or_a_column(tmp_path: Path) -> None:
    plain, table = tmp_path / "list.txt", tmp_path / "labels.csv"
    plain.write_text("ACC1\n\n  ACC2 \r\nACC1\n")
    table.write_text("Accession,label,source,version\nACC1,1,reader,1\nACC2,0,reader,1\n")
    assert read_accessions(plain) == read_accessions(table) == ("ACC1", "ACC2")


@pytest.mark.parametrize("text", ["", "\n", "ACC*\n", "A\\B\n", "12345678901234567\n", "study;label\n1;2\n"])
def test_a_list_that_would_bring_other_studies_is_refused(tmp_path: Path, text: str) -> None:
    """A wildcard, an empty list: each would fetch what nobody named."""
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(LabelError):
        read_accessions(path)
