"""A patient withdraws by the hospital's own number: nothing of theirs stays, whatever file it came in."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from client.cli import app
from client.deid.pseudonyms import Identity, Pseudonyms
from client.index import Index
from client.intake import cli_rows, intake_summary
from client.intake.folder import list_files
from client.intake.ingest import ingest
from client.intake.outcome import ACCEPTED, Outcome
from client.intake.quarantine import Quarantine
from client.intake.seal import KEY_FILE
from client.intake.staging import NOTES, Staging, notes
from client.site import Site
from client.withdraw import withdraw_patient
from common.errors import StorageError
from tests.client.intake_files import chest, export, image, label_table, new_site, set_pixels, to_bytes

WHO, OTHER = "HOSP-7700000", "HOSP-7700001"
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.11"


@dataclass(frozen=True)
class Day:
    """A hospital with an export in which two patients have good files and refused ones."""

    site: Site
    folder: Path

    @property
    def pseudonym(self) -> str:
        return Pseudonyms.of(self.site).patient(Identity(WHO))

    def originals(self, patient: str = WHO) -> list[str]:
        """Identifiers of the originals in quarantine that hold a patient's number."""
        quarantine, private = Quarantine.of(self.site), self.site.data / "staging"
        found = []
        for path in self.site.quarantine.glob("*.sealed"):
            with quarantine.original(path.stem, private) as opened:
                if patient.encode() in opened.path.read_bytes():
                    found.append(path.stem)
        return found

    def said_of(self, patient: str = WHO) -> list[dict[str, str]]:
        """Reasons that name the patient's pseudonym."""
        name = Pseudonyms.of(self.site).patient(Identity(patient))
        reasons = [json.loads(path.read_text()) for path in self.site.quarantine.glob("*.json")]
        return [reason for reason in reasons if reason["patient"] == name]


def write(folder: Path, name: str, **attributes: object) -> None:
    """One more file of the first patient unless told otherwise."""
    (folder / name).write_bytes(to_bytes(image(0, **{"patient": WHO, **attributes})))


@pytest.fixture
def day(tmp_path: Path) -> Day:
    folder = export(tmp_path / "in", 3)
    for patient in (WHO, OTHER):
        uid = "1.2.3.1" if patient == WHO else "1.2.3.2"
        study = {"StudyInstanceUID": f"{uid}.9", "SeriesInstanceUID": f"{uid}.9.1"}
        report = {"SOPClassUID": REPORT_CLASS, "Modality": "SR", "SOPInstanceUID": f"{uid}.4"}
        write(folder, f"{uid}-report.dcm", patient=patient, **report, **study)
        flat = image(0, patient=patient, SOPInstanceUID=f"{uid}.5", **study)
        set_pixels(flat, chest(0) * 0 + 7)
        (folder / f"{uid}-blank.dcm").write_bytes(to_bytes(flat))
    write(folder, "same-pixels.dcm", SOPInstanceUID="1.2.3.6")
    shutil.copy(folder / "same-pixels.dcm", folder / "same-file.dcm")
    shutil.copy(folder / "Abendroth_0.dcm", folder / "same-good-file.dcm")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00" + b"\xff" * 64)
    return Day(new_site(tmp_path / "site"), folder)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_refused_original_says_whose_it_is_by_pseudonym_only(day: Day) -> None:
    report = ingest(day.site, day.folder, None, workers=1)
    assert report.accepted == 3
    reasons = [json.loads(path.read_text()) for path in day.site.quarantine.glob("*.json")]
    assert len(day.originals()) == len(day.said_of()) == 3  # a good file's copy is nobody's refusal
    assert len(day.originals(OTHER)) == len(day.said_of(OTHER)) == 2
    assert [reason["patient"] for reason in reasons].count("") == 1  # the broken file names nobody
    assert WHO not in json.dumps(reasons)


def test_withdrawal_takes_the_originals_of_the_patient_and_of_nobody_else(day: Day) -> None:
    ingest(day.site, day.folder, None, workers=1)
    before = intake_summary(day.site)
    gone = withdraw_patient(day.site, WHO)
    assert len(gone.quarantined) == 3
    assert len(gone.files) == 1
    assert day.originals() == day.said_of() == []
    assert len(day.originals(OTHER)) == len(day.said_of(OTHER)) == 2
    traces = [p for p in day.site.data.rglob("*") if p.is_file() and WHO.encode() in p.read_bytes()]
    assert traces == []
    after = intake_summary(day.site)
    assert after.received == before.received
    assert sum(before.refused.values()) - sum(after.refused.values()) == 3
    assert withdraw_patient(day.site, WHO).quarantined == ()


def test_a_withdrawn_patients_files_are_counted_and_not_kept(day: Day) -> None:
    """Good, refused, copied: whatever names the patient is `withdrawn`, and the second time as well."""
    withdraw_patient(day.site, WHO)
    for _ in range(2):
        report = ingest(day.site, day.folder, None, workers=1)
        assert report.refused["withdrawn"] == 6
        assert report.accepted + report.unchanged == 2
        assert day.originals() == day.said_of() == []
        assert len(day.originals(OTHER)) == 2
    rows = {row.code: row for row in cli_rows(day.site)}
    assert rows["withdrawn"].count == 4  # of six files two are copies
    assert WHO not in json.dumps([row.rule for row in rows.values()])
    with Index(day.site.index) as index:
        assert index.outcomes()["withdrawn"] == 4


def test_files_sent_again_after_withdrawal_are_not_kept(day: Day) -> None:
    ingest(day.site, day.folder, None, workers=1)
    withdraw_patient(day.site, WHO)
    report = ingest(day.site, day.folder, None, workers=1)
    assert report.refused["withdrawn"] == 6
    assert day.originals() == day.said_of() == []
    with Index(day.site.index) as index:
        assert day.pseudonym not in {row.patient for row in index.images()}


