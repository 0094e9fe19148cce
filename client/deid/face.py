"""The face out of a head MR volume: deepbet finds the brain, quickshear cuts off what lies before and below it.

Runs in a process of its own (`python -m client.deid.face`), because networks take gigabytes and files may make a
library die. It reads one line of JSON, {"files": [...], "memory": bytes}, and answers with one line:
which files were
written anew, beside the old ones, or why not.

Schimke & Hale 2011 (quickshear), Fisch et al. 2024 (deepbet).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from common.errors import FileRefused

Volume = npt.NDArray[np.float32]
Removed = npt.NDArray[np.bool_]

SUFFIX: Final = ".defaced"
"""Of a file written anew, until its parent puts it in the old one's place."""
FEWEST_SLICES: Final = 16
THINNEST_MM, THICKEST_MM = 0.3, 7.0
SHORTEST_MM: Final = 90.0
"""Of the volume along each axis; less shows no whole brain."""
BRAIN_ML: Final = (500.0, 2500.0)
"""A brain's volume, newborn to largest; anything else is a mistake of the network."""
BUFFER_MM: Final = 10.0
"""Distance of the cut from the brain: quickshear's own default, ten voxels, at one millimetre."""


def undefaced(why: str) -> FileRefused:
    """The refusal of a series whose face could not be removed."""
    return FileRefused(
        "a head MR series",
        f"its face could not be removed: {why}",
        "Look at it with consilium-site review, send the whole series again, or leave it out",
        code="review-deface",
    )


@dataclass(frozen=True, eq=False)
class Stack:
    """One volume of a series: [columns, rows, slices] and how its voxels lie in the patient (RAS, millimetres)."""

    volume: Volume
    affine: npt.NDArray[np.float64]


def removed_voxels(stack: Stack) -> Removed:
    """Which voxels show the face: bool, of the volume's shape.

    Raises:
        FileRefused: `review-deface`: the volume is too small or holds no brain.
    """
    from deepbet.bet import BrainExtraction  # noqa: PLC0415 - the optional extra, and torch with it
    from nibabel import Nifti1Image  # noqa: PLC0415
    from quickshear import quickshear  # noqa: PLC0415

    _whole(stack)
    image = Nifti1Image(stack.volume, stack.affine)
    _, brain, millilitres = BrainExtraction(no_gpu=True).run(image)
    if not BRAIN_ML[0] <= float(millilitres) <= BRAIN_ML[1]:
        raise undefaced("no brain of a plausible size was found in it")
    buffer = max(1, round(BUFFER_MM / float(np.linalg.norm(stack.affine[:3, :3], axis=0).mean())))
    kept = np.asarray(
        quickshear(Nifti1Image(np.ones_like(stack.volume), stack.affine), brain, buff=buffer).dataobj
    )
    removed: Removed = kept == 0
    if not removed.any() or (removed & (np.asarray(brain.dataobj) > 0)).any():
        raise undefaced("no plane parts the face from the brain")
    return removed


def stack_of(slices: Sequence[Dataset]) -> Stack:
    """The volume of ordinary slices in the order of their depth.

    Raises:
        FileRefused: `review-deface`: their geometry is missing or not that of one stack.
    """
    try:
        orientation = [float(v) for v in slices[0].ImageOrientationPatient]
        positions = np.array([[float(v) for v in ds.ImagePositionPatient] for ds in slices])
        between_rows, between_cols = (float(v) for v in slices[0].PixelSpacing)
        alike = all(
            np.allclose([float(v) for v in ds.ImageOrientationPatient], orientation, atol=1e-3)
            for ds in slices
        )
        volume = np.stack([ds.pixel_array.T for ds in slices], axis=-1).astype(np.float32)
    except (AttributeError, TypeError, ValueError):
        raise undefaced("its slices do not make one volume") from None
    if not alike or len(slices) < FEWEST_SLICES:
        raise undefaced("its slices do not make one volume")
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * between_cols
    affine[:3, 1] = np.array(orientation[3:]) * between_rows
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    return Stack(volume, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)  # DICOM's LPS to RAS


def by_depth(slices: Sequence[Dataset]) -> list[Dataset]:
    """Slices in the order of their position along the normal.

    Raises:
        FileRefused: `review-deface`: geometry is missing, or two slices lie in one place.
    """
    try:
        orientation = np.array([float(v) for v in slices[0].ImageOrientationPatient])
        normal = np.cross(orientation[:3], orientation[3:])
        depths = [float(np.dot(normal, [float(v) for v in ds.ImagePositionPatient])) for ds in slices]
    except (AttributeError, TypeError, ValueError, IndexError):
        raise undefaced("its slices do not make one volume") from None
    order = np.argsort(depths)
    if len(slices) > 1 and float(np.diff(np.array(depths)[order]).min()) < THINNEST_MM / 10:
        raise undefaced("its slices do not make one volume")
    return [slices[number] for number in order]


def _whole(stack: Stack) -> None:
    sides = np.linalg.norm(stack.affine[:3, :3], axis=0)
    if (
        sides.min() < THINNEST_MM / 10
        or sides.max() > THICKEST_MM
        or (sides * stack.volume.shape).min() < SHORTEST_MM
    ):
        raise undefaced("it does not show a whole head")


def deface(paths: Sequence[Path]) -> list[str]:
    """Write every slice of one series anew beside itself, without the face; the names of those that changed.

    Raises:
        FileRefused: `review-deface`: the series is no head that can be defaced; nothing was written.
    """
    from client.deid.deidentify import encode, mark  # noqa: PLC0415 - only this process needs it here

    opened = {path: dcmread(path) for path in paths}
    names = {id(ds): path for path, ds in opened.items()}
    slices = by_depth(list(opened.values()))
    removed = removed_voxels(stack_of(slices))
    changed = []
    for number, ds in enumerate(slices):
        pixels = ds.pixel_array.copy()
        pixels[removed[:, :, number].T] = pixels.min()
        ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        mark(ds, tuple(sorted({*_codes(ds), "113102"})))
        path = names[id(ds)]
        part = path.with_name(path.name + SUFFIX)
        with part.open("wb") as file:
            file.write(encode(ds))
            file.flush()
            os.fsync(file.fileno())
        changed.append(path.name)
    return changed


def _codes(ds: Dataset) -> list[str]:
    return [str(item.CodeValue) for item in ds.get("DeidentificationMethodCodeSequence") or ()]


def main() -> None:
    """Answer one task of the parent."""
    from client.intake.limits import limit_memory, private_pipe  # noqa: PLC0415

    answers = private_pipe()
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    limit_memory(int(task["memory"]))
    try:
        answer: dict[str, Any] = {"changed": deface([Path(path) for path in task["files"]])}
    except FileRefused as refusal:
        answer = {"refused": refusal.rule}
    except OSError:
        answer = {"storage": True}
    answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
