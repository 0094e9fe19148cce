"""CT and MR series as volumes: slices in the order of their positions, spacing from those positions.

A series may hold several stacks: other orientations (a scout), other sizes, or the same positions again
(echoes, time points). Each stack of two or more slices becomes one volume, numbered in order. The
distance between slices is measured from ImagePositionPatient along the normal, never taken from
SliceThickness, and stacks with gaps are kept and flagged.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.files import write_rows
from client.index import ImageRow, Index, VolumeRow
from client.preprocess.modality import frame_groups
from client.preprocess.tensor import decode
from client.site import Site

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MODALITIES: Final = ("CT", "MR")
_ONE_FRAME: Final = (b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.4\0")
"""Classes, as they stand in a file's meta, of CT and MR images that are one slice each."""
_META_BYTES: Final = 512
"""Of a file of ours, more than its preamble and the class in its meta."""
SAME_PLACE_MM: Final = 1e-3
SAME_DIRECTION: Final = 1e-3
"""Largest difference of a direction cosine within one stack."""
REGULAR_SHARE: Final = 0.01
REGULAR_MM: Final = 0.01

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Slice:
    """One slice: where it comes from and where it lies (millimetres, patient coordinates)."""

    sop_uid: str
    file: str
    frame: int | None
    """Frame of an enhanced object, 0-based; None for an ordinary image."""
    number: float
    """Instance number or frame number: the order of acquisition among equals."""
    position: Vector | None
    orientation: Vector | None
    spacing: tuple[float, float]
    """(between rows, between columns); 0: unknown."""
    shape: tuple[int, int]

    @property
    def depth(self) -> float:
        """Position along the normal; without geometry, the order of acquisition."""
        if self.position is None or self.orientation is None:
            return self.number
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal, self.position))


def assemble_volumes(site: Site) -> int:
    """Make the volumes of every CT and MR series that is new or has changed.

    Returns:
        how many volumes were written. Single images give none. What cannot be read is left out.

    Raises:
        StorageError: the disk is full or refuses; volumes written before stay, the index agrees with them.
    """
    folder = site.data / "volumes"
    written = 0
    alone: dict[str, str] = {}
    with Index(site.index) as index:
        done = index.assembled()
        rows = [row for modality in MODALITIES for row in index.images(modality=modality)]
        for series_uid, group in groupby(sorted(rows, key=_series_key), key=_series_key):
            images = list(group)
            made_of = hashlib.sha256("\n".join(row.sop_uid for row in images).encode()).hexdigest()
            if done.get(series_uid) == made_of:
                continue
            if len(images) == 1 and _has_one_frame(site.dicom / images[0].file):
                alone[series_uid] = made_of
                continue
            stacks = stacks_of(one for row in images for one in read_slices(site.dicom, row))
            volumes = [_write(site, images[0], part, stack) for part, stack in enumerate(stacks)]
            for stale in index.replace_volumes(series_uid, volumes, made_of):
                (folder / stale).unlink(missing_ok=True)
            written += len(volumes)
        with index.transaction():
            stale_files = [
                file for uid, made in alone.items() for file in index.replace_volumes(uid, [], made)
            ]
        for stale in stale_files:
            (folder / stale).unlink(missing_ok=True)
    return written


def _has_one_frame(path: Path) -> bool:
    """Whether a file of ours is of a class whose objects have one frame; its meta, which comes first, says so."""
    try:
        with path.open("rb") as file:
            head = file.read(_META_BYTES)
    except OSError:
        return False
    return any(uid in head for uid in _ONE_FRAME)


