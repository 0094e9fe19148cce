"""A release that is killed with -9 anywhere leaves the image where it was, or taken in; never in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.index import Index
from client.intake.begin import begun
from client.intake.ingest import ingest
from client.intake.quarantine import Quarantine
from client.intake.staging import NOTES
from client.site import Site, load_site
from client.withdraw import withdraw_patient
from common.audit import read, verify
from tests.client.intake_files import export, image, new_site, to_bytes

BIN = Path(sys.executable).parent
NAMES = (b"Abendroth", b"HOSP-77")
Reached = Callable[[Site], bool]


def any_of(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and any(folder.glob(pattern))


POINTS: dict[str, Reached] = {
    "it was decided": lambda s: b"quarantine.decided" in s.audit.read_bytes(),
    "the worker writes": lambda s: any_of(s.data / "staging" / "release", ".*.part"),
    "it is staged": lambda s: any_of(s.data / "staging" / "release", NOTES),
    "it moved": lambda s: len(list(s.dicom.rglob("*.dcm"))) > 1,
    "its receipt is promised": lambda s: (s.state / "receipts.json").exists(),
    "the original goes": lambda s: not any_of(s.quarantine, "*.sealed"),
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> tuple[Path, str]:
    """A site in which one image waits, and its identifier."""
    folder = export(tmp_path_factory.mktemp("archive") / "in", 1)
    (folder / "burned.dcm").write_bytes(to_bytes(image(7, BurnedInAnnotation="YES")))
    site = new_site(tmp_path_factory.mktemp("site") / "site")
    ingest(site, folder, None, workers=1)
    return site.folder, Quarantine.of(site).refusals()[0].id


def begin(site: Site, name: str) -> subprocess.Popen[bytes]:
    words = ["quarantine", "release", name, "--reason", "harmless", "--site", site.folder]
    return subprocess.Popen(
        [BIN / "consilium-site", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill(process: subprocess.Popen[bytes]) -> bool:
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL


def nothing_or_all(site: Site) -> str:
    """Which of the two it is, once the next command has begun."""
    for path in (path for path in site.data.rglob("*") if path.is_file()):
        assert not any(name in path.read_bytes() for name in NAMES), path.name
    with begun(site) as index:
        images = len(index.images())
    files = {path.relative_to(site.dicom).as_posix() for path in site.dicom.rglob("*.dcm")}
    with Index(site.index) as index:
        assert files == {row.file for row in index.images()}
    originals = len(list(site.quarantine.glob("*.sealed")))
    assert (images, originals, len(Quarantine.of(site).refusals())) in {(1, 1, 1), (2, 0, 0)}
    assert not any_of(site.data / "staging" / "release", "*")
    verify(site.audit)
    return "all" if images == 2 else "nothing"


def finish(site: Site, name: str, state: str) -> None:
    """Repeated, the release ends as if nothing had happened, with one receipt of the study."""
    if state == "nothing":
        assert begin(site, name).wait() == 0
    assert nothing_or_all(site) == "all"
    studies = [
        e["fields"] for e in read(site.audit) if e["event"] == "ingest.study" and e["fields"]["images"]
    ]
    assert len({fields["study"] for fields in studies}) == 2


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_is_nothing_or_all(tmp_path: Path, taken: tuple[Path, str], point: str) -> None:
    folder, name = taken
    for attempt in range(25):  # on a busy machine it may be over before the point is seen
        site = load_site(Path(shutil.copytree(folder, tmp_path / f"site{attempt}")))
        process, end = begin(site, name), time.monotonic() + 60
        while process.poll() is None and not POINTS[point](site) and time.monotonic() < end:
            time.sleep(0.0002)
        if kill(process):
            break
    else:
        pytest.fail("it was never killed")
    finish(site, name, nothing_or_all(site))


def test_kills_at_random_times_are_nothing_or_all(tmp_path: Path, taken: tuple[Path, str]) -> None:
    folder, name = taken
    site = load_site(Path(shutil.copytree(folder, tmp_path / "site")))
    for wait_s in np.random.default_rng().uniform(0.3, 2.0, 3):
        process = begin(site, name)
        time.sleep(float(wait_s))
        kill(process)
        if nothing_or_all(site) == "all":
            break
    finish(site, name, nothing_or_all(site))


def test_whoever_withdraws_after_a_kill_leaves_nothing(tmp_path: Path, taken: tuple[Path, str]) -> None:
    folder, name = taken
    site = load_site(Path(shutil.copytree(folder, tmp_path / "site")))
    process = begin(site, name)
    while process.poll() is None and not POINTS["it is staged"](site):
        time.sleep(0.0002)
    kill(process)
    withdraw_patient(site, "HOSP-7700007")
    with begun(site) as index:
        rows = index.images()
    assert len(rows) == 1
    assert len(list(site.dicom.rglob("*.dcm"))) == 1
    assert not any_of(site.data / "staging" / "release", "*.dcm")
    assert not any_of(site.quarantine, "*.sealed")
