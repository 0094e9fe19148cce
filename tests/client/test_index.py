"""The index: one door, whole changes, nothing of a withdrawn patient left."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from client.index import FileOutcome, ImageRow, Index, Percentiles, VolumeRow
from common.errors import DataError, FileRefused, StorageError, WrongOrder

ROW = ImageRow(
    sop_uid="2.25.1",
    patient="P1",
    spend_key="S1",
    study_uid="2.25.10",
    series_uid="2.25.100",
    file="P1/2.25.1.dcm",
    modality="CR",
    manufacturer="Aster Imaging",
    model="DR-1",
    scanner="S0ff",
    projection="PA",
    age=61,
    sex="F",
    rows=256,
    cols=200,
    label=1,
    label_source="reader",
    label_version="2",
    split="train",
    quality={"noise": 0.01},
    pixel_digest="d1",
)
VOLUME = VolumeRow(
    series_uid="2.25.100",
    part=0,
    patient="P1",
    modality="CT",
    file="2.25.100-0.npy",
    shape=(2, 4, 4),
    spacing_mm=(2.5, 0.5, 0.5),
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    origin_mm=(0.0, 0.0, 0.0),
    regular=True,
    sop_uids=("2.25.1",),
)


@pytest.fixture
def index(tmp_path: Path):
    with Index(tmp_path / "index.sqlite") as opened:
        yield opened


def test_an_image_comes_back_as_it_went_in(index: Index) -> None:
    assert index.add_image(ROW)
    assert index.images() == [ROW] == [index.image("2.25.1")]
    assert index.has_pixels("d1")
    assert not index.has_pixels("d2")


@pytest.mark.parametrize("label", [None, 0, 1, 0.5, (0.0, 1.0, 1.0)])
def test_every_kind_of_label_keeps_value_and_type(index: Index, label: object) -> None:
    index.add_image(replace(ROW, label=label))
    found = index.images()[0].label
    assert found == label
    assert type(found) is type(label)


def test_the_same_image_twice_changes_nothing(index: Index) -> None:
    assert index.add_image(ROW)
    assert not index.add_image(ROW)
    assert len(index.images()) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pixel_digest": "other"}, "uid-conflict"),
        ({"sop_uid": "2.25.2", "file": "b", "patient": "P2"}, "hierarchy-conflict"),
        ({"sop_uid": "2.25.2", "file": "b", "study_uid": "2.25.11"}, "hierarchy-conflict"),
        ({"sop_uid": "2.25.2", "file": "b", "modality": "CT"}, "hierarchy-conflict"),
        ({"sop_uid": "2.25.2", "file": "b", "spend_key": "S9"}, "hierarchy-conflict"),
    ],
)
def test_nothing_moves_to_another_owner(index: Index, change: dict, code: str) -> None:
    index.add_image(ROW)
    with pytest.raises(FileRefused) as refused:
        index.add_image(replace(ROW, **change))
    assert refused.value.code == code
    assert index.images() == [ROW]
    assert [p.pseudonym for p in index.patients()] == ["P1"]


def test_a_transaction_that_fails_leaves_nothing_of_itself(index: Index) -> None:
    index.add_image(ROW)
    with pytest.raises(RuntimeError):
        _half_an_ingest(index)
    assert index.images() == [ROW]
    assert index.outcomes() == {}
    index.record_file("k", FileOutcome("accepted"))
    assert index.outcomes() == {"accepted": 1}


def _half_an_ingest(index: Index) -> None:
    with index.transaction():
        index.add_image(
            replace(ROW, sop_uid="2.25.2", file="b", patient="P2", study_uid="s2", series_uid="r2")
        )
        index.record_file("k", FileOutcome("accepted"))
        raise RuntimeError


def test_a_bad_row_is_refused_by_the_tables_themselves(index: Index) -> None:
    with pytest.raises(StorageError):
        index.add_image(replace(ROW, split="maybe"))
    assert index.patients() == []


def test_labels_can_be_renewed_and_only_for_images_that_are_there(index: Index) -> None:
    index.add_image(ROW)
    index.set_label("2.25.1", 0, source="reader", version="3", split="test")
    assert (index.images()[0].label, index.images()[0].split) == (0, "test")
    with pytest.raises(DataError):
        index.set_label("2.25.99", 0, source="reader", version="3")


def test_withdrawal_removes_every_trace_but_the_tombstone_and_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Index(path) as index:
        index.add_image(replace(ROW, label_source="canary-of-a-patient"))
        index.replace_volumes("2.25.100", [VOLUME], "digest")
        index.record_file("key", FileOutcome("accepted", sop_uid="2.25.1"))
        index.record_run("run-b", ["P1"])
        index.record_run("run-a", ["P1"])
        index.record_run("run-a", ["P1"])
        found = index.begin_withdrawal("P1")
        assert index.images() == []
        assert index.patients() == []
        assert index.begin_withdrawal("P1") == found
        index.finish_withdrawal("P1")
        assert (found.sop_uids, found.files, found.volumes) == (
            ("2.25.1",),
            ("P1/2.25.1.dcm",),
            ("2.25.100-0.npy",),
        )
        assert sorted(found.runs) == ["run-a", "run-b"] == sorted(index.runs_of("P1"))
        assert index.volumes() == []
        assert index.assembled() == {}
        assert index.outcomes() == {"withdrawn": 1}
        index.check_integrity()
        for refused in (ROW, replace(ROW, patient="P1-after-rotation")):
            with pytest.raises(FileRefused) as error:
                index.add_image(refused)
            assert error.value.code == "withdrawn"
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"canary-of-a-patient" not in everything


def test_withdrawing_an_unknown_patient_keeps_them_out(index: Index) -> None:
    assert index.withdraw("P1", "S1") == []
    with pytest.raises(FileRefused):
        index.add_image(replace(ROW, patient="P2"))
    assert index.patients(withdrawn=True)[0].withdrawn_at is not None


def test_a_withdrawal_cannot_end_before_it_began(index: Index) -> None:
    index.add_image(ROW)
    with pytest.raises(WrongOrder):
        index.finish_withdrawal("P1")
    assert index.images() == [ROW]


def test_runs_are_listed_oldest_first_and_only_for_their_patients(index: Index) -> None:
    index.add_image(ROW)
    index.record_run("r1", ["P1"])
    assert index.runs_of("P1") == ["r1"]
    assert index.runs_of("P2") == []


def test_intake_and_percentiles_are_kept(index: Index) -> None:
    index.record_file("k1", FileOutcome("accepted", sop_uid="2.25.1"))
    index.record_file("k2", FileOutcome("burned-in", quarantine_id="q1"))
    assert index.file_outcome("k2") == FileOutcome("burned-in", "q1")
    assert index.file_outcome("k3") is None
    index.record_ingest({"received": 2})
    assert index.ingests() == [{"received": 2}]
    index.set_percentiles("CR", "s", Percentiles(200, {"noise": (0.0, 0.1)}))
    assert index.percentiles("CR", "s") == Percentiles(200, {"noise": (0.0, 0.1)})
    assert index.percentiles("CT", "s") is None


def test_replacing_volumes_names_the_files_nobody_needs_any_more(index: Index) -> None:
    index.add_image(ROW)
    index.replace_volumes("2.25.100", [VOLUME, replace(VOLUME, part=1, file="old.npy")], "a")
    assert index.replace_volumes("2.25.100", [VOLUME], "b") == ["old.npy"]
    assert index.volumes() == [VOLUME]
    assert index.assembled() == {"2.25.100": "b"}


def test_reopening_finds_everything(tmp_path: Path) -> None:
    with Index(tmp_path / "i.sqlite") as index:
        index.add_image(ROW)
    with Index(tmp_path / "i.sqlite") as index:
        assert index.images() == [ROW]


def test_a_file_that_is_no_index_is_named_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(StorageError) as error:
        Index(path)
    assert error.value.code == "storage-corrupt"


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with Index(path) as index:
        for number in range(200):
            index.record_file(f"key-{number:04d}", FileOutcome("accepted"))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 4096] = b"\xa5" * 4096
    path.write_bytes(raw)
    with pytest.raises(StorageError) as error, Index(path) as index:
        index.check_integrity()
    assert error.value.code == "storage-corrupt"


def test_somebody_elses_database_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(StorageError) as error:
        Index(path)
    assert error.value.code == "storage-version"


def test_an_index_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StorageError, match="99"):
        Index(path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        Index(tmp_path / "file" / "index.sqlite")


_FILL = """
import resource, sys
from pathlib import Path
from client.index import FileOutcome, Index
from common.errors import StorageError
index = Index(Path(sys.argv[1]))
index.record_file("before", FileOutcome("accepted"))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    with index.transaction():
        for number in range(20_000):
            index.record_file(f"during-{number}", FileOutcome("x" * 100))
