"""What an analysis predicts: where a model will probably go wrong, why, and what can be done; in words for people.

All tests of one analysis are corrected together, so that in one of twenty at most something is named that is not there.
A difference must be large enough to matter, too.
"""

from __future__ import annotations

import math
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
    holm,
    judged,
    labels_of,
    prevalence,
    spread_of,
    table_of,
)
from server.analytics.records import AnalysisRecord, Part
from server.analytics.words import LEAST_SHARE, PEOPLE, Trouble, most_unlike, shortcut, unlike

LEVEL: Final = 0.05
LEAST_SHIFT: Final = 0.05
"""Of prevalence: five points."""
LEAST_V: Final = 0.15
LEAST_DISTANCE: Final = 0.05
"""Bits of Jensen-Shannon divergence."""
_CLEAR: Final = 4.0
"""Standard deviations of noise above which a bin is one of patients."""
_MANY: Final = 3
"""A label is one of many patients where it has this many times the smallest cell."""
_CARRIERS: Final = {"manufacturer": "machine", "projection": "projection"}
_LOOK: Final = tuple(FIGURES)
_GROUPS: Final = ("sex", "age", "projection", "manufacturer")


@dataclass(frozen=True)
class _Look:
    """One test, and the words it has where it is found."""

    test: Judged
    large: bool
    trouble: Trouble


def predicted(record: AnalysisRecord) -> tuple[Trouble, ...]:
    """Everything that this analysis warns of, the gravest kinds first."""
    looks = [*_labels(record), *_carried(record), *_looks(record, _LOOK), *_looks(record, PEOPLE)]
    corrected = holm([one.test.p for one in looks])
    found = [
        Trouble(**{**vars(one.trouble), "p": p})
        for one, p in zip(looks, corrected, strict=True)
        if p < LEVEL and one.large
    ]
    return (*found, *_held(record), *_absent(record))


def looks_made(record: AnalysisRecord) -> int:
    """How many tests the correction is over."""
    return len([*_labels(record), *_carried(record), *_looks(record, _LOOK), *_looks(record, PEOPLE)])


def _labels(record: AnalysisRecord) -> Iterator[_Look]:
    if not record.positive:
        return
    rows = {part.name: np.array(prevalence(record, [part])) for part in record.parts}
    for part, mine, theirs, test in _each(record, rows):
        here, there = mine[0] / mine.sum(), theirs[0] / theirs.sum()
        more = here > there
        yield _Look(
            test,
            bool(abs(here - there) >= LEAST_SHIFT),
            Trouble(
                "label-shift",
                part.name,
                "label",
                f"Label shift at {part.name}",
                f"{here:.0%} of its labelled patients are positive, {there:.0%} elsewhere.",
                f"A model may learn that images of this hospital are {'ill' if more else 'healthy'} by where they come from, "
                f"and score them {'higher' if more else 'lower'}; one threshold for all will not fit.",
                "Ask how its patients were chosen and labelled. Set the threshold for each hospital, look at "
                "calibration there, and give every site's own result beside the mean.",
                None,
            ),
        )


def _carried(record: AnalysisRecord) -> Iterator[_Look]:
    kept = [place for place, name in enumerate(record.labels) if name != UNLABELLED]
    for axis, word in _CARRIERS.items():
        for part in record.parts:
            table = table_of(part, axis)
            if table is None or len(kept) < 2:
                continue
            # Bins that every label tells: what is hidden of one label only must not look like a difference.
            rows = np.where(np.isnan(table[kept]).any(axis=0), 0.0, table[kept])
            noise = None
            if part.noisy:
                # A bin that could be noise alone is left out: what was below 0 in it was cut off, which shifts the rest.
                noise = np.full(len(kept), (record.noise or 0.0) ** 2)
                rows = np.where(rows.sum(axis=0) >= _CLEAR * math.sqrt(noise.sum()), rows, 0.0)
            test = judged(rows, noise)
            if test is not None:
                seen = f"{most_unlike(record, rows, axis)} Strength {test.size:.2f} (Cramér's V; 0 none, 1 complete)."
                yield _Look(test, test.size >= LEAST_V, shortcut(part, axis, word, seen))


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
                trouble = shortcut(part, axis, word, told)
                yield Trouble(
                    **{
                        **vars(trouble),
                        "kind": "held",
                        "title": f"Perhaps one {word} carries one class at {part.name}",
                    }
                )


def _looks(record: AnalysisRecord, axes: tuple[str, ...]) -> Iterator[_Look]:
    for axis in axes:
        rows = {name: mine for name, (mine, _) in against(record, axis).items()}
        for part, mine, theirs, test in _each(record, rows):
            large = divergence(mine, theirs) >= LEAST_DISTANCE
            yield _Look(test, large, unlike(record, part, axis, mine, theirs))


def _absent(record: AnalysisRecord) -> Iterator[Trouble]:
    """Groups of which hardly anybody is anywhere; all of one attribute together."""
    for axis in record.axes:
        found = [row for part in record.parts if (row := spread_of(part, axis.axis)) is not None]
        if axis.axis not in _GROUPS or not found:
            continue
        stack = np.array(found)
        known, hidden = np.nansum(stack, axis=0), [bool(np.isnan(column).any()) for column in stack.T]
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


def _each(record: AnalysisRecord, rows: dict[str, Row]) -> Iterator[tuple[Part, Row, Row, Judged]]:
    """Each part against all others, the one that is furthest from them first.

    Where one is far from the others, they are not compared with it any more: else whoever is like everybody would seem
    unlike, because of that one.

    Args:
        record: of the analysis.
        rows: patients by bin of each part.
    """
    left = {part.name: part for part in record.parts if part.name in rows and rows[part.name].sum() > 0}
    done: set[str] = set()
    far: dict[str, float] = {}
    while len(left) > 1 and len(done) < len(left):
        whole = np.sum([rows[name] for name in left], axis=0)
        # Distances change with who is left, and with nothing else.
        far = far or {one: divergence(rows[one], np.maximum(whole - rows[one], 0.0)) for one in left}
        name = max((one for one in left if one not in done), key=far.__getitem__)
        others = [part for other, part in left.items() if other != name]
        mine, theirs = rows[name], np.maximum(whole - rows[name], 0.0)
        test = judged(np.array([mine, theirs]), _noise(record, left[name], others))
        done.add(name)
        if test is not None:
            yield left[name], mine, theirs, test
            if test.p < LEVEL and (far[name] >= LEAST_DISTANCE or _shifted(mine, theirs)):
                del left[name]
                done.discard(name)
                far = {}


def _shifted(mine: Row, theirs: Row) -> bool:
    """Whether two rows of two numbers differ in their share by as much as matters."""
    return len(mine) == 2 and bool(abs(mine[0] / mine.sum() - theirs[0] / theirs.sum()) >= LEAST_SHIFT)


def _noise(record: AnalysisRecord, part: Part, others: list[Part]) -> Row | None:
    """Variance that noise adds to one bin of all labels, of a part and of the others."""
    variance = (record.noise or 0.0) ** 2 * len(record.labels)
    rows = [variance * part.noisy, variance * sum(one.noisy for one in others)]
    return np.array(rows) if any(rows) else None
