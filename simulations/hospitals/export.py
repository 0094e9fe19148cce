"""Writing the archive of a virtual hospital: patients are dealt to processes, seeds belong to patients.

A patient's seed is SeedSequence(seed, (hospital, patient)): the bytes do not depend on the number of
processes, on the order of work or on the other hospitals.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from common.errors import StorageError
from simulations.hospitals.patientfiles import PatientTask, write_patient
from simulations.hospitals.population import Traits, draw
from simulations.hospitals.spec import HospitalSpec, ImageTruth, Truth

Progress = Callable[[int, int], None]

BROKEN_KINDS: Final = ("truncated", "header", "not-dicom")
"""Dealt in turn after one empty file: a second empty file would only be a duplicate of the first."""
CHUNK: Final = 12
"""Patients in one piece of work: about a quarter of a second."""
LABEL_VERSION: Final = "2024-1"
_ROSTER: Final = 0x526F7374
"""Spawn key of the draw that deals labels and traps; patients have small numbers."""
_PEOPLE: Final = 0x50656F70
"""Spawn key of the draw of a population."""


@dataclass(frozen=True)
class _Piece:
    hospital: int
    spec: HospitalSpec
    folder: Path
    seed: int
    tasks: tuple[PatientTask, ...]


def write_hospital(
    spec: HospitalSpec,
    folder: Path,
    seed: int,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Truth:
    """Write one hospital's archive and its labels.csv into `folder`; see `write_federation`."""
    return write_federation([(spec, folder)], seed, progress, workers)[0]


def write_federation(
    hospitals: Sequence[tuple[HospitalSpec, Path]],
    seed: int,
    progress: Progress | None = None,
    workers: int | None = None,
    pool: Executor | None = None,
) -> list[Truth]:
    """Write the archives of several hospitals with one pool of processes.

    Args:
        hospitals: each hospital with the folder it gets (made when missing).
        seed: the same seed writes the same bytes.
        progress: called with patients done and patients in all.
        workers: processes; the machine's cores when None, in this process when 1.
        pool: does the work instead, where the caller has one; `workers` then means nothing.

    Returns:
        The truth of each hospital, in the order given.

    Raises:
        StorageError: when a folder cannot be written.
    """
    pieces = [
        piece for index, (spec, folder) in enumerate(hospitals) for piece in _deal(index, spec, folder, seed)
    ]
    total, done = sum(len(p.tasks) for p in pieces), 0
    found: list[list[tuple[int, list[ImageTruth]]]] = [[] for _ in hospitals]
    try:
        for piece, images in _work(pieces, workers or os.cpu_count() or 1, pool):
            found[piece.hospital].append((piece.tasks[0].index, images))
            done += len(piece.tasks)
            if progress:
                progress(done, total)
        truths = []
        for (spec, folder), parts in zip(hospitals, found, strict=True):
            images = [image for _, part in sorted(parts, key=lambda p: p[0]) for image in part]
            truths.append(Truth(spec.name, seed, tuple(images)))
            _write_labels(folder / "labels.csv", truths[-1])
    except OSError as error:
        raise StorageError(
            "virtual archive", f"writing failed: {error.strerror}", "Free space or choose another folder"
        ) from None
    return truths


def _deal(index: int, spec: HospitalSpec, folder: Path, seed: int) -> list[_Piece]:
    """Decide every patient's label and traps, then cut the list into pieces of work."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(spec.key, _ROSTER)))
    traits = _traits(spec, seed)
    labels = rng.permutation(np.arange(spec.patients) < spec.positives)
    traps: list[list[str]] = [[] for _ in range(spec.patients)]
    for kind, count in (
        ("burned-in", spec.burned_in),
        ("broken", spec.broken),
        ("duplicate", spec.duplicated),
    ):
        for number, patient in enumerate(rng.permutation(spec.patients)[:count]):
            broken = BROKEN_KINDS[number % len(BROKEN_KINDS)] if number else "empty"
            traps[patient].append(broken if kind == "broken" else kind)
    tasks = [
        PatientTask(i, bool(labels[i]) if given is None else given.positive, tuple(traps[i]), given)
        for i, given in enumerate(traits)
    ]
    return [
        _Piece(index, spec, folder, seed, tuple(tasks[start : start + CHUNK]))
        for start in range(0, spec.patients, CHUNK)
    ]


def _traits(spec: HospitalSpec, seed: int) -> Sequence[Traits | None]:
    if spec.population is None:
        return [None] * spec.patients
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(spec.key, _PEOPLE)))
    return draw(spec.population, spec.patients, rng)


def _work(
    pieces: list[_Piece], workers: int, pool: Executor | None
) -> Iterator[tuple[_Piece, list[ImageTruth]]]:
    if pool is not None:
        yield from _in_pool(pool, pieces)
        return
    if min(workers, len(pieces)) <= 1:
        for piece in pieces:
            yield piece, _write_piece(piece)
        return
    # Spawn, not fork: the caller may hold threads (a progress bar, torch) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            min(workers, len(pieces)), mp_context=context, initializer=keep_freed_memory
        ) as own,
    ):
        yield from _in_pool(own, pieces)


def _in_pool(pool: Executor, pieces: list[_Piece]) -> Iterator[tuple[_Piece, list[ImageTruth]]]:
    waiting = {pool.submit(_write_piece, piece): piece for piece in pieces}
    for future in as_completed(waiting):
        yield waiting[future], future.result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children inherit the environment they are spawned in; ours is put back afterwards."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def keep_freed_memory() -> None:
    """Let the C library keep up to 32 MB of freed memory instead of handing it back after every map.

    glibc raises its thresholds when a large block is freed (mallopt(3), M_MMAP_THRESHOLD); without it each
    image costs 900 page faults, about a tenth of its time. Does nothing elsewhere.
    """
    np.empty(24 << 20, dtype=np.uint8)


def _write_piece(piece: _Piece) -> list[ImageTruth]:
    return [
        image for task in piece.tasks for image in write_patient(piece.spec, task, piece.folder, piece.seed)
    ]


def _write_labels(path: Path, truth: Truth) -> None:
    labels = {i.accession: i for i in truth.images if i.told is not None}
    columns = ["accession", "label", "source", "version"]
    split = any(image.split for image in labels.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([*columns, "split"] if split else columns)
        for accession, image in sorted(labels.items()):
            row = [accession, image.told, image.reader, LABEL_VERSION]
            writer.writerow([*row, image.split] if split else row)