except StorageError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    print(error.code, index.outcomes())
"""


def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow, as a full disk or quota does."""
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path / "index.sqlite")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    code, _, outcomes = done.stdout.strip().partition(" ")
    assert code in {"storage-full", "storage-io"}
    assert outcomes == "{'accepted': 1}"


def as_version_2(path: Path) -> None:
    """Make an index what the release of schema version 2 wrote."""
    with sqlite3.connect(path) as raw:
        for table in ("labels", "labels_waiting", "former_runs", "former_parts"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("ALTER TABLE images DROP COLUMN perceptual_hash")
        for column in ("modality", "scanner", "quality"):
            raw.execute(f"ALTER TABLE files DROP COLUMN {column}")
        raw.execute("PRAGMA user_version = 2")
    raw.close()


def test_an_index_of_version_2_keeps_its_labels_and_files(tmp_path: Path) -> None:
    """What was there stays; what is new begins empty; a second opening changes nothing."""
    path = tmp_path / "index.sqlite"
    with Index(path) as index:
        index.add_image(ROW)
        index.add_image(replace(ROW, sop_uid="2.25.2", file="P1/2.25.2.dcm", label=None, pixel_digest="d2"))
        index.record_file("k", FileOutcome("burned-in", "q"))
    as_version_2(path)
    for _ in range(2):
        with Index(path) as index:
            assert [row.label for row in index.images()] == [1, None]
            assert index.image("2.25.1") == ROW
            (label,) = index.labels_of("2.25.1")
            assert (label.label, label.source, label.version, label.split) == (1, "reader", "2", "train")
            assert label.at == ""
            assert index.labels_of("2.25.2") == []
            assert index.file_outcome("k") == FileOutcome("burned-in", "q")
            assert index.waiting() == []
            index.check_integrity()


def test_a_new_index_and_one_brought_up_have_the_same_columns(tmp_path: Path) -> None:
    columns = []
    for name in ("new", "old"):
        path = tmp_path / f"{name}.sqlite"
        Index(path).close()
        if name == "old":
            as_version_2(path)
            Index(path).close()
        with sqlite3.connect(path) as raw:
            tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            columns.append({table: raw.execute(f"PRAGMA table_info({table})").fetchall() for table in tables})
        raw.close()
    assert columns[0] == columns[1]
