"""Pictures of one patient that stand under another one's name too, and what splits do about them.

A picture that two patients share, because a study was filed under two numbers or a public set was mixed
in, would train on what it is tested on, and its label would count for two people. Nobody can say from here
whose it is. So of such a group no image is used: it stays in the index, is counted in `status`, and is
left out of training, validation and test alike. A patient whose other images are used stays with those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from client.index_rows import ImageRow
from client.quality_hash import alike, groups

PROJECTIONS = frozenset({"CR", "DX", "MG", "RG", "PX"})
"""Modalities compared: one picture is one examination. Slices of two patients may well be alike."""


def twins(rows: Iterable[ImageRow]) -> list[list[ImageRow]]:
    """Groups of radiographs that are the same picture under at least two patients.

    Args:
        rows: images of one site; those without a hash, and slices, are like nothing.

    Returns:
        each group by patient and UID, and the groups in that order too.
    """
    some = sorted(
        (row for row in rows if row.modality in PROJECTIONS), key=lambda row: (row.patient, row.sop_uid)
    )
    pairs = alike([row.perceptual_hash for row in some], [row.patient for row in some])
    return [[some[place] for place in group] for group in groups(pairs)]


def without_twins(rows: Sequence[ImageRow]) -> list[ImageRow]:
    """The images that belong to one patient only, in the order given."""
    shared = {row.sop_uid for group in twins(rows) for row in group}
    return [row for row in rows if row.sop_uid not in shared]
