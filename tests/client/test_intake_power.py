"""A kill -9 anywhere, a disk that is full: what a hospital holds afterwards is whole, or what it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from pydicom import dcmread

from client.deid.pseudonyms import Identity, Pseudonyms
from client.files import whole_file
from client.index import Index
from client.intake.durable import TOGETHER, Behind, on_disk
from client.intake.ingest import ingest
from client.intake.quarantine import Quarantine
from client.intake.receipt import last_receipt
from client.intake.staging import NOTES, Staging, notes
from client.site import Site, load_site
from client.withdraw import withdraw, withdraw_patient
from common.audit import read, verify
from common.errors import StorageError
from tests.client.intake_files import chest, export, image, new_site, set_pixels, to_bytes
from tests.limited import limited

BIN = Path(sys.executable).parent
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
NAMES = (b"Abendroth", b"Wilhelmina", b"HOSP-77")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An archive with all that intake does: good images, refused ones, a copy, a series that becomes a volume."""
    folder = export(tmp_path_factory.mktemp("archive") / "in", 16)
    shutil.copy(folder / "Abendroth_3.dcm", folder / "again.dcm")
    for number in (40, 41):
        burned = image(number, BurnedInAnnotation="YES")
        (folder / f"burned{number}.dcm").write_bytes(to_bytes(burned))
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0" + b"\xff" * 64)
    for part in range(4):
        slice_ = image(
            50,
            SOPClassUID=CT_CLASS,
            Modality="CT",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            SOPInstanceUID=f"1.2.3.50.{part}",
        )
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 2 * part], [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.RescaleSlope, slice_.RescaleIntercept = [1, 1], 1, -1024
        set_pixels(slice_, chest(part))
        (folder / f"slice{part}.dcm").write_bytes(to_bytes(slice_))
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, folder: Path) -> Site:
    """The site that nobody disturbed; the others get its keys."""
    site = new_site(tmp_path_factory.mktemp("undisturbed") / "site")
    ingest(site, folder, None, workers=2)
    return site


def twin(site: Site, folder: Path) -> Site:
    """An empty site with the same keys."""
    made = new_site(folder)
    for key in ("pseudonym.key", "spend.key"):
        shutil.copy(site.folder / "secrets" / key, made.folder / "secrets" / key)
    return load_site(made.folder)


def held(site: Site) -> dict[str, object]:
    """All that a site holds of its patients: every row but the times, every byte of every file."""
    found: dict[str, object] = {}
    database = sqlite3.connect(f"file:{site.index}?mode=ro", uri=True)
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table not in ("ingests", "sqlite_sequence"):
            found[table] = sorted(map(repr, database.execute(f"SELECT * FROM {table}").fetchall()))  # noqa: S608
    database.close()
    for path in sorted(site.data.rglob("*")):
        if path.is_file() and "index.sqlite" not in path.name and path.name != ".ingest.lock":
            found[str(path.relative_to(site.data))] = content(site, path)
    return found


def content(site: Site, path: Path) -> object:
    """What a file says: an original is sealed anew each time, and a reason has a date."""
    if path.suffix == ".sealed":
        with Quarantine.of(site).original(path.stem, site.folder) as opened:
            return opened.path.read_bytes()
    if path.parent == site.quarantine:
        return {k: v for k, v in json.loads(path.read_bytes()).items() if k not in ("since", "wraps")}
    return path.read_bytes()


