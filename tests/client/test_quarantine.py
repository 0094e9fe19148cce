"""What is refused lies sealed, is shown by a limited process, and leaves only through its doors."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner, Result

from client.cli import app
from client.deid.pseudonyms import Identity, Pseudonyms
from client.deid.text.found import Box
from client.index import Index
from client.intake import intake_summary
from client.intake.begin import alone, expire
from client.intake.ingest import ingest
from client.intake.outcome import Outcome
from client.intake.quarantine import Quarantine
from client.intake.reasons import Reason
from client.intake.release import release, undo_discard
from client.intake.seal import CHUNK_BYTES, KEY_FILE, open_seal, reseal
from client.policy import Policy
from client.site import Site, load_site
from client.withdraw import withdraw, withdraw_patient
from common.audit import read, verify
from common.errors import FileRefused, InputError, StorageError
from tests.client.intake_files import chest, export, image, label_table, new_site, set_pixels, to_bytes

NAMES = (b"Abendroth", b"Wilhelmina", b"HOSP-77", b"Quackenbush")
MR_CLASS = "1.2.840.10008.5.1.4.1.1.4"
HARMLESS = Reason("harmless", "ticket-77")


@dataclass(frozen=True)
class Day:
    """A hospital whose export holds good images, one that waits for a person, and some that are refused."""

    site: Site
    folder: Path

    def ids(self, code: str) -> list[str]:
        return [one.id for one in Quarantine.of(self.site).refusals() if one.code == code]

    @property
    def waiting(self) -> str:
        return self.ids("review-burned-in")[0]

    def events(self) -> list[tuple[str, dict]]:
        return [
            (e["event"], e["fields"]) for e in read(self.site.audit) if e["event"].startswith("quarantine.")
        ]


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Day:
    folder = export(tmp_path_factory.mktemp("archive") / "in", 2)
    burned = image(7, BurnedInAnnotation="YES")
    (folder / "Abendroth_burned.dcm").write_bytes(to_bytes(burned))
    flat = image(8)
    set_pixels(flat, chest(8) * 0 + 7)
    (folder / "Abendroth_flat.dcm").write_bytes(to_bytes(flat))
    (folder / "nobody.dcm").write_bytes(to_bytes(image(9, patient=" ")))
    (folder / "page.dcm").write_bytes(b"<html>Abendroth</html>")
    site = new_site(tmp_path_factory.mktemp("site") / "site")
    ingest(site, folder, None, workers=1)
    return Day(site, folder)


@pytest.fixture
def day(taken: Day, tmp_path: Path) -> Day:
    """The same site, for one test to change."""
    shutil.copytree(taken.site.folder, tmp_path / "site")
    return Day(load_site(tmp_path / "site"), taken.folder)


def typed(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def said(*words: object):
    result = typed(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def private(site: Site) -> Path:
    return site.data / "staging"


# at rest


def test_no_identified_byte_lies_in_the_quarantine(taken: Day) -> None:
    files = [path for path in taken.site.quarantine.iterdir() if path.is_file()]
    assert sum(path.suffix == ".sealed" for path in files) == 4
    for path in files:
        assert not any(name in path.read_bytes() for name in NAMES), path.name
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_what_comes_out_is_what_went_in_and_leaves_no_name_on_the_disk(taken: Day) -> None:
    sources = {path.read_bytes() for path in taken.folder.iterdir()}
    for refusal in Quarantine.of(taken.site).refusals():
        with Quarantine.of(taken.site).original(refusal.id, private(taken.site)) as opened:
            assert opened.path.read_bytes() in sources
            assert opened.relative in {path.name for path in taken.folder.iterdir()}
            assert refusal.bytes == opened.path.stat().st_size
            assert not list(private(taken.site).iterdir())
    shutil.rmtree(private(taken.site))


def test_the_same_file_sealed_twice_looks_different(taken: Day, tmp_path: Path) -> None:
    other = tmp_path / "twin"
    shutil.copytree(taken.site.folder, other)
    shutil.rmtree(other / "data")
    twin = load_site(other)
    ingest(twin, taken.folder, None, workers=1)
    for path in taken.site.quarantine.glob("*.sealed"):
        assert (twin.quarantine / path.name).read_bytes() != path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_any_size_comes_back_and_any_change_is_found(tmp_path: Path, size: int) -> None:
    seal, path, content = open_seal(tmp_path / "q", b"k" * 32), tmp_path / "x", os.urandom(size)
    with path.open("wb") as file:
        seal.write(iter([content]), file, "0123")
    with path.open("rb") as file:
        assert b"".join(seal.read(file, "0123")) == content
    whole = path.read_bytes()
    chunk, head = CHUNK_BYTES + 16, len(whole) - size - 16 * max(1, -(-size // CHUNK_BYTES))
    spoiled = {"cut": whole[:-1], "longer": whole + b"\0", "bit": whole[:-1] + bytes([whole[-1] ^ 1])}
    spoiled |= {
        "head": whole[:6] + bytes([whole[6] ^ 1]) + whole[7:],
        "empty": b"",
        "only a head": whole[:head],
    }
    if size == 3 * CHUNK_BYTES:
        a, b, c = (whole[head + n * chunk :][:chunk] for n in range(3))
        spoiled |= {"a chunk lost at the end": whole[: head + 2 * chunk], "swapped": whole[:head] + b + a + c}
        spoiled |= {"a chunk lost": whole[:head] + a + c, "twice": whole[:head] + a + b + c + c}
    for name, changed in spoiled.items():
        path.write_bytes(changed)
        with path.open("rb") as file, pytest.raises(StorageError) as caught:
            b"".join(seal.read(file, "0123"))
        assert caught.value.code == "quarantine-damaged", name
    path.write_bytes(whole)
    with path.open("rb") as file, pytest.raises(StorageError):
        b"".join(seal.read(file, "4567"))


def test_another_key_opens_nothing_and_says_so(day: Day) -> None:
    stranger = replace(day.site, pseudonym_key=b"x" * 32)
    with (
        pytest.raises(StorageError) as caught,
        Quarantine.of(stranger).original(day.waiting, private(day.site)),
    ):
        pass
    assert caught.value.code == "quarantine-key"


def test_a_new_key_costs_one_small_file_and_may_be_interrupted(day: Day) -> None:
    old, new = day.site.pseudonym_key, b"n" * 32
    before = {path.name: path.read_bytes() for path in day.site.quarantine.glob("*.sealed")}
    reseal(day.site.quarantine, old, new)
    reseal(day.site.quarantine, old, new)
    kept = (day.site.quarantine / KEY_FILE).read_bytes()
    for key in (old, new):  # interrupted here, whichever key is in place opens it
        (day.site.quarantine / KEY_FILE).write_bytes(kept)
        with Quarantine(day.site.quarantine, key).original(day.waiting, private(day.site)) as opened:
            assert opened.path.read_bytes()
    with pytest.raises(StorageError):  # and then the other one no more
        open_seal(day.site.quarantine, old)
    assert {path.name: path.read_bytes() for path in day.site.quarantine.glob("*.sealed")} == before


def test_an_older_releases_plain_originals_are_sealed_by_the_next_ingestion(tmp_path: Path) -> None:
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 1)
    site.quarantine.mkdir()
    reason = {
        "id": "0" * 16,
        "code": "burned-in",
        "rule": "r",
        "remedy": "m",
        "modality": "CR",
        "patient": "P1",
    }
    (site.quarantine / f"{'0' * 16}.json").write_text(json.dumps(reason))
    (site.quarantine / f"{'0' * 16}.bin").write_bytes(b"Abendroth" * 1000)
    ingest(site, folder, None, workers=1)
    assert not list(site.quarantine.glob("*.bin"))
    (held,) = Quarantine.of(site).refusals()
    assert datetime.fromisoformat(held.since) > datetime.now(UTC) - timedelta(minutes=5)
    with Quarantine.of(site).original(held.id, private(site)) as opened:
        assert opened.path.read_bytes() == b"Abendroth" * 1000
    assert [e["fields"] for e in read(site.audit) if e["event"] == "quarantine.sealed"] == [{"count": 1}]
    assert Quarantine.of(site).withdraw("P1") == ("0" * 16,)


# for how long


def test_originals_go_when_their_days_are_over_and_not_before(day: Day) -> None:
    quarantine, days = Quarantine.of(day.site), day.site.policy.quarantine_days
    now = datetime.now(UTC)
    assert quarantine.expire(days, now + timedelta(days=days - 1)) == []
    assert len(quarantine.expire(days, now + timedelta(days=days, seconds=5))) == 4
    assert [path.name for path in day.site.quarantine.iterdir()] == [KEY_FILE]


def older(site: Site, days: int) -> None:
    """As if every file had been refused so many days ago."""
    for path in site.quarantine.glob("*.json"):
        reason = json.loads(path.read_text())
        reason["since"] = (datetime.now(UTC) - timedelta(days=days, minutes=1)).isoformat()
        path.write_text(json.dumps(reason))


def test_each_ingestion_and_the_command_remove_what_is_over_and_audit_it(day: Day, tmp_path: Path) -> None:
    older(day.site, 90)
    ingest(day.site, export(tmp_path / "in", 1, 30), None, workers=1)
    assert Quarantine.of(day.site).refusals() == []
    gone = {
        fields["code"]: fields["count"] for event, fields in day.events() if event == "quarantine.expired"
    }
    assert gone == {"not-dicom": 1, "patient-unknown": 1, "quality-blank": 1, "review-burned-in": 1}
    ingest(day.site, day.folder, None, workers=1)
    older(day.site, 90)
    assert said("quarantine", "list", "--expire", "--site", day.site.folder) == []


def test_where_only_the_reason_is_kept_an_original_from_before_goes(day: Day) -> None:
    """As of a patient who withdrew, whose file was refused earlier and comes again."""
    quarantine = Quarantine.of(day.site)
    one = quarantine.find(day.waiting)
    assert one is not None
    assert quarantine.has_original(one.id)
    assert (
        quarantine.put_reason(one.key, Outcome("withdrawn", "its patient withdrew", "Nothing to do"))
        == one.id
    )
    assert not quarantine.has_original(one.id)
    left = quarantine.find(one.id)
    assert left is not None
    assert (left.code, left.patient, left.spend_key) == ("withdrawn", "", "")


def test_the_policy_says_for_how_long_and_no_number_of_ours(day: Day) -> None:
    older(day.site, 100)
    longer, shorter = (
        replace(day.site, policy=replace(day.site.policy, quarantine_days=days)) for days in (101, 100)
    )
    assert expire(longer) == {}
    assert len(Quarantine.of(day.site).refusals()) == 4
    assert sum(expire(shorter).values()) == 4
    assert Quarantine.of(day.site).refusals() == []


def test_the_same_file_sent_again_keeps_its_first_day(day: Day) -> None:
    older(day.site, 60)
    ingest(day.site, day.folder, None, workers=1)
    rows = said("quarantine", "list", "--site", day.site.folder)
    assert {(row["oldest_days"], row["days_left"]) for row in rows} == {(60, 30)}


def test_an_original_whose_reason_was_lost_is_listed_and_goes_in_time(day: Day) -> None:
    for path in day.site.quarantine.glob("*.json"):
        path.write_bytes(b"{")
    assert {one.code for one in Quarantine.of(day.site).refusals()} == {"reason-lost"}
    for path in day.site.quarantine.glob("*.json"):
        path.unlink()
    assert {one.code for one in Quarantine.of(day.site).refusals()} == {"reason-lost"}
    Quarantine.of(day.site).expire(1, datetime.now(UTC) + timedelta(days=2))
    assert [path.name for path in day.site.quarantine.iterdir()] == [KEY_FILE]


# to look at


def test_list_names_reason_state_age_and_ids(taken: Day) -> None:
    rows = {row["code"]: row for row in said("quarantine", "list", "--site", taken.site.folder)}
    assert {code: row["state"] for code, row in rows.items()} == {
        "not-dicom": "refused",
        "patient-unknown": "refused",
        "quality-blank": "refused",
        "review-burned-in": "waiting",
    }
    for row in rows.values():
        assert row["rule"]
        assert row["remedy"]
        assert (row["count"], row["oldest_days"], row["days_left"]) == (1, 0, 90)
    (only,) = said("quarantine", "list", "--waiting", "--site", taken.site.folder)
    assert only["ids"] == [taken.waiting]
    assert taken.waiting in typed("quarantine", "list", "--site", taken.site.folder).stdout


def test_show_draws_a_small_picture_that_only_its_owner_reads(taken: Day, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    words = ("quarantine", "show", taken.waiting, "--thumbnail", picture, "--site", taken.site.folder)
    shown = said(*words)
    assert (shown["state"], shown["releasable"], shown["original"]) == ("waiting", True, True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_mode & 0o077 == 0
    assert not any(name.decode() in typed(*words).output for name in NAMES)


def test_a_picture_of_what_is_none_is_refused_by_name(taken: Day, tmp_path: Path) -> None:
    (page,) = taken.ids("not-dicom")
    result = typed("quarantine", "show", page, "--thumbnail", tmp_path / "x", "--site", taken.site.folder)
    assert result.exit_code == 2
    assert "not a DICOM file" in result.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("id_", ["0" * 16, "../../site.toml", "", "x", "0" * 15 + "é"])
def test_an_id_that_is_none_leads_nowhere(taken: Day, id_: str) -> None:
    result = typed("quarantine", "show", id_, "--site", taken.site.folder)
    assert result.exit_code == 2
    assert "quarantine list" in result.stderr


# out again


def test_a_released_image_takes_the_whole_way_and_its_original_goes(day: Day) -> None:
    before, name = intake_summary(day.site), day.waiting
    decided = said(
        "quarantine",
        "release",
        name,
        "--reason",
        "harmless",
        "--note",
        "ticket-77",
        "--site",
        day.site.folder,
    )
    assert (decided["state"], decided["code"]) == ("accepted", "accepted")
    with Index(day.site.index) as index:
        rows = index.images()
    who = Pseudonyms.of(day.site).patient(Identity("HOSP-7700007"))
    (row,) = [row for row in rows if row.patient == who]
    stored = dcmread(day.site.dicom / row.file)
    assert stored.PatientIdentityRemoved == "YES"
    assert not any(name in (day.site.dicom / row.file).read_bytes() for name in NAMES)
    assert not list(day.site.quarantine.glob(f"{name}*"))
    after = intake_summary(day.site)
    assert (after.accepted, after.received) == (before.accepted + 1, before.received)
    assert not list(private(day.site).rglob("*.*"))
    fields = {"blanked": 0, "quarantine": name, "code": "review-burned-in", "kind": "release"}
    fields |= {"reason": "harmless", "note": "ticket-77", "user": f"uid-{os.getuid()}"}
    assert day.events() == [
        ("quarantine.decided", fields),
        ("quarantine.released", {"quarantine": name, "code": "accepted", "blanked": 0}),
    ]
    verify(day.site.audit)


def test_a_released_image_is_known_when_it_comes_again_and_then_gets_its_label(
    day: Day, tmp_path: Path
) -> None:
    release(day.site, day.waiting, (), HARMLESS)
    table = label_table(tmp_path / "l.csv", ["ACC000007,1,reader,1", "ACC000000,0,reader,1"])
    report = ingest(day.site, day.folder, table, workers=1)
    assert report.unchanged == 3
    assert "review-burned-in" not in report.refused
    who = Pseudonyms.of(day.site).patient(Identity("HOSP-7700007"))
    with Index(day.site.index) as index:
        assert [row.label for row in index.images() if row.patient == who] == [1]


@pytest.mark.parametrize("code", ["not-dicom", "patient-unknown"])
def test_what_must_never_go_in_is_refused_by_name(day: Day, code: str) -> None:
    (name,) = day.ids(code)
    with pytest.raises(InputError, match=f"{code} is never released") as caught:
        release(day.site, name, (), HARMLESS)
    assert caught.value.code == "release-never"
    assert day.events() == []


@pytest.mark.parametrize(
    "code", ["deid-verify", "parser-crash", "parser-limit", "withdrawn", "deid-value", "x"]
)
def test_a_release_never_passes_over_the_second_scan_or_the_parser(day: Day, code: str) -> None:
    """The door is closed by the code that stands beside the original, not by what the worker would say today."""
    path = day.site.quarantine / f"{day.waiting}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": code}))
    with pytest.raises(InputError, match="never released"):
        release(day.site, path.stem, (), HARMLESS)


def test_the_second_scan_judges_a_released_image_too(day: Day, tmp_path: Path) -> None:
    """A name that would reach the new file stops a release as it stops an ingestion, and closes the door."""
    named = image(21, BurnedInAnnotation="YES")
    pixels = chest(21)
    pixels[40, 10:21] = list(b"ABENDROTH21")  # a letter a pixel: no reader of text sees it
    set_pixels(named, pixels)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(to_bytes(named))
    before = day.waiting
    ingest(day.site, tmp_path / "in", None, workers=1)
    (name,) = set(day.ids("review-burned-in")) - {before}
    decided = release(day.site, name, (), HARMLESS)
    assert (decided.state, decided.code) == ("held", "deid-verify")
    assert day.events()[-1][1]["code"] == "deid-verify"
    with pytest.raises(InputError, match="never released"):
        release(day.site, name, (), HARMLESS)
    (found,) = day.ids("deid-verify")
    assert found == name


def test_nobody_who_withdrew_comes_back_by_a_release(day: Day) -> None:
    name = day.waiting
    kept = {p.name: p.read_bytes() for p in day.site.quarantine.glob(f"{name}*")}
    withdraw_patient(day.site, "HOSP-7700007")
    assert not list(day.site.quarantine.glob(f"{name}*"))
    for file, content in kept.items():  # as if the withdrawal had been cut short
        (day.site.quarantine / file).write_bytes(content)
    with pytest.raises(FileRefused) as caught:
        release(day.site, name, (), HARMLESS)
    assert caught.value.code == "withdrawn"


def test_withdrawal_finds_an_original_under_the_ledger_name_alone(day: Day) -> None:
    """After the pseudonym key changed, the pseudonym beside an original is an old one."""
    key = Pseudonyms.of(day.site).spend_key(Identity("HOSP-7700007"))
    name = day.waiting
    assert withdraw(day.site, "P" + "0" * 32, key).quarantined == (name,)
    assert not list(day.site.quarantine.glob(f"{name}*"))


def test_a_discarded_image_stays_out_until_it_is_forgotten(day: Day) -> None:
    name = day.waiting
    decided = said("quarantine", "discard", name, "--reason", "identifies", "--site", day.site.folder)
    assert decided["state"] == "discarded"
    assert not list(day.site.quarantine.glob(f"{name}*"))
    report = ingest(day.site, day.folder, None, workers=1)
    assert report.refused["discarded"] == 1
    assert not list(day.site.quarantine.glob(f"{name}*"))
    for words in (("show", name), ("discard", name, "--reason", "identifies")):
        result = typed("quarantine", *words, "--site", day.site.folder)
        assert result.exit_code == 2
        assert f"{name}--undo" in "".join(filter(lambda c: c not in " \n│", result.output)), result.output
    undo_discard(day.site, name)
    assert "--undo" not in typed("quarantine", "show", name, "--site", day.site.folder).output
    assert ingest(day.site, day.folder, None, workers=1).refused["review-burned-in"] == 1
    assert day.waiting == name
    assert [event for event, _ in day.events()] == ["quarantine.decided", "quarantine.undone"]
    with pytest.raises(InputError):
        undo_discard(day.site, name)


@pytest.mark.parametrize(
    "words",
    [
        ["--reason", "because"],
        ["--reason", "harmless", "--note", "Maria Schmidt"],
        ["--reason", "harmless", "--note", "x" * 25],
    ],
)
def test_a_reason_is_one_of_a_short_list(day: Day, words: list[str]) -> None:
    result = typed("quarantine", "release", day.waiting, *words, "--site", day.site.folder)
    assert result.exit_code == 2
    assert day.events() == []
    assert typed("quarantine", "discard", day.waiting, "--site", day.site.folder).exit_code == 2


@pytest.mark.parametrize("box", [(0, 5, 5, 5, 9), (0, -1, 0, 4, 4), (-1, 0, 0, 4, 4), (0, 0, 0, 4, 10**6)])
def test_a_box_that_is_none_is_refused_before_anything_happens(day: Day, box: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        release(day.site, day.waiting, [Box(*box)], HARMLESS)
    assert day.events() == []


def test_release_and_ingestion_wait_for_each_other(day: Day) -> None:
    with alone(day.site), pytest.raises(StorageError, match="another ingestion"):
        release(day.site, day.waiting, (), HARMLESS)


def test_the_outcome_of_a_refused_file_says_what_waits() -> None:
    assert Outcome("review-text").waits
    assert not Outcome("quality-blank").waits
    assert Policy().quarantine_days == 90


def test_a_released_head_mr_does_not_bring_its_face_along(tmp_path: Path) -> None:
    """One slice alone cannot be defaced: it waits again, and passes only when a person waives that, too."""
    pytest.importorskip("deepbet", reason="the optional extra `deface` is not installed")
    site = new_site(tmp_path / "site")
    toml = site.folder / "site.toml"
    toml.write_text(toml.read_text() + "\n[deid]\ndeface_head_mr = true\n")
    site = load_site(site.folder)
    slice_ = image(3, SOPClassUID=MR_CLASS, Modality="MR", BodyPartExamined="HEAD", BurnedInAnnotation="YES")
    slice_.ImageType = ["ORIGINAL", "PRIMARY"]
    slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    slice_.PixelSpacing = [1, 1]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(to_bytes(slice_))
    ingest(site, tmp_path / "in", None, workers=1)
    (refusal,) = Quarantine.of(site).refusals()
    assert refusal.code == "review-burned-in"
    held = release(site, refusal.id, (), HARMLESS)
    assert (held.state, held.code) == ("held", "review-deface")
    assert not list(site.dicom.rglob("*.dcm"))
    (again,) = Quarantine.of(site).refusals()
    assert again.decision.waive == ("review-burned-in",)
    assert again.since == refusal.since
    assert release(site, refusal.id, (), HARMLESS).state == "accepted"
