"""The words of what an analysis predicts, for people who read images and not tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from common.analytics import FIGURES
from server.analytics.distance import Row
from server.analytics.records import AnalysisRecord, Part

PEOPLE: Final = ("age", "sex")
LEAST_SHARE: Final = 0.02


@dataclass(frozen=True)
class Trouble:
    """One thing that will probably go wrong."""

    kind: str
    """`label-shift`, `shortcut`, `held`, `look`, `population` or `absent`."""
    where: str
    axis: str
    title: str
    seen: str
    will: str
    do: str
    p: float | None
    """Corrected; None where nothing was tested."""


def shortcut(part: Part, axis: str, word: str, seen: str) -> Trouble:
    """A machine or projection that goes with a label."""
    return Trouble(
        "shortcut",
        part.name,
        axis,
        f"One {word} carries one class at {part.name}",
        seen,
        f"A model can read the {word} from an image and answer by it instead of by the finding. It will look "
        f"right here and fail where {word} and disease go together otherwise.",
        f"Test within each {word}, not over all. Take more patients of the rare combination, or leave the "
        f"{word} out that has one class only; train with scanner augmentation or harmonised images.",
        None,
    )


def unlike(record: AnalysisRecord, part: Part, axis: str, mine: Row, theirs: Row) -> Trouble:
    """Patients or images of one part that are unlike those of the others."""
    seen = (
        f"Half of its patients lie {_middle(record, axis, mine)}, elsewhere {_middle(record, axis, theirs)}."
    )
    if axis in PEOPLE:
        return Trouble(
            "population",
            part.name,
            axis,
            f"Other patients at {part.name}: {axis}",
            seen
            if axis == "age"
            else f"{_shares(record, axis, mine)}; elsewhere {_shares(record, axis, theirs)}.",
            "Disease looks different in other patients, and a model that saw few of them is weaker there.",
            f"Report results by {axis}, and do not let one hospital be the only one with such patients.",
            None,
        )
    return Trouble(
        "look",
        part.name,
        axis,
        f"Images look different at {part.name}: {axis}",
        seen,
        "A network sees brightness, sharpness and noise before it sees disease. A shift of this size tells the "
        "hospital from the image, and results may drop where machines are like this one.",
        "Compare exposure and post-processing with the others. Normalise (input.normalisation), augment with "
        "scanner changes, and look at this hospital's results apart.",
        None,
    )


def most_unlike(record: AnalysisRecord, rows: Row, axis: str) -> str:
    """The bin whose share of the last label is furthest from that of the others."""
    bins = next(one.bins for one in record.axes if one.axis == axis)
    whole = rows[1:].sum() / max(rows.sum(), 1.0)
    share = {p: rows[1:, p].sum() / rows[:, p].sum() for p in range(rows.shape[1]) if rows[:, p].sum() > 0}
    worst = max(share, key=lambda place: abs(share[place] - whole) * rows[:, place].sum() ** 0.5)
    word = record.labels[1]
    return f"{share[worst]:.0%} of its patients with {axis} {bins[worst]} are {word}, {whole:.0%} of all."


def _middle(record: AnalysisRecord, axis: str, row: Row) -> str:
    """From the lower edge of the bin of the first quartile to the upper edge of that of the third."""
    bins = next(one.bins for one in record.axes if one.axis == axis)
    heap = np.cumsum(row) / max(row.sum(), 1.0)
    low, high = (bins[int(np.searchsorted(heap, share))] for share in (0.25, 0.75))
    if low == high:
        return f"in {low}"
    between = (low.split(" to ")[0], high.split(" to ")[-1]) if axis in FIGURES else (low, high)
    return f"between {between[0]} and {between[1]}"


def _shares(record: AnalysisRecord, axis: str, row: Row) -> str:
    bins = next(one.bins for one in record.axes if one.axis == axis)
    told = [
        f"{row[p] / row.sum():.0%} {name}" for p, name in enumerate(bins) if row[p] >= LEAST_SHARE * row.sum()
    ]
    return ", ".join(told[:3]) or "too few to say"
