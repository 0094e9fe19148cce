"""The store: built once, whole or not at all, by patients that are still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from client.index import Index
from client.preprocess import to_tensor
from client.store import build_store, erase, input_digest
from client.withdraw import withdraw, withdraw_patient
from common.errors import StorageError
from common.plan import Input
from tests.client.made import add, fill, made_image, made_plan, made_site, noise

SPEC = made_plan().input


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_store_holds_what_preprocessing_gives(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 4, images=2)
    store = build_store(site, SPEC)
    assert store.images.shape == (8, 16, 16)
    assert store.images.dtype == np.float16
    for uid, row in store.row_of.items():
        exact = to_tensor(pydicom.dcmread(site.dicom / f"{uid}.dcm"), SPEC)
        np.testing.assert_allclose(store.images[row], exact, rtol=1e-3, atol=1e-3)


def test_a_second_build_touches_nothing_and_reads_no_image(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 3)
    build_store(site, SPEC)
    before = snapshot(site.store)
    for file in site.dicom.iterdir():
        file.unlink()
    assert len(build_store(site, SPEC).sop_uids) == 3
    assert snapshot(site.store) == before


def test_only_new_images_are_preprocessed(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 3)
    first = build_store(site, SPEC)
    old = {uid: np.array(first.images[row]) for uid, row in first.row_of.items()}
    for file in site.dicom.iterdir():
        file.unlink()
    add(site, made_image(noise(99), SOPInstanceUID="2.25.9"), "A-first-in-order")
    seen: list[tuple[int, int]] = []
    store = build_store(site, SPEC, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    assert set(store.row_of) == {*old, "2.25.9"}
    assert all(np.array_equal(store.images[store.row_of[uid]], array) for uid, array in old.items())
    assert len(list((site.store / input_digest(SPEC)).glob("images-*.npy"))) == 1


def test_another_input_section_is_another_store(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 2)
    other = Input(modalities=("DX",), shape=(8, 8), normalisation="minmax")
    assert build_store(site, SPEC).images.shape[1:] == (16, 16)
    assert build_store(site, other).images.shape[1:] == (8, 8)
    assert build_store(site, Input(modalities=("CT",), shape=(8, 8))).sop_uids == ()
    assert len({input_digest(SPEC), input_digest(other)}) == 2


def test_several_processes_give_the_same_store(tmp_path: Path) -> None:
    one, two = made_site(tmp_path / "one"), made_site(tmp_path / "two")
    for site in (one, two):
        fill(site, 70, images=3)
    alone, together = build_store(one, SPEC, workers=1), build_store(two, SPEC, workers=2)
    assert alone.sop_uids == together.sop_uids
    assert np.array_equal(alone.images, together.images)


def test_a_damaged_image_of_ours_is_named_and_the_old_store_stays(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 2)
    build_store(site, SPEC)
    before = snapshot(site.store)
    row = add(site, made_image(noise(99), SOPInstanceUID="2.25.9"), "P9")
    (site.dicom / row.file).write_bytes(b"no image")
    with pytest.raises(StorageError) as error:
        build_store(site, SPEC)
    assert error.value.code == "storage-corrupt"
    assert "P9" not in str(error.value)
    assert "2.25.9" not in str(error.value)
    assert snapshot(site.store) == before


@pytest.mark.parametrize(
    "damage", [b"{", b"{}", b'{"file": "images-7.npy", "sop_uids": ["a"], "digests": ["b"]}']
)
def test_a_damaged_store_is_a_storage_error(tmp_path: Path, damage: bytes) -> None:
    site = made_site(tmp_path)
    fill(site, 2)
    build_store(site, SPEC)
    (site.store / input_digest(SPEC) / "rows.json").write_bytes(damage)
    with pytest.raises(StorageError):
        build_store(site, SPEC)


_FULL = """
import resource, signal, sys
from pathlib import Path
from client.site import load_site
from client.store import build_store
from common.errors import StorageError
from common.plan import Input
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    build_store(load_site(Path(sys.argv[1])), Input(modalities=("DX",), shape=(256, 256)))
except StorageError as error:
    print(error.code)
"""


def test_a_full_disk_leaves_the_old_store_whole(tmp_path: Path) -> None:
    """No file may grow past 300 kB, as on a disk that fills up half-way through the array."""
    site = made_site(tmp_path / "site")
    fill(site, 1)
    spec = Input(modalities=("DX",), shape=(256, 256))
    build_store(site, spec)
    for number in range(4):
        add(site, made_image(noise(50 + number), SOPInstanceUID=f"2.25.9{number}"), "P9")
    before = snapshot(site.store)
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(site.folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.strip() == "storage-full", done.stderr
    assert snapshot(site.store) == before
    assert len(build_store(site, spec).sop_uids) == 5


def test_erased_rows_are_zeros_on_the_disk(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 3)
    store = build_store(site, SPEC)
    uid = store.sop_uids[1]
    bytes_of = np.array(store.images[1]).tobytes()
    assert bytes_of in b"".join(snapshot(site.store).values())
    assert erase(site, frozenset({uid})) == 1
    assert not np.asarray(store.images[1]).any(), "a reader that had the store open sees zeros too"
    assert np.asarray(store.images[0]).any()
    assert np.asarray(store.images[2]).any()
    after = b"".join(snapshot(site.store).values())
    assert bytes_of not in after
    assert uid.encode() + b'"' not in after
    assert erase(site, frozenset({uid})) == 0


def test_a_withdrawn_patient_leaves_everything(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 3, images=2)
    build_store(site, SPEC)
    build_store(site, Input(modalities=("DX",), shape=(8, 8)))
    site.scores.mkdir()
    (site.scores / "run.npz").write_bytes(b"P001")
    with Index(site.index) as index:
        index.record_run("run-1", ["P000", "P001"])
    gone = withdraw(site, "P001")
    assert gone.runs == ("run-1",)
    assert len(gone.sop_uids) == 2
    assert not any((site.dicom / file).exists() for file in gone.files)
    assert len(list(site.dicom.iterdir())) == 4
    store = build_store(site, SPEC)
    assert len(store.sop_uids) == 4
    assert not set(gone.sop_uids) & set(store.sop_uids)
    assert not list(site.scores.iterdir())
    everything = b"".join(snapshot(site.data).values())
    assert not any(uid.encode() in everything for uid in gone.sop_uids)
    assert withdraw(site, "P001").sop_uids == ()


def test_a_withdrawal_that_was_cut_short_can_be_finished(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    fill(site, 2)
    build_store(site, SPEC)
    with Index(site.index) as index:
        began = index.begin_withdrawal("P001")
    assert len(build_store(site, SPEC).sop_uids) == 1
    assert withdraw(site, "P001") == began
    assert not (site.dicom / began.files[0]).exists()


def test_the_hospital_may_name_the_patient_by_its_own_number(tmp_path: Path) -> None:
    site = made_site(tmp_path)
    withdraw_patient(site, "MRN-1", "St Anna")
    with Index(site.index) as index:
        (left,) = index.patients(withdrawn=True)
    assert left.withdrawn_at is not None
    assert "MRN" not in left.pseudonym
    assert b"MRN-1" not in site.index.read_bytes()
