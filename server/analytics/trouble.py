"""What an analysis predicts: where a model will probably go wrong, why, and what can be done; in words for people.

All tests of one analysis are corrected together, so that in one of twenty at most something is named that is not there.
A difference must be large enough to matter, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.analytics import FIGURES, OTHER, SEVERAL, UNKNOWN, UNLABELLED
from server.analytics.distance import (
    Judged,
    Row,
    against,
    divergence,
    filled,
    holm,
    judged,
    labels_of,
    prevalence,
    spread_of,
    table_of,
)
from server.analytics.records import AnalysisRecord, Part

LEVEL: Final = 0.05
LEAST_SHIFT: Final = 0.05
"""Of prevalence: five points."""
LEAST_V: Final = 0.15
LEAST_DISTANCE: Final = 0.05
"""Bits of Jensen-Shannon divergence."""
LEAST_SHARE: Final = 0.02
_MANY: Final = 3
"""A label is one of many patients where it has this many times the smallest cell."""
_CARRIERS: Final = {"manufacturer": "machine", "projection": "projection"}
_LOOK: Final = tuple(FIGURES)
_PEOPLE: Final = ("age", "sex")
_GROUPS: Final = ("sex", "age", "projection", "manufacturer")


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


@dataclass(frozen=True)
class _Look:
    """One test, and the words it has where it is found."""

    test: Judged
    large: bool
    trouble: Trouble


def predicted(record: AnalysisRecord) -> tuple[Trouble, ...]:
    """Everything that this analysis warns of, the gravest kinds first."""
    looks = [*_labels(record), *_carried(record), *_looks(record, _LOOK), *_looks(record, _PEOPLE)]
    corrected = holm([one.test.p for one in looks])
    found = [
        Trouble(**{**vars(one.trouble), "p": p})
        for one, p in zip(looks, corrected, strict=True)
        if p < LEVEL and one.large
    ]
    return (*found, *_held(record), *_absent(record))


def looks_made(record: AnalysisRecord) -> int:
    """How many tests the correction is over."""
    return len([*_labels(record), *_carried(record), *_looks(record, _LOOK), *_looks(record, _PEOPLE)])


def _labels(record: AnalysisRecord) -> Iterator[_Look]:
    for part, others in _each(record):
        if not record.positive:
            return
        mine, theirs = prevalence(record, [part]), prevalence(record, others)
        if min(sum(mine), sum(theirs)) <= 0:
            continue
        test = judged(np.array([mine, theirs]), _noise(record, part, others, len(record.labels)))
        if test is None:
            continue
        here, there = mine[0] / sum(mine), theirs[0] / sum(theirs)
        yield _Look(
            test,
            abs(here - there) >= LEAST_SHIFT,
            Trouble(
                "label-shift",
                part.name,
                "label",
                f"Label shift at {part.name}",
                f"{here:.0%} of its labelled patients are positive, {there:.0%} elsewhere.",
                "A model may learn that this hospital's images look ill, and score all of them "
                f"{'higher' if here > there else 'lower'}; one threshold for all will not fit.",
                "Ask how its patients were chosen and labelled. Set the threshold for each hospital, look at "
                "calibration there, and give every site's own result beside the mean.",
                None,
            ),
        )


def _carried(record: AnalysisRecord) -> Iterator[_Look]:
    kept = [place for place, name in enumerate(record.labels) if name != UNLABELLED]
    for axis, word in _CARRIERS.items():
        tables = filled(record, axis)
        for part in record.parts:
            if part.name not in tables or len(kept) < 2 or _unseen(record, part, axis):
                continue
            rows = tables[part.name][kept]
            noise = None if not part.noisy else np.full(len(kept), (record.noise or 0.0) ** 2)
            test = judged(rows, noise)
            if test is not None:
                seen = f"{_most_unlike(record, rows, axis)} Strength {test.size:.2f} (Cramér's V; 0 none, 1 complete)."
                yield _Look(test, test.size >= LEAST_V, _shortcut(part, axis, word, seen))


def _shortcut(part: Part, axis: str, word: str, seen: str) -> Trouble:
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


def _unseen(record: AnalysisRecord, part: Part, axis: str) -> bool:
    """Whether a label that many patients have is held back in every bin of this axis."""
    table = table_of(part, axis)
    many = labels_of(part) >= _MANY * record.min_cell
    return table is not None and any(m and np.isnan(row).all() for m, row in zip(many, table, strict=True))


def _held(record: AnalysisRecord) -> Iterator[Trouble]:
    """Where a table cannot be judged because some of its cells are small while its labels are not."""
    for axis, word in _CARRIERS.items():
        for part in record.parts:
            if _unseen(record, part, axis):
                told = f"Many patients there have the label, and hardly any with some {word}: the cells by {word} are held back."
                trouble = _shortcut(part, axis, word, told)
                yield Trouble(
                    **{
                        **vars(trouble),
                        "kind": "held",
                        "title": f"Perhaps one {word} carries one class at {part.name}",
                    }
                )


def _looks(record: AnalysisRecord, axes: tuple[str, ...]) -> Iterator[_Look]:
    for axis in axes:
        compared = against(record, axis)
        for part in record.parts:
            if part.name not in compared:
                continue
            mine, theirs = compared[part.name]
            others = [one for one in record.parts if one is not part]
            test = judged(np.array([mine, theirs]), _noise(record, part, others, len(record.labels)))
            if test is not None:
                large = divergence(mine, theirs) >= LEAST_DISTANCE
                yield _Look(test, large, _unlike(record, part, axis, mine, theirs))


def _unlike(record: AnalysisRecord, part: Part, axis: str, mine: Row, theirs: Row) -> Trouble:
    seen = (
        f"Half of its patients lie {_middle(record, axis, mine)}, elsewhere {_middle(record, axis, theirs)}."
    )
    if axis in _PEOPLE:
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


def _absent(record: AnalysisRecord) -> Iterator[Trouble]:
    """Groups of which hardly anybody is anywhere; all of one attribute together."""
    for axis in record.axes:
        found = [row for part in record.parts if (row := spread_of(part, axis.axis)) is not None]
        if axis.axis not in _GROUPS or not found:
            continue
        known, hidden = np.nansum(found, axis=0), np.isnan(found).any(axis=0)
        rare = [
            name
            for place, name in enumerate(axis.bins)
            if name not in (UNKNOWN, OTHER, SEVERAL, "O")
            and (0 < known[place] < LEAST_SHARE * known.sum())
            | bool(known[place] == 0 and hidden[place] and axis.axis != "projection")
        ]
        if rare:
            yield Trouble(
                "absent",
                "everywhere",
                axis.axis,
                f"Nearly nobody with {axis.axis} {', '.join(rare)}",
                f"Each is below {LEAST_SHARE:.0%} of all patients, or too few to be shown at any hospital.",
                "Nothing can be learned about them, and nothing measured: a good mean says nothing of these groups.",
                "Do not use the model for them and say so in its intended use, or find a hospital that has them.",
                None,
            )


def _each(record: AnalysisRecord) -> Iterator[tuple[Part, list[Part]]]:
    for part in record.parts:
        others = [one for one in record.parts if one is not part and labels_of(one).sum() > 0]
        if others and labels_of(part).sum() > 0:
            yield part, others


def _noise(record: AnalysisRecord, part: Part, others: list[Part], labels: int) -> Row | None:
    """Variance that noise adds to one bin of all labels, of a part and of the others."""
    variance = (record.noise or 0.0) ** 2 * labels
    rows = [variance * part.noisy, variance * sum(one.noisy for one in others)]
    return np.array(rows) if any(rows) else None


def _most_unlike(record: AnalysisRecord, rows: Row, axis: str) -> str:
    """The bin whose share of the last label is furthest from that of the others."""
    bins = next(one.bins for one in record.axes if one.axis == axis)
    whole = rows[1:].sum() / max(rows.sum(), 1.0)
    share = {p: rows[1:, p].sum() / rows[:, p].sum() for p in range(rows.shape[1]) if rows[:, p].sum() > 0}
    worst = max(share, key=lambda place: abs(share[place] - whole) * rows[:, place].sum() ** 0.5)
    word = record.labels[1]
    return f"{share[worst]:.0%} of its patients with {axis} {bins[worst]} are {word}, {whole:.0%} of all."


def _middle(record: AnalysisRecord, axis: str, row: Row) -> str:
    """The bins between the quartiles."""
    bins = next(one.bins for one in record.axes if one.axis == axis)
    heap = np.cumsum(row) / max(row.sum(), 1.0)
    low, high = (bins[int(np.searchsorted(heap, share))] for share in (0.25, 0.75))
    return f"in {low}" if low == high else f"from {low} to {high}"


def _shares(record: AnalysisRecord, axis: str, row: Row) -> str:
    bins = next(one.bins for one in record.axes if one.axis == axis)
    told = [
        f"{row[p] / row.sum():.0%} {name}" for p, name in enumerate(bins) if row[p] >= LEAST_SHARE * row.sum()
    ]
    return ", ".join(told[:3]) or "too few to say"
