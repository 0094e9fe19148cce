"""A mistake of ours is called one, and a file that changed in between is not taken for what it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from pydicom.errors import BytesLengthException

from client.deid.deidentify import Deidentifier
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.index_rows import Percentiles
from client.intake.bench import Bench
from client.intake.failed import failure
from client.intake.folder import list_files
from client.intake.ingest import ingest
from client.intake.outcome import Task
from client.intake.parse import quiet, read
from client.intake.pool import Pool, Setup
from client.intake.quarantine import Quarantine
from common.codes import FILES
from tests.client.intake_files import export, image, new_site, to_bytes

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)


class Broken(Mapping[tuple[str, str], Percentiles]):
    """Bounds of a site, from a store that fails: a mistake that no file makes."""

    def __getitem__(self, key: tuple[str, str]) -> Percentiles:
        raise ZeroDivisionError("Abendroth^Wilhelmina")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_what_no_parser_raised_is_internal_and_says_where_and_not_what(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(to_bytes(image()))
    bench = Bench(Deidentifier(built_in(), NAMES), percentiles=Broken())
    outcome = bench.process(Task(0, str(path), "k", str(tmp_path)))
    assert outcome.code == "internal"
    assert "ZeroDivisionError at client.intake.bench:" in outcome.rule
    assert "Abendroth" not in f"{outcome.rule} {outcome.remedy}"
    assert "quarantine" in outcome.remedy
    assert not (tmp_path / "k.dcm").exists()
    path.write_bytes(b"no image")
    assert bench.process(Task(1, str(path), "k", str(tmp_path))).code == "not-dicom"


def test_what_a_parser_raised_over_a_file_is_the_files_fault():
    """A value that pydicom cannot convert, met where we ask for it."""
    with quiet():
        ds = read(to_bytes(image()).replace(b"US\x02\x00", b"FD\x02\x00"))
        with pytest.raises(BytesLengthException) as caught:
            str(ds["Rows"].value)
    assert failure(caught.value).code == "parser-error"


def test_every_new_code_may_cross_the_wire():
    assert {"internal", "file-changed", "duplicate-element"} <= FILES


def test_a_file_that_is_no_longer_what_its_key_names_is_refused_by_name(tmp_path):
    folder, staging = export(tmp_path / "in", 2), tmp_path / "staging"
    staging.mkdir()
    files = list_files(folder, None, None)

    def tasks() -> Iterator[Task]:
        for number, file in enumerate(files):
            content = file.content()
            if number:
                file.path.write_bytes(to_bytes(image(77)))
            yield Task(number, str(file.path), f"{number:032x}", str(staging), digest=content.digest.hex())

    with Pool(Setup(NAMES), 1) as pool:
        codes = [outcome.code for _, outcome in pool.run(tasks())]
    assert codes == ["accepted", "file-changed"]
    assert [path.stem for path in staging.glob("*.dcm")] == [f"{0:032x}"]


def test_of_a_file_that_changes_all_the_time_nothing_is_kept_and_the_next_ingestion_takes_it(tmp_path):
    """Whether a worker meets the old bytes or the new ones, nothing is stored under the name of others."""
    folder, site = export(tmp_path / "in", 6), new_site(tmp_path / "site")
    paths = sorted(folder.iterdir())

    def meddle(done: int, _total: int) -> None:
        for path in paths[3:]:
            path.write_bytes(to_bytes(image(70 + done, patient=f"HOSP-{done}")))

    report = ingest(site, folder, None, workers=1, progress=meddle)
    assert set(report.refused) <= {"file-changed", "uid-conflict", "quality-duplicate"}
    kept = Quarantine.of(site)
    assert not any(kept.has_original(one.id) for one in kept.refusals() if one.code == "file-changed")
    again = ingest(site, export(tmp_path / "in", 6), None, workers=1)
    assert again.accepted + again.unchanged + again.refused.get("quality-duplicate", 0) == 6
    assert "file-changed" not in again.refused