def start(site: Site, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [BIN / "consilium-site", "ingest", folder, "--site", site.folder, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def count(folder: Path, pattern: str) -> int:
    try:
        return sum(1 for _ in folder.rglob(pattern))
    except FileNotFoundError:  # it went while we looked
        return 0


Reached = Callable[[Site], bool]
POINTS: dict[str, Reached] = {
    "a worker begins": lambda s: count(s.data / "staging", ".*.part") > 0,
    "some are staged": lambda s: len(notes(s.data / "staging")) > 4,
    "many are staged": lambda s: len(notes(s.data / "staging")) > 15,
    "the first moved": lambda s: count(s.dicom, "*.dcm") > 0,
    "half have moved": lambda s: count(s.dicom, "*.dcm") > 8,
    "an original kept": lambda s: count(s.quarantine, "*.sealed") > 0,
    "staging vanishes": lambda s: count(s.dicom, "*.dcm") > 8 and not (s.data / "staging" / NOTES).exists(),
    "a volume is made": lambda s: count(s.data / "volumes", "*") > 0,
}

LONG = ("a worker begins", "some are staged", "many are staged")
"""Points after which there is time for a random wait."""


def kill_when(site: Site, folder: Path, reached: Reached, wait_s: float = 0.0) -> bool:
    """Begin an ingestion and kill it with SIGKILL at a point; whether it was still alive then."""
    process = start(site, folder)
    try:
        end = time.monotonic() + 60
        while process.poll() is None and not reached(site) and time.monotonic() < end:
            time.sleep(0.0002)
        time.sleep(wait_s)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def consistent(site: Site) -> None:
    """What the index names is there, whole; nothing identified lies outside the quarantined originals."""
    if site.index.exists():
        with Index(site.index) as index:
            index.check_integrity()
            for row in index.images():
                assert dcmread(site.dicom / row.file).PatientIdentityRemoved == "YES"
    for path in (path for path in site.data.rglob("*") if path.is_file()):
        if site.quarantine not in path.parents:
            assert not any(name in path.read_bytes() for name in NAMES), path.name


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_and_a_second_run_are_one_undisturbed_run(
    tmp_path: Path, folder: Path, undisturbed: Site, point: str
) -> None:
    wait_s = float(np.random.default_rng().uniform(0, 0.01)) if point in LONG else 0.0
    for attempt in range(25):  # on a busy machine it may be over before the point is seen
        site = twin(undisturbed, tmp_path / f"site{attempt}")
        if kill_when(site, folder, POINTS[point], wait_s):
            break
    else:
        pytest.fail("it was never killed")
    consistent(site)
    ingest(site, folder, None, workers=1)
    assert held(site) == held(undisturbed)
    verify(site.audit)


def test_three_kills_in_a_row_at_random_times_change_nothing_either(
    tmp_path: Path, folder: Path, undisturbed: Site
) -> None:
    site = twin(undisturbed, tmp_path / "site")
    for wait_s in np.random.default_rng().uniform(0.0, 0.4, 3):
        kill_when(site, folder, lambda s: (s.data / "staging").exists(), float(wait_s))
        consistent(site)
    ingest(site, folder, None, workers=1)
    assert held(site) == held(undisturbed)


def test_workers_die_with_the_parent_that_is_killed(tmp_path: Path, folder: Path) -> None:
    site = new_site(tmp_path / "site")
    process = start(site, folder)
    while not notes(site.data / "staging"):
        time.sleep(0.001)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this kernel does not list a process's children")
    pids = children.read_text().split()
    assert pids
    while not all(_bound(pid) for pid in pids):  # one that is still starting has made no promise yet
        time.sleep(0.001)
    for pid in pids:
        os.kill(int(pid), signal.SIGSTOP)  # so that it cannot see that nobody asks any more
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(_alive(pid) for pid in pids)


def _bound(pid: str) -> bool:
    """Whether a worker has limited its memory, which it does right after binding its life to its parent's."""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in limits if line.startswith("Max address space")).split()[3] != "unlimited"


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_half_an_original_of_a_killed_run_does_not_stay_in_quarantine(tmp_path: Path, folder: Path) -> None:
    site = new_site(tmp_path / "site")
    site.quarantine.mkdir()
    begun = site.quarantine / f".0123456789abcdef.sealed.{2**22 + 1}.tmp"  # above the highest process number
    begun.write_bytes(b"Abendroth^Wilhelmina")
    withdraw_patient(site, "nobody of this archive")
    assert not begun.exists()
    begun.write_bytes(b"Abendroth^Wilhelmina")
    ingest(site, folder, None, workers=1)
    assert not list(site.quarantine.glob(".*"))


def test_a_staged_file_that_is_not_what_was_noted_is_made_again(tmp_path: Path, undisturbed: Site) -> None:
    """After a power cut a file may have its name and not its content."""
    site = twin(undisturbed, tmp_path / "site")
    folder = export(tmp_path / "in", 12)
    kill_when(site, folder, POINTS["some are staged"])
    staged = [site.data / "staging" / f"{key}.dcm" for key in notes(site.data / "staging")]
    assert len(staged) > 3
    staged[0].write_bytes(b"")
    staged[1].write_bytes(staged[1].read_bytes()[:-2] + b"\0\0")
    ingest(site, folder, None, workers=1)
    with Index(site.index) as index:
        for row in index.images():
            assert (site.dicom / row.file).read_bytes() == (undisturbed.dicom / row.file).read_bytes()


def test_files_and_folders_are_waited_for_before_the_index_is_told(tmp_path: Path, folder: Path) -> None:
    """While a file or folder is being synced, another reader of the index sees no image yet."""
    site = new_site(tmp_path / "site")
    seen: list[tuple[Path, int]] = []

    def watch(frame: FrameType, event: str, called: object) -> None:
        asker = frame.f_back  # who calls `common.durability.push`
        if event == "c_call" and called is os.fsync and asker is not None and "path" in asker.f_locals:
            with sqlite3.connect(f"file:{site.index}?mode=ro", uri=True) as reader:
                images = reader.execute("SELECT COUNT(*) FROM images").fetchone()[0]
                seen.append((asker.f_locals["path"], images))
            reader.close()

    threading.setprofile(watch)
    try:
        ingest(site, folder, None, workers=1)
    finally:
        threading.setprofile(None)
    waited = [path for path, _ in seen]
    assert sum(path.suffix == ".dcm" for path in waited) == 20
    with Index(site.index) as index:
        assert {site.dicom / row.patient for row in index.images()} <= set(waited)
    assert {site.data, site.dicom, site.quarantine} <= set(waited)
    assert {images for _, images in seen} == {0}


def test_a_withdrawal_follows_no_path_that_somebody_typed(tmp_path: Path) -> None:
    site = new_site(tmp_path / "site")
    export(tmp_path / "in", 1)
    withdraw(site, "../../../in")
    assert count(tmp_path / "in", "*.dcm") == 1


def test_what_is_not_there_any_more_is_not_waited_for_and_a_failing_disk_is_ours(tmp_path: Path) -> None:
    on_disk([tmp_path, tmp_path / "gone"], "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        on_disk([tmp_path / "file" / "below"], "x")


# a full disk


def ingest_on_full_disk(site: Site, folder: Path, size: int) -> subprocess.CompletedProcess[str]:
    """`consilium-site ingest` where no file can grow beyond `size` bytes, workers included."""
    return subprocess.run(
        limited(size, [BIN / "consilium-site", "ingest", folder, "--site", site.folder, "--workers", "2"]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("where", ["the images", "an original", "the index"])
def test_a_disk_that_fills_leaves_index_and_store_as_they_were(
    tmp_path: Path, folder: Path, undisturbed: Site, where: str
) -> None:
    site = twin(undisturbed, tmp_path / "site")
    earlier = export(tmp_path / "earlier", 2, 90)
    ingest(site, earlier, None, workers=1)
    more = Path(shutil.copytree(folder, tmp_path / "in"))
    largest = max(path.stat().st_size for path in site.dicom.rglob("*.dcm"))
    size = {"the images": largest - 1000, "an original": largest + 9000, "the index": 60_000}[where]
    if where == "an original":
        (more / "huge.dcm").write_bytes(b"no image" * 10_000)
    before, audit = held(site), site.audit.read_bytes()
    result = ingest_on_full_disk(site, more, size)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    assert "Free space" in result.stderr or "space, quota" in result.stderr
    after = held(site)
    assert {k: v for k, v in after.items() if not k.startswith("quarantine/")} == before
    assert site.audit.read_bytes() == audit
    assert not list(site.quarantine.glob(".*.tmp"))
    assert start(site, more).wait() == 0
    assert held(undisturbed)["images"] != held(site)["images"]
    with Index(site.index) as index:
        assert len(index.images()) == 22


def test_a_disk_that_fills_after_the_images_are_in_says_so(tmp_path: Path, folder: Path) -> None:
    """A folder stands where the volumes would be: the images are in, and the message does not deny it."""
    site = new_site(tmp_path / "site")
    (site.data / "volumes").write_text("no folder")
    with pytest.raises(StorageError, match="the images are taken in") as caught:
        ingest(site, folder, None, workers=1)
    assert caught.value.exit_status == 2
    (site.data / "volumes").unlink()
    report = ingest(site, folder, None, workers=1)
    assert (report.unchanged, report.volumes) == (21, 1)


# a receipt, a copy, a withdrawal


def test_every_ingestion_leaves_a_receipt_without_a_patient(tmp_path: Path, folder: Path) -> None:
    site = new_site(tmp_path / "site")
    assert last_receipt(site) is None
    ingest(site, folder, None, workers=1)
    found = last_receipt(site)
    assert found is not None
    assert (found.files, found.images) == (24, 20)
    assert found.refused == {"review-burned-in": 2, "sop-class-missing": 1}
    assert found.profile.startswith("sha256:")
    assert found.methods == ("113100", "113107", "113108")
    ingest(site, folder, None, workers=1)
    again = last_receipt(site)
    assert again is not None
    assert again.images == 0
    assert sum(entry["event"] == "ingest.done" for entry in read(site.audit)) == 2
    verify(site.audit)
    assert not any(name in site.audit.read_bytes() for name in NAMES)


def test_the_same_bytes_twice_are_one_file_and_keep_the_reason_of_the_first(tmp_path: Path) -> None:
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 2)
    (folder / "burned.dcm").write_bytes(to_bytes(image(7, BurnedInAnnotation="YES")))
    (folder / "resent").mkdir()
    for name in ("Abendroth_0.dcm", "burned.dcm"):
        shutil.copy(folder / name, folder / "resent" / name)
    first = ingest(site, folder, None, workers=2)
    assert (first.accepted, first.unchanged, first.refused) == (2, 1, {"review-burned-in": 2})
    again = ingest(site, folder, None, workers=2)
    assert (again.accepted, again.unchanged, again.refused) == (0, 3, {"review-burned-in": 2})
    assert len(list(site.quarantine.glob("*.sealed"))) == 1
    assert first.received == 5 == first.accepted + first.unchanged + sum(first.refused.values())


def test_an_image_that_moved_before_the_kill_leaves_with_its_patient(tmp_path: Path) -> None:
    """Moved, not yet in the index, the patient withdraws: no file of theirs stays."""
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 1)
    ingest(site, folder, None, workers=1)
    for path in site.data.glob("index.sqlite*"):
        path.unlink()  # as if it had been killed before its first commit
    withdraw_patient(site, "HOSP-7700000")
    names = Pseudonyms.of(site)
    assert not count(site.dicom / names.patient(Identity("HOSP-7700000")), "*.dcm")


def test_a_note_is_taken_only_with_its_image(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "staging")
    with whole_file(staging.folder / "k.json") as file:
        file.write(b'{"code": "accepted", "digest": ""}')
    assert staging.recall("k", tmp_path) is None


def test_a_file_that_was_written_again_is_waited_for_again(tmp_path: Path) -> None:
    """What went to the disk by the way counts only while it is the very file that did."""
    behind = Behind()
    paths = [tmp_path / f"{number}.dcm" for number in range(TOGETHER + 3)]
    for path in paths:
        path.write_bytes(b"first")
        behind.begin(path)
    spare = tmp_path / "spare"
    spare.write_bytes(b"other")
    behind.stop()
    spare.replace(paths[0])
    paths[1].write_bytes(b"second")
    paths[2].unlink()
    assert set(behind.left(paths, "x")) == {*paths[:3], *paths[TOGETHER:]}


def test_a_disk_that_fails_by_the_way_stops_the_ingestion(tmp_path: Path) -> None:
    behind = Behind()
    (tmp_path / "file").write_text("")
    for number in range(TOGETHER):
        behind.begin(tmp_path / "file" / str(number))
    with pytest.raises(StorageError):
        behind.left([], "x")
