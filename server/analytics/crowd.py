"""How very many hospitals are drawn: one mark for each in a common picture, and by name only those that stand out.

`funnel`  share of positives by size, inside the limits of chance (funnel plot: Spiegelhalter, Statistics in Medicine 24, 2005)
`strips`  a line for each attribute, a mark for each hospital, where its distance from all others lies
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup

from common.pages.svg import Drawing, Scale, shortened, spread, ticks

MANY: Final = 16
"""Parts above which pages draw them together, and one by one no more than these."""
WIDE: Final = 930.0
NARROW: Final = 372.0
LIMITS: Final = (1.96, 3.09)
"""Standard deviations of 95% and 99.8%."""
_NAMED: Final = 10
_CURVE: Final = 60
_PLAIN: Final = "#0060a8"
_FAR: Final = "#b00020"
_STRIP: Final = 44.0

Share = tuple[str, float, int]
"""Part, share of positives, labelled patients."""
Distance = tuple[float, float]
"""Divergence in bits, and what chance alone gives; NaN where nothing is known."""


def order_of(distances: Mapping[str, Distance]) -> list[str]:
    """Parts by how far they are beyond what chance gives, the furthest first; unknown ones are left out."""
    known = {name: found - chance for name, (found, chance) in distances.items() if not math.isnan(found)}
    return sorted(known, key=lambda name: (-known[name], name))


def outside(one: Share, whole: float, limit: float) -> bool:
    """Whether a share is further from that of all than so many standard deviations of a sample of its size."""
    _, share, count = one
    return abs(share - whole) > limit * math.sqrt(whole * (1 - whole) / count)


def funnel(shares: Sequence[Share], whole: float, width: float) -> Markup:
    """Share of positives by number of labelled patients, a mark for each part.

    Args:
        shares: of every part with labelled patients; at least one.
        whole: the share of all together.
        width: `WIDE` or `NARROW`.
    """
    low, high = (bound(one[2] for one in shares) for bound in (min, max))
    across = Scale(
        math.log10(low) - 0.05, math.log10(high) + 0.05, 46, width - (130 if width > NARROW else 8)
    )
    top = max(min(1.0, max(one[1] for one in shares) + 0.05), 0.2)
    up = Scale(0.0, top, 290, 14)
    far = [one for one in shares if outside(one, whole, LIMITS[1])]
    drawing = Drawing(
        width, 336, f"Funnel plot of {len(shares)} hospitals: {len(far)} lie outside the limits of 99.8%"
    )
    _axes(drawing, across, up, (low, high))
    for limit, style in zip(LIMITS, ("5 4", ""), strict=True):
        for sign in (-1, 1):
            drawing.path(_limit(across, up, whole, sign * limit), "axis", stroke_dasharray=style or "none")
    drawing.line((across.start, up(whole)), (across.end, up(whole)), "axis", style="stroke:#1b2430")
    for one in sorted(shares, key=lambda one: one in far):
        at = across(math.log10(one[2])), up(one[1])
        drawing.marker(at, "diamond" if one in far else "circle", _FAR if one in far else _PLAIN, size=3.4)
    if width > NARROW:
        _named(drawing, far, whole, (across, up))
    return drawing.svg()


def strips(rows: Sequence[tuple[str, Mapping[str, Distance]]], width: float) -> Markup:
    """How far every part is from all others: a line for each attribute.

    Args:
        rows: the attribute's title, and the distance of every part.
        width: as `funnel`.
    """
    known = [found for _, row in rows for found, _ in row.values() if not math.isnan(found)]
    most = max([0.05, *known])
    along = Scale(0.0, math.sqrt(most), 8, width - 12)
    drawing = Drawing(
        width, _STRIP * len(rows) + 26, "Distance of every hospital from all others, by attribute"
    )
    for number, (title, row) in enumerate(rows):
        base = _STRIP * number + 34
        beyond = [name for name in order_of(row) if row[name][0] > row[name][1]]
        told = f"{len(beyond)} of {sum(not math.isnan(found) for found, _ in row.values())}"
        told += " beyond chance" if width > NARROW else ""
        drawing.text(
            (8, base - 20), title if width > NARROW else shortened(title.partition(":")[0], 30), "tb"
        )
        drawing.text((width - 12, base - 20), told, "ts", "end")
        drawing.line((along.start, base), (along.end, base), "axis")
        for name in reversed(order_of(row)):
            at, far = (along(math.sqrt(max(row[name][0], 0.0))), base), row[name][0] > row[name][1]
            drawing.marker(
                at, "diamond" if far else "circle", _FAR if far else _PLAIN, hollow=not far, size=3.0
            )
        if beyond and row[beyond[0]][0] > 0.25 * most:
            drawing.text(
                (along(math.sqrt(row[beyond[0]][0])) - 7, base - 6), shortened(beyond[0], 24), "ts", "end"
            )
    for value in _bits(most):
        drawing.text((along(math.sqrt(value)), drawing.height - 4), f"{value:g}", "tick", "middle")
    return drawing.svg()


def _bits(most: float) -> list[float]:
    """Where the axis of roots is labelled."""
    return [0.0, *(value for value in (0.01, 0.05, 0.1, 0.2, 0.5, 1.0) if value <= most)]


def _axes(drawing: Drawing, across: Scale, up: Scale, reach: tuple[float, float]) -> None:
    for share in ticks(0.0, up.high, 5):
        drawing.line((across.start, up(share)), (across.end, up(share)), "gridline")
        drawing.text((across.start - 6, up(share) + 4), f"{share:.0%}", "tick", "end")
    low, high = reach
    steps = [m * 10**power for power in range(8) for m in (1, 2, 5)]
    for count in [one for one in steps if low <= one <= high] or [round(low)]:
        drawing.text((across(math.log10(count)), up.start + 18), f"{count:,}", "tick", "middle")
    drawing.text(((across.start + across.end) / 2, up.start + 38), "labelled patients", "ts", "middle")


def _limit(across: Scale, up: Scale, whole: float, deviations: float) -> list[tuple[float, float] | None]:
    """One limit, left to right, not drawn where no share can be."""
    found: list[tuple[float, float] | None] = []
    for step in range(_CURVE + 1):
        log = across.low + (across.high - across.low) * step / _CURVE
        share = whole + deviations * math.sqrt(whole * (1 - whole) / 10**log)
        found.append((across(log), up(share)) if up.low <= share <= up.high else None)
    return found


def _named(drawing: Drawing, far: Sequence[Share], whole: float, scales: tuple[Scale, Scale]) -> None:
    """The names of those furthest outside, at the right, each with a line to its mark."""
    across, up = scales
    worst = sorted(far, key=lambda one: -abs(one[1] - whole) * math.sqrt(one[2]))[:_NAMED]
    places = spread([up(one[1]) for one in worst], 15, up.end, up.start)
    for one, place in zip(worst, places, strict=True):
        drawing.line((across(math.log10(one[2])) + 5, up(one[1])), (across.end + 8, place), "gridline")
        drawing.text((across.end + 11, place + 4), shortened(f"{one[0]} {one[1]:.0%}", 20), "ts")
