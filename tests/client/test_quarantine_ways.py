"""One image that comes from a folder and from an archive is two files; refused, it lies in quarantine once."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from typer.testing import CliRunner

from client.cli import app
from client.index import Index
from client.intake import intake_summary
from client.intake.folder import Incoming
from client.intake.ingest import ingest
from client.intake.outcome import Outcome
from client.intake.quarantine import Quarantine
from client.intake.reasons import Reason
from client.intake.refusals import Refusal
from client.intake.release import discard, release, undo_discard
from client.pacs.inbox import Inbox
from client.pacs.take import Taker, Taking
from client.site import Site
from client.withdraw import withdraw
from tests.client.intake_files import chest, image, new_site, set_pixels, to_bytes

BURNED = "review-burned-in"
HARMLESS, UNUSABLE = Reason("harmless"), Reason("unusable")


def burned(**changes: object) -> Dataset:
    return image(7, **{"BurnedInAnnotation": "YES", **changes})


def flat() -> Dataset:
    made = image(8)
    set_pixels(made, chest(8) * 0 + 7)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path / "site")


def by_folder(site: Site, *images: Dataset) -> None:
    """As a person's export holds them: in Explicit VR."""
    folder = site.folder.parent / "export"
    folder.mkdir(exist_ok=True)
    for number, one in enumerate(images):
        (folder / f"{number}.dcm").write_bytes(to_bytes(one))
    ingest(site, folder, None, workers=1)


def by_archive(site: Site, *images: Dataset) -> None:
    """As an archive sends them: other file meta, data set in Implicit VR; through the inbox."""
    inbox = Inbox.of(site)
    for number, one in enumerate(images):
        draft = inbox.draft()
        draft.write(to_bytes(one, ImplicitVRLittleEndian, preamble=b"\1" * 128))
        inbox.keep(draft, f"study {number}", f"{number}")
    for study in inbox.complete(0):
        os.utime(study, (time.time() - 1000,) * 2)
    taker = Taker(site, inbox, Taking(600.0, None, 1))
    assert taker.turn() == 1
    assert taker.taken.error is None
    assert inbox.count() == 0


def held(site: Site) -> list[Refusal]:
    return Quarantine.of(site).refusals()


def codes(site: Site) -> dict[str, int]:
    """What became of every file, as the index remembers it."""
    with Index(site.index) as index:
        return index.outcomes()


WAYS = {"folder": by_folder, "archive": by_archive}


@pytest.mark.parametrize("order", [("folder", "archive"), ("archive", "folder")])
def test_it_lies_once_and_names_both_ways(site: Site, order: tuple[str, str]) -> None:
    for way in order:
        WAYS[way](site, burned(), flat(), image(9, patient=" "))
    found = held(site)
    assert [one.code for one in found] == ["patient-unknown", "quality-blank", BURNED]
    assert {one.ways for one in found} == {order}
    assert len(list(site.quarantine.glob("*.sealed"))) == 3
    assert intake_summary(site).received == 6
    with Index(site.index) as index:
        assert [one.code for one in index.judged()] == ["quality-blank"]
    (waiting,) = (one.id for one in found if one.waits)
    words = ["quarantine", "show", waiting, "--site", str(site.folder)]
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["ways"] == list(order)
    assert " and ".join(order) in CliRunner().invoke(app, words, env={"COLUMNS": "200"}).stdout


def test_the_first_day_and_the_first_original_stay(site: Site) -> None:
    by_folder(site, burned())
    (path,) = site.quarantine.glob("*.json")
    first = json.loads(path.read_text())
    since = (datetime.now(UTC) - timedelta(days=30)).isoformat(timespec="seconds")
    path.write_text(json.dumps({**first, "since": since}))
    (sealed,) = site.quarantine.glob("*.sealed")
    before = sealed.read_bytes()
    for _ in range(2):
        by_archive(site, burned())
    (one,) = held(site)
    assert (one.since, one.key, one.bytes) == (since, first["key"], first["bytes"])
    assert one.ways == ("folder", "archive")
    assert sealed.read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [
        burned(SOPInstanceUID="1.2.276.0.7230010.3.8.1.2"),
        burned(PatientID="HOSP-7799999"),
        burned(BurnedInAnnotation="NO", ImageType=["DERIVED", "PRIMARY"]),
    ],
)
def test_another_instance_patient_or_reason_is_another_entry(site: Site, other: Dataset) -> None:
    by_folder(site, burned())
    by_archive(site, other)
    assert [one.ways for one in held(site)].count(("folder",)) == 1
    assert [one.ways for one in held(site)].count(("archive",)) == 1