def stacks_of(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Group slices into stacks of one geometry, each ordered by depth; single slices are left out."""
    alike: dict[object, list[Slice]] = defaultdict(list)
    for one in slices:
        alike[_geometry(one)].append(one)
    stacks: list[list[Slice]] = []
    for _, group in sorted(alike.items(), key=lambda item: str(item[0])):
        stacks.extend(stack for stack in _repeats(group) if len(stack) > 1)
    return stacks


def _geometry(one: Slice) -> tuple[object, ...]:
    direction = None if one.orientation is None else tuple(round(v / SAME_DIRECTION) for v in one.orientation)
    return (one.shape, tuple(round(v, 4) for v in one.spacing), direction, one.position is None)


def _repeats(group: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices that lie in the same place into one stack for each time they were taken."""
    ordered = sorted(group, key=lambda one: (round(one.depth / SAME_PLACE_MM), one.number, one.sop_uid))
    stacks: list[list[Slice]] = []
    for _, place in groupby(ordered, key=lambda one: round(one.depth / SAME_PLACE_MM)):
        for turn, one in enumerate(place):
            if turn == len(stacks):
                stacks.append([])
            stacks[turn].append(one)
    return stacks


def slice_gap(stack: Sequence[Slice]) -> tuple[float, bool]:
    """(distance between slices in mm, whether all gaps are equal); (0, True) where positions are unknown.

    With unequal gaps the distance is their median.
    """
    if any(one.position is None or one.orientation is None for one in stack):
        return 0.0, True
    gaps = np.diff([one.depth for one in stack])
    middle = float(np.median(gaps))
    allowed = max(REGULAR_MM, REGULAR_SHARE * middle)
    return middle, bool(np.all(np.abs(gaps - middle) <= allowed))


def read_slices(folder: Path, row: ImageRow) -> list[Slice]:
    """The slices of one indexed file, headers only: one, or one for each frame of an enhanced object."""
    import pydicom  # noqa: PLC0415 - slow to import, and a hospital trains from its store without it

    try:
        ds = pydicom.dcmread(folder / row.file, stop_before_pixels=True)
    except (OSError, pydicom.errors.InvalidDicomError):
        return []
    shape = (row.rows, row.cols)
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return [_slice(row, shape, (None, _number(ds.get("InstanceNumber"))), [ds, ds, ds])]
    names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    groups = zip(*(frame_groups(ds, name) for name in names), strict=True)
    return [
        _slice(row, shape, (frame, float(frame)), [part or pydicom.Dataset() for part in parts])
        for frame, parts in enumerate(groups)
    ]


def _slice(
    row: ImageRow, shape: tuple[int, int], place: tuple[int | None, float], parts: Sequence[Dataset]
) -> Slice:
    position, orientation, measures = parts
    spacing = _vector(measures.get("PixelSpacing"), 2) or (0.0, 0.0)
    return Slice(
        sop_uid=row.sop_uid,
        file=row.file,
        frame=place[0],
        number=place[1],
        position=_vector(position.get("ImagePositionPatient"), 3),
        orientation=_vector(orientation.get("ImageOrientationPatient"), 6),
        spacing=(spacing[0], spacing[1]),
        shape=shape,
    )


def _write(site: Site, row: ImageRow, part: int, stack: Sequence[Slice]) -> VolumeRow:
    shape = (len(stack), *stack[0].shape)
    file = f"{row.series_uid}-{part}.npy"
    write_rows(site.data / "volumes" / file, _pixels(site.dicom, stack), shape, "<f4")
    gap, regular = slice_gap(stack)
    first = stack[0]
    return VolumeRow(
        series_uid=row.series_uid,
        part=part,
        patient=row.patient,
        modality=row.modality,
        file=file,
        shape=shape,
        spacing_mm=(gap, *first.spacing),
        orientation=first.orientation or (),
        origin_mm=_three(first.position),
        regular=regular,
        sop_uids=tuple(dict.fromkeys(one.sop_uid for one in stack)),
    )


def _pixels(dicom: Path, stack: Sequence[Slice]) -> Iterator[npt.NDArray[np.float32]]:
    import pydicom  # noqa: PLC0415 - as above

    opened, frames = "", np.empty(0, dtype=np.float32)
    for one in stack:
        if one.file != opened:
            opened, frames = one.file, decode(pydicom.dcmread(dicom / one.file))
        yield frames if one.frame is None or frames.ndim == 2 else frames[one.frame]


def _series_key(row: ImageRow) -> str:
    return row.series_uid


def _vector(value: Any, size: int) -> Vector | None:
    try:
        numbers = tuple(float(v) for v in value or ())
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == size and all(map(math.isfinite, numbers)) else None


def _three(vector: Vector | None) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if vector is None else (vector[0], vector[1], vector[2])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
