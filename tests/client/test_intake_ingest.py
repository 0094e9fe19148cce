"""Ingestion as a hospital sees it: idempotent, resumable, whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.deid.pseudonyms import Identity, Pseudonyms
from client.index import Index
from client.intake import cli_rows, intake_summary
from client.intake.folder import list_files
from client.intake.ingest import ingest
from client.intake.staging import notes
from client.intake.summary import as_markdown, table
from client.site import load_site
from client.withdraw import withdraw_patient
from common.errors import DataError, IntakeError, LabelError, StorageError
from tests.client.intake_files import chest, export, image, label_table, new_site, state_of, to_bytes

HEAD = "accession,label,source,version,split"


def rows_of(site):
    with Index(site.index) as index:
        return index.images()


def labels_for(path: Path, labels: list[object], splits: list[str] | None = None) -> Path:
    splits = splits or [""] * len(labels)
    lines = [
        f"ACC{n:06d},{label},reader,1,{s}" for n, (label, s) in enumerate(zip(labels, splits, strict=True))
    ]
    return label_table(path, lines, HEAD)


def test_a_folder_is_taken_in_with_its_labels(tmp_path):
    site = new_site(tmp_path / "site")
    seen: list[tuple[int, int]] = []
    labels = labels_for(tmp_path / "labels.csv", [0, 1, 0, 1], ["train", "train", "test", "validation"])
    report = ingest(
        site, export(tmp_path / "in"), labels, workers=2, progress=lambda done, of: seen.append((done, of))
    )
    assert (report.received, report.accepted, report.refused, report.patients) == (4, 4, {}, 4)
    assert (report.labels_without_image, report.images_without_label) == (0, 0)
    assert seen[-1] == (4, 4)
    names = Pseudonyms.of(site)
    expected = {names.patient(Identity(f"HOSP-77{n:05d}")): n % 2 for n in range(4)}
    assert {row.patient: row.label for row in rows_of(site)} == expected
    assert all((site.dicom / row.file).is_file() for row in rows_of(site))
    assert not (site.data / "staging").exists()


def test_again_changes_nothing_and_costs_no_work(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in")
    ingest(site, folder, None, workers=1)
    before = {k: v for k, v in state_of(site).items() if not k.endswith("sqlite")}
    rows = rows_of(site)
    report = ingest(site, folder, None, workers=1)
    assert (report.accepted, report.unchanged) == (0, 4)
    assert rows_of(site) == rows
    assert {k: v for k, v in state_of(site).items() if not k.endswith("sqlite")} == before
    assert intake_summary(site).received == 4


def test_the_number_of_workers_does_not_change_what_is_kept(tmp_path):
    folder = export(tmp_path / "in", 6)
    (folder / "copy.dcm").write_bytes(to_bytes(image(2, SOPInstanceUID="1.2.3.4")))
    first, second = new_site(tmp_path / "a"), new_site(tmp_path / "b")
    for key in ("pseudonym.key", "spend.key"):
        (second.folder / "secrets" / key).write_bytes((first.folder / "secrets" / key).read_bytes())
    second = load_site(second.folder)
    reports = [ingest(first, folder, None, workers=1), ingest(second, folder, None, workers=3)]
    assert reports[0].refused == reports[1].refused == {"quality-duplicate": 1}
    assert rows_of(first) == rows_of(second)


def test_a_killed_ingestion_goes_on_where_it_was(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 90)
    code = (
        "import sys; from pathlib import Path; from client.site import load_site;"
        "from client.intake.ingest import ingest;"
        "ingest(load_site(Path(sys.argv[1])), Path(sys.argv[2]), None, workers=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(site.folder), str(folder)], cwd=Path.cwd())
    staging = site.data / "staging"
    deadline = time.monotonic() + 120
    while len(notes(staging)) < 3 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.005)
    child.kill()
    child.wait()
    done = {(staging / f"{key}.dcm").stat().st_ino for key in notes(staging)}
    report = ingest(site, folder, None, workers=1)
    assert report.accepted + report.unchanged == 90
    assert len(rows_of(site)) == 90
    assert len(done) >= 3
    assert done <= {path.stat().st_ino for path in site.dicom.rglob("*.dcm")}  # kept, not made again


def wrong_labels(tmp_path: Path, case: str) -> Path:
    path = tmp_path / "labels.csv"
    tables: dict[str, list[str]] = {
        "no image": ["ACC000000,1,r,1,", "ACC000001,0,r,1,", "ACC999999,1,r,1,"],
        "one class": [f"ACC{n:06d},1,r,1,train" for n in range(4)],
        "two splits": ["ACC000000,1,r,1,train", "ACC000001,0,r,1,", "ACC000004,1,r,1,test"],
        "duplicate": ["ACC000000,1,r,1,", "ACC000001,0,r,1,", "ACC000000,1,r,1,"],
    }
    return label_table(path, tables[case], HEAD)


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        ("no image", LabelError, "labels.csv line 4"),
        ("one class", DataError, "labels.csv"),
        ("two splits", DataError, "labels.csv"),
        ("duplicate", LabelError, "labels.csv line 4"),
    ],
)
def test_wrong_labels_leave_index_and_store_as_they_were(tmp_path, case, kind, said):
    site = new_site(tmp_path / "site")
    folder = export(tmp_path / "in")
    (folder / "second.dcm").write_bytes(to_bytes(image(4, patient="HOSP-7700000")))
    ingest(site, export(tmp_path / "earlier", 2, 90), None, workers=1)
    before = state_of(site)
    with pytest.raises(kind) as caught:
        ingest(site, folder, wrong_labels(tmp_path, case), workers=1)
    assert said in str(caught.value)
    assert caught.value.exit_status == 2
    assert state_of(site) == before
    good = ingest(site, folder, labels_for(tmp_path / "labels.csv", [0, 1, 0, 1]), workers=1)
    assert (good.accepted, good.images_without_label) == (5, 1)


def test_labels_of_one_class_may_be_for_testing_only(tmp_path):
    labels = labels_for(tmp_path / "labels.csv", [1] * 4, ["test"] * 4)
    assert ingest(new_site(tmp_path / "site"), export(tmp_path / "in"), labels, workers=1).accepted == 4


def test_a_label_whose_image_was_refused_is_counted_and_no_error(tmp_path):
    folder = export(tmp_path / "in")
    (folder / "Abendroth_3.dcm").write_bytes(to_bytes(image(3, BurnedInAnnotation="YES")))
    labels = labels_for(tmp_path / "labels.csv", [0, 1, 0, 1])
    report = ingest(new_site(tmp_path / "site"), folder, labels, workers=1)
    assert report.refused == {"review-burned-in": 1}
    assert report.labels_without_image == 1


def test_labels_can_come_later_and_be_corrected_under_a_new_version_only(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in")
    ingest(site, folder, None, workers=1)
    labels = labels_for(tmp_path / "labels.csv", [0, 1, 0, 1])
    assert ingest(site, folder, labels, workers=1).unchanged == 4
    assert sorted(row.label for row in rows_of(site)) == [0, 0, 1, 1]
    with pytest.raises(LabelError, match="same source and version"):
        ingest(site, folder, labels_for(tmp_path / "labels.csv", [1, 1, 0, 1]), workers=1)
    newer = label_table(tmp_path / "l2.csv", ["ACC000000,1,reader,2,"], HEAD)
    ingest(site, folder, newer, workers=1)
    assert sorted(row.label for row in rows_of(site)) == [0, 1, 1, 1]


def test_a_cumulative_table_may_name_images_of_earlier_ingestions(tmp_path):
    site = new_site(tmp_path / "site")
    ingest(site, export(tmp_path / "first", 2), labels_for(tmp_path / "labels.csv", [0, 1]), workers=1)
    labels = labels_for(tmp_path / "labels.csv", [0, 1, 1])
    assert ingest(site, export(tmp_path / "second", 1, 2), labels, workers=1).accepted == 1


@pytest.mark.parametrize("kind", ["study", "instance", "path"])
def test_labels_join_by_every_kind_of_key(tmp_path, kind):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 2)
    uids = [f"1.2.276.0.7230010.3.{n + 1}" for n in range(2)]
    keys = {
        "study": uids,
        "instance": [u + ".1.1" for u in uids],
        "path": [f"Abendroth_{n}.dcm" for n in range(2)],
    }
    lines = [f"{key},{n},r,1" for n, key in enumerate(keys[kind])]
    labels = label_table(tmp_path / "labels.csv", lines, f"{kind},label,source,version")
    assert ingest(site, folder, labels, workers=1).images_without_label == 0
    assert sorted(row.label for row in rows_of(site)) == [0, 1]


def test_pictures_take_the_same_way(tmp_path):
    site, folder = new_site(tmp_path / "site"), tmp_path / "in"
    folder.mkdir()
    for n in range(3):
        Image.fromarray((chest(n) >> 4).astype(np.uint8)).save(folder / f"geheim{n}.png")
    Image.fromarray(np.stack([(chest(5) >> 4).astype(np.uint8)] * 3, -1)).save(folder / "rgb.jpg", quality=95)
    (folder / "broken.png").write_bytes((folder / "geheim0.png").read_bytes()[:500])
    head = "path,label,patient_id,age,sex,view,split"
    lines = [
        "geheim0.png,0,Meier,1-5,F,AP,train",
        "geheim1.png,1,Meier,93,f,PA,train",
        "geheim2.png,0,,,,,",
        "rgb.jpg,1,Huber,40,M,pa,",
        "broken.png,1,Kurz,40,M,pa,",
    ]
    report = ingest(site, folder, label_table(folder / "labels.csv", lines, head), workers=1)
    assert (report.accepted, report.refused, report.patients) == (4, {"not-an-image": 1}, 3)
    rows = {(row.age, row.sex, row.projection, row.label) for row in rows_of(site)}
    assert rows == {(3, "F", "AP", 0), (90, "F", "PA", 1), (None, "", "", 0), (40, "M", "PA", 1)}
    text = site.index.read_bytes() + b"".join(p.read_bytes() for p in site.dicom.rglob("*.dcm"))
    assert not any(word in text for word in (b"Meier", b"Huber", b"geheim"))
    assert ingest(site, folder, folder / "labels.csv", workers=1).unchanged == 4


def test_the_reason_lies_beside_a_refused_original_under_a_name_that_tells_nothing(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 1)
    (folder / "Abendroth_Wilhelmina.dcm").write_bytes(b"<html>not dicom</html>")
    ingest(site, folder, None, workers=1)
    (reason,) = site.quarantine.glob("*.json")
    assert json.loads(reason.read_text())["code"] == "not-dicom"
    assert b"html" not in reason.with_suffix(".sealed").read_bytes()
    assert reason.with_suffix(".sealed").stat().st_mode & 0o077 == 0
    (row,) = cli_rows(site)
    assert (row.code, row.count) == ("not-dicom", 1)


@pytest.mark.parametrize("case", ["missing", "empty", "file"])
def test_a_folder_that_cannot_be_taken_in_is_named(tmp_path, case):
    folder = tmp_path / "geheim"
    if case == "empty":
        folder.mkdir()
    if case == "file":
        folder.write_text("x")
    with pytest.raises(IntakeError) as caught:
        ingest(new_site(tmp_path / "site"), folder, None)
    assert "geheim" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_an_unreadable_folder_is_named(tmp_path):
    folder = export(tmp_path / "in", 1)
    folder.chmod(0)
    try:
        with pytest.raises(IntakeError, match="cannot be read"):
            ingest(new_site(tmp_path / "site"), folder, None)
    finally:
        folder.chmod(0o700)


def test_two_ingestions_at_once_are_refused(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 1)
    with (site.data / ".ingest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another ingestion"):
            ingest(site, folder, None, workers=1)


def test_a_store_that_cannot_be_written_changes_nothing(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 3)
    ingest(site, export(tmp_path / "earlier", 1, 50), None, workers=1)
    before = state_of(site)
    names = Pseudonyms.of(site)
    blocked = site.dicom / names.patient(Identity("HOSP-7700001"))
    blocked.write_text("a file where a patient's folder should be")
    with pytest.raises(StorageError):
        ingest(site, folder, None, workers=1)
    blocked.unlink()
    assert state_of(site) == before
    assert ingest(site, folder, None, workers=1).accepted == 3


def test_a_failing_disk_is_one_error_and_not_a_heap_of_refused_files(tmp_path):
    """A folder stands where a worker wants to write its file."""
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 2)
    names = Pseudonyms.of(site)
    key = list_files(folder, None, None)[0].key(names)
    (site.data / "staging" / f"{key}.dcm").mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        ingest(site, folder, None, workers=1)
    assert caught.value.code == "storage"
    assert not site.quarantine.exists()
    assert ingest(site, folder, None, workers=1).accepted == 2


def test_a_patient_who_withdrew_stays_out(tmp_path):
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 2)
    ingest(site, folder, None, workers=1)
    withdraw_patient(site, "HOSP-7700001")
    report = ingest(site, folder, None, workers=1)
    assert report.refused == {"withdrawn": 1}
    assert len(rows_of(site)) == 1


def test_the_table_accounts_for_every_file(tmp_path):
    folder = export(tmp_path / "in", 2)
    (folder / "x.dcm").write_bytes(b"nothing")
    report = ingest(new_site(tmp_path / "site"), folder, None, workers=1)
    lines = table(report)
    assert lines[-1] == ["received", "2", "1", "3"]
    assert as_markdown(lines).count("\n") == len(lines) + 1


@pytest.mark.parametrize("name", ["notes.txt", "old-labels.CSV", "DICOMDIR"])
def test_a_file_that_cannot_be_an_image_excuses_no_label(tmp_path, name):
    """An old table lies in the folder, or the disc's directory: the label of no image is still named."""
    folder = export(tmp_path / "in", 2)
    data = b"accession,label\n"
    if name == "DICOMDIR":
        data = to_bytes(image(9, SOPClassUID="1.2.840.10008.1.3.10", AccessionNumber=""))
    (folder / name).write_bytes(data)
    labels = labels_for(tmp_path / "labels.csv", [0, 1, 1])
    with pytest.raises(LabelError, match="line 4"):
        ingest(new_site(tmp_path / "site"), folder, labels, workers=1)


def test_a_broken_file_may_be_the_image_of_a_label(tmp_path):
    folder = export(tmp_path / "in", 2)
    (folder / "third.dcm").write_bytes(b"cut")
    labels = labels_for(tmp_path / "labels.csv", [0, 1, 1])
    report = ingest(new_site(tmp_path / "site"), folder, labels, workers=1)
    assert (report.accepted, report.labels_without_image) == (2, 1)


@pytest.mark.parametrize("where", [".", "..", "data", "data/dicom", "state"])
def test_a_site_does_not_take_in_itself(tmp_path, where):
    """Its keys would end in quarantine, beside the data."""
    site = new_site(tmp_path / "site")
    ingest(site, export(tmp_path / "in", 2), None, workers=1)
    before = state_of(site)
    with pytest.raises(IntakeError, match="own folders"):
        ingest(site, site.folder / where, None, workers=1)
    assert state_of(site) == before
    assert not site.quarantine.exists()


def test_a_drop_folder_inside_the_sites_folder_is_taken_in(tmp_path):
    site = new_site(tmp_path / "site")
    assert ingest(site, export(site.folder / "incoming", 2), None, workers=1).accepted == 2