def test_other_pixels_under_the_same_instance_are_another_entry(site: Site) -> None:
    """An archive that has another picture under this number must not lose it."""
    changed = burned()
    set_pixels(changed, chest(8))
    by_folder(site, burned())
    by_archive(site, changed)
    assert len(held(site)) == 2


def test_a_reason_that_changed_meanwhile_is_another_reason(site: Site, tmp_path: Path) -> None:
    """Judged anew within one ingestion, the first file waits for something else now: the second is not its twin."""
    quarantine, file = Quarantine.of(site), tmp_path / "a.dcm"
    file.write_bytes(to_bytes(burned()))
    one, other = Outcome(BURNED, image="i" * 32), Outcome("review-derived", image="i" * 32)
    came = Incoming(file, "a.dcm", None)
    first = quarantine.put(came, "1" * 32, one, "folder")
    assert quarantine.put(came, "1" * 32, other, "folder") == first
    assert quarantine.put(came, "2" * 32, one, "archive") != first
    assert quarantine.put(came, "3" * 32, other, "archive") == first
    assert {refusal.code: refusal.ways for refusal in quarantine.refusals()} == {
        BURNED: ("archive",),
        "review-derived": ("folder", "archive"),
    }


def test_where_the_original_is_lost_the_other_file_is_kept(site: Site) -> None:
    by_folder(site, burned())
    (sealed,) = site.quarantine.glob("*.sealed")
    sealed.unlink()
    by_archive(site, burned())
    assert sum(Quarantine.of(site).has_original(one.id) for one in held(site)) == 1


def test_a_release_lets_both_files_go(site: Site) -> None:
    for way in WAYS.values():
        way(site, burned())
    (one,) = held(site)
    assert release(site, one.id, (), HARMLESS).state == "accepted"
    assert held(site) == []
    assert codes(site) == {"accepted": 2}
    for way in WAYS.values():
        way(site, burned())
    assert held(site) == []
    assert len(list(site.dicom.rglob("*.dcm"))) == 1


def test_a_discard_keeps_both_files_out_and_its_undo_lets_both_come_again(site: Site) -> None:
    for way in WAYS.values():
        way(site, burned())
    (one,) = held(site)
    discard(site, one.id, UNUSABLE)
    for way in WAYS.values():
        way(site, burned())
    assert held(site) == []
    assert codes(site) == {"discarded": 2}
    undo_discard(site, one.id)
    for way in WAYS.values():
        way(site, burned())
    assert [again.ways for again in held(site)] == [("folder", "archive")]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_taken_in_later_by_either_way_leaves_no_original(site: Site, way: str) -> None:
    """A setting that was too strict is corrected, and only one of the two files comes again."""
    derived = image(7, ImageType=["DERIVED", "PRIMARY"])
    for each in WAYS.values():
        each(site, derived)
    (one,) = held(site)
    assert one.code == "review-derived"
    WAYS[way](replace(site, deid=replace(site.deid, derived_primary=("CR",))), derived)
    assert held(site) == []
    assert codes(site) == {"accepted": 2}


def test_a_withdrawal_forgets_both_files(site: Site) -> None:
    for way in WAYS.values():
        way(site, burned())
    (one,) = held(site)
    assert withdraw(site, one.patient, one.spend_key).quarantined == (one.id,)
    assert held(site) == []
    assert codes(site) == {"withdrawn": 2}


def test_a_reason_of_an_older_release_is_read_and_not_taken_for_a_twin(site: Site) -> None:
    by_folder(site, burned())
    (path,) = site.quarantine.glob("*.json")
    reason = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: value for name, value in reason.items() if name not in ("image", "ways")})
    )
    (old,) = held(site)
    assert (old.code, old.image, old.ways) == (BURNED, "", ())
    by_archive(site, burned())
    assert len(held(site)) == 2
