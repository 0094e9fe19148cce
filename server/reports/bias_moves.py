"""How far a patient's score moves from machine to machine, as a square of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from common.pages.page import Figure, csv_uri, signed
from common.pages.svg import Drawing, shortened
from server.records_bias import Probe

_UP: Final = (213, 94, 0)
_DOWN: Final = (0, 114, 178)
_FULL: Final = 0.3
"""Change of a probability that is drawn in full colour."""


def moves_figure(probes: Sequence[Probe]) -> Figure:
    """The picture: rows are the machine a patient is taken from, columns the one they are imaged on instead."""
    names = sorted({p.source for p in probes} | {p.subject for p in probes})
    known = {(p.source, p.subject): p for p in probes}
    said = "; ".join(f"from {p.source} to {p.subject} {signed(p.figure.value)}" for p in probes)
    alt = f"Mean change of the score of the same patients. {said}."
    return Figure(
        "How far the score of the same patient moves",
        _square(names, known, alt, (150.0, 120.0, 46.0)),
        _square(names, known, alt, (86.0, 70.0, 44.0)),
        patients=f"{max(p.patients for p in probes):,} virtual patients; mean changes of the probability.",
        note="Row: the machine a patient is taken from. Column: the machine on which the same patient is imaged instead.",
        csv=csv_uri(
            ("from", "to", "change", "low", "high", "patients"),
            [(p.source, p.subject, p.figure.value, p.figure.low, p.figure.high, p.patients) for p in probes],
        ),
    )


def _square(
    names: list[str], known: dict[tuple[str, str], Probe], alt: str, size: tuple[float, float, float]
) -> Markup:
    left, wide, high = size
    drawing = Drawing(left + wide * len(names) + 4, 30 + high * len(names) + 4, alt)
    letters = int(wide / 6.6)
    for column, name in enumerate(names):
        drawing.text((left + wide * (column + 0.5), 20.0), shortened(name, letters), "ts", "middle")
    for row, source in enumerate(names):
        y = 30 + high * row
        drawing.text((0.0, y + high / 2 + 4), shortened(source, int(left / 6.6)), "ts")
        for column, target in enumerate(names):
            x, probe = left + wide * column, known.get((source, target))
            value = round(probe.figure.value, 3) + 0.0 if probe else 0.0
            drawing.add(
                "rect",
                x=x,
                y=y,
                width=wide - 3,
                height=high - 3,
                rx=3,
                fill=_colour(value, own=probe is None),
            )
            words = "same" if probe is None else signed(value)
            drawing.text(
                (x + wide / 2 - 1.5, y + high / 2 + 3), words, "ts" if probe is None else "num", "middle"
            )
    return drawing.svg("chart moves")


def _colour(value: float, *, own: bool) -> str:
    if own:
        return "#f4f6f8"
    share = min(abs(value) / _FULL, 1.0) * 0.6
    mixed = (round(255 - (255 - part) * share) for part in (_UP if value > 0 else _DOWN))
    return "#" + "".join(f"{part:02x}" for part in mixed)