def test_a_tombstone_of_another_key_holds_by_the_ledger_name(day: Day) -> None:
    """After the pseudonym key was renewed the patient is still known as withdrawn."""
    with Index(day.site.index) as index:
        index.withdraw("P-of-the-old-key", Pseudonyms.of(day.site).spend_key(Identity(WHO)))
    assert ingest(day.site, day.folder, None, workers=1).refused["withdrawn"] == 6
    assert day.originals() == []


def test_a_picture_without_dicom_leaves_too(tmp_path: Path) -> None:
    site, folder = new_site(tmp_path / "site"), tmp_path / "in"
    folder.mkdir()
    names = [f"{n}.png" for n in range(3)]
    for number, name in enumerate(names):
        pixels = (chest(number) // 16).astype("u1") if number else chest(0).astype("u1") * 0
        Image.fromarray(pixels).save(folder / name)
    lines = [f"{name},{n % 2},reader,1,who-{n}" for n, name in enumerate(names)]
    labels = label_table(tmp_path / "labels.csv", lines, "path,label,source,version,patient_id")
    report = ingest(site, folder, labels, workers=1, allow_unlabelled=True)
    assert sum(report.refused.values()) == 1
    assert len(list(site.quarantine.glob("*.sealed"))) == 1
    assert len(withdraw_patient(site, "who-0").quarantined) == 1
    assert [path.name for path in site.quarantine.iterdir()] == [KEY_FILE]


def test_what_a_killed_ingestion_had_finished_leaves_too(day: Day) -> None:
    staging = Staging(day.site.data / "staging")
    names = Pseudonyms.of(day.site)
    for number, patient in enumerate((WHO, OTHER)):
        staging.keep(f"key{number}", Outcome(ACCEPTED, patient=names.patient(Identity(patient))))
        staging.image(f"key{number}").write_bytes(b"pixels")
    with (staging.folder / NOTES).open("a") as file:
        file.write('key2 {"code": "acc')  # the process was killed while it wrote
    withdraw_patient(day.site, WHO)
    assert {path.name for path in staging.folder.iterdir()} == {"key1.dcm", NOTES}
    assert set(notes(staging.folder)) == {"key1"}
    assert names.patient(Identity(WHO)) not in (staging.folder / NOTES).read_text()


def test_the_command_takes_the_hospitals_number_and_says_what_left(day: Day) -> None:
    ingest(day.site, day.folder, None, workers=1)
    with Index(day.site.index) as index:
        index.record_run("run-7", [day.pseudonym])
    result = run("withdraw", "--patient-id", WHO, "--site", day.site.folder)
    assert result.exit_code == 0, result.output
    assert "1 image, 0 volumes and 3 originals" in result.output
    assert "run-7" in result.output
    assert WHO not in result.output
    assert day.originals() == []


def test_the_same_as_json(day: Day) -> None:
    ingest(day.site, day.folder, None, workers=1)
    with Index(day.site.index) as index:
        index.record_run("run-7", [day.pseudonym])
    result = run("withdraw", "--patient-id", WHO, "--site", day.site.folder, "--json")
    found = json.loads(result.stdout)
    assert found["runs"] == ["run-7"]
    assert [len(found[key]) for key in ("files", "sop_uids", "volumes", "quarantined")] == [1, 1, 0, 3]


def test_number_and_issuer_together_name_a_patient(tmp_path: Path) -> None:
    """The same number from another office is another patient, and the command says what to check."""
    site, folder = new_site(tmp_path / "site"), tmp_path / "in"
    folder.mkdir()
    for number, office in enumerate(("St Anna", "St Luke")):
        ds = image(number, patient="12", IssuerOfPatientID=office)
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    ingest(site, folder, None, workers=1)
    bare = run("withdraw", "--patient-id", "12", "--site", site.folder)
    assert "--issuer" in bare.output
    found = run("withdraw", "--patient-id", "12", "--issuer", "St Anna", "--site", site.folder, "--json")
    assert len(json.loads(found.stdout)["files"]) == 1
    with Index(site.index) as index:
        (left,) = index.images()
    assert left.patient == Pseudonyms.of(site).patient(Identity("12", "St Luke"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["P1", "--patient-id", "7"],
        ["--patient-id", "7", "--patient"],
        ["P1", "--issuer", "St Anna"],
        ["--patient-id", " "],
    ],
)
def test_the_command_asks_for_exactly_one_name(day: Day, arguments: list[str]) -> None:
    assert run("withdraw", *arguments, "--site", day.site.folder).exit_code == 2
    with Index(day.site.index) as index:
        assert index.patients(withdrawn=True) == []


def test_an_original_that_cannot_be_removed_is_our_error_and_the_withdrawal_can_be_repeated(day: Day) -> None:
    ingest(day.site, day.folder, None, workers=1)
    first = day.site.quarantine / f"{day.originals()[0]}.sealed"
    kept = first.read_bytes()
    first.unlink()
    first.mkdir()
    with pytest.raises(StorageError):
        withdraw_patient(day.site, WHO)
    first.rmdir()
    first.write_bytes(kept)
    assert withdraw_patient(day.site, WHO).quarantined
    assert day.originals() == day.said_of() == []


def test_every_file_of_the_day_is_what_the_tests_above_take_it_for(day: Day) -> None:
    assert len(list_files(day.folder, None, None)) == 11
    report = ingest(day.site, day.folder, None, workers=1)
    assert report.refused == {
        "sop-class-report": 2,
        "quality-blank": 2,
        "quality-duplicate": 2,
        "sop-class-missing": 1,
    }
