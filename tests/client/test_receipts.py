"""Each study has a receipt that a data-protection officer can read, and none is lost or names anybody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deid.pseudonyms import Pseudonyms
from client.deid.text.found import Box
from client.index import FileOutcome, Index
from client.intake.begin import begun
from client.intake.folder import Incoming
from client.intake.ingest import ingest
from client.intake.outcome import ACCEPTED, Outcome
from client.intake.process import Finished
from client.intake.quarantine import Quarantine
from client.intake.reasons import Reason
from client.intake.receipt import deliver, promise, study_receipts
from client.intake.release import release
from client.site import Site
from common.audit import AuditLog, Head, read, verify
from common.errors import StorageError
from tests.client.intake_files import export, image, new_site, to_bytes

NAMES = ("Abendroth", "Wilhelmina", "HOSP-77", "ACC00", "1.2.276.0.7230010")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = export(tmp_path / "in", 3)
    second = image(0, SOPInstanceUID="1.2.276.0.7230010.3.1.1.2", SeriesInstanceUID="1.2.276.0.7230010.3.1.2")
    second.PixelData = bytes(second.PixelData[2:]) + b"\1\1"
    (folder / "second.dcm").write_bytes(to_bytes(second))
    (folder / "burned.dcm").write_bytes(to_bytes(image(7, BurnedInAnnotation="YES")))
    (folder / "broken.dcm").write_bytes(b"nothing")
    made = new_site(tmp_path / "site")
    ingest(made, folder, None, workers=1)
    return made


def study(site: Site, number: int) -> str:
    return Pseudonyms.of(site).uid(f"1.2.276.0.7230010.3.{number + 1}")


def typed(site: Site, *words: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["receipts", *words, "--site", str(site.folder)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_study_has_one_receipt_with_what_was_done(site: Site) -> None:
    found = {one.study: one for one in study_receipts(site)}
    assert set(found) == {study(site, number) for number in (0, 1, 2, 7)}
    assert [(one.files, one.images, one.refused) for one in (found[study(site, n)] for n in (0, 1, 7))] == [
        (2, 2, 0),
        (1, 1, 0),
        (1, 0, 1),
    ]
    first = found[study(site, 0)]
    assert first.profile.startswith("sha256:")
    assert "113100" in first.methods
    assert first.verifier == "agreed"
    assert first.actions["kept"] > 0
    assert first.actions["removed"] > 0
    assert found[study(site, 7)].methods == ()
    assert found[study(site, 7)].verifier == "no-image"  # it waits for a person: no scan agreed with anything
    assert all(one.searched for one in found.values())
    verify(site.audit)
    assert not any(name in site.audit.read_text() for name in NAMES)
    assert "refused" not in {value for e in read(site.audit) for value in e["fields"].values()}


def test_an_ingestion_that_changes_nothing_writes_none(site: Site, tmp_path: Path) -> None:
    before = study_receipts(site)
    ingest(site, tmp_path / "in", None, workers=1)
    assert study_receipts(site) == before


def test_a_receipt_says_that_pixels_were_not_searched(site: Site, tmp_path: Path) -> None:
    """A hospital that turns the search for text off stands by it in every receipt; what an older release wrote says nothing."""
    other = replace(site, deid=replace(site.deid, burned_in_text="ignore"))
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "more.dcm").write_bytes(to_bytes(image(9)))
    ingest(other, folder, None, workers=1)
    said = study_receipts(site)
    assert [one.searched for one in said] == [*[True] * 4, False]
    assert "not searched for" in typed(site, study(site, 9))
    line = {
        "study": "9.8.7.6",
        "files": 1,
        "images": 1,
        "count": 0,
        "blanked": 0,
        "digest": "sha256:0",
        "status": "agreed",
    }
    AuditLog(site.audit).append("ingest.study", **line)
    assert study_receipts(site, "9.8.7.6")[0].searched is None


def test_a_release_gives_the_study_another(site: Site) -> None:
    (name,) = [one.id for one in Quarantine.of(site).refusals() if one.waits]
    release(site, name, (), Reason("harmless"))
    refused, taken_in = study_receipts(site, study(site, 7))
    assert (refused.images, taken_in.images) == (0, 1)
    assert taken_in.actions["kept"] > 0


def test_the_command_prints_all_or_one(site: Site) -> None:
    assert len(json.loads(typed(site, "--json"))) == 4
    assert all(study(site, number) in typed(site) for number in (0, 1, 2, 7))
    one = typed(site, study(site, 1)[:20])
    assert "second scan" in one
    assert "elements: kept" in one
    assert "No receipt of this study" in typed(site, "9.9.9")


def test_a_broken_log_gives_no_receipts(site: Site) -> None:
    lines = site.audit.read_text().splitlines(keepends=True)
    site.audit.write_text("".join([*lines[:1], *lines[2:]]))
    with pytest.raises(StorageError, match="does not follow"):
        study_receipts(site)


def finished(key: str, outcome: Outcome) -> Finished:
    return Finished(Incoming(Path("x"), "x", None), key, outcome)


def test_counts_are_summed_over_images_and_unknown_words_are_counted_too(site: Site) -> None:
    many = [
        finished(
            f"key{n}",
            Outcome(
                ACCEPTED,
                keys={"study": "9.8.7.6"},
                actions={"kept": 2, "private-removed": 3, "sung-to": 5, "blanked": 2},
                methods=("113100", "113101"),
                boxes=(Box(0, 1, 1, 2, 2),) * 2,
            ),
        )
        for n in range(3)
    ]
    stopped = finished("key9", Outcome("deid-verify", keys={"study": "9.8.7.6"}))
    with begun(site) as index:
        for one in (*many, stopped):
            index.record_file(one.key, FileOutcome(one.outcome.code))
        promise(site, [*many, stopped])
        deliver(site, index)
    (one,) = study_receipts(site, "9.8.7.6")
    assert one.actions == {"kept": 6, "private_removed": 9, "other": 15}
    assert (one.files, one.images, one.refused, one.blanked) == (4, 3, 1, 6)
    assert one.methods == ("113100", "113101")
    assert one.verifier == "stopped"


def test_a_promise_is_kept_by_the_next_who_comes_and_forgotten_if_nothing_happened(site: Site) -> None:
    """Killed between the index and the log, or before the index."""
    news = [finished("key1", Outcome(ACCEPTED, keys={"study": "9.8.7.6"}))]
    promise(site, news)
    with begun(site):
        pass
    assert study_receipts(site, "9.8.7.6") == []
    promise(site, news)
    with Index(site.index) as index:
        index.record_file("key1", FileOutcome(ACCEPTED))
    with begun(site):
        pass
    with begun(site):
        pass
    assert len(study_receipts(site, "9.8.7.6")) == 1


def test_many_lines_in_one_go_are_one_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a.jsonl")
    log.append("a.b", count=1)
    head = log.append_many(("c.d", {"count": n, "note": "x" if n else "Not A Word"}) for n in range(300))
    assert verify(tmp_path / "a.jsonl") == head == log.head()
    assert head.count == 301
    assert [entry["fields"]["note"] for entry in read(tmp_path / "a.jsonl") if entry["n"] in (2, 3)] == [
        "refused",
        "x",
    ]
    assert log.append_many([]) == Head(301, head.digest)
