"""Small multiples of an analysis: one panel for each hospital, all together as an outline behind it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from markupsafe import Markup

from common.pages.svg import Drawing, shortened
from server.analytics.distance import Row

_WIDTH: Final = 258.0
_LEFT: Final = 96.0
_ROW: Final = 17.0
_TOP: Final = 38.0
_COLOUR: Final = "#0060a8"
_NEUTRAL: Final = "#b9c4d0"


def shares(row: Row) -> Row:
    """Shares of the patients whose bin is known; NaN where it is not."""
    total = float(np.nansum(row))
    return row / total if total > 0 else row * math.nan


def panel(title: str, bins: tuple[str, ...], row: Row, whole: Row) -> Markup:
    """One hospital's distribution: a bar for each bin, a line where all together are.

    Args:
        title: the hospital.
        bins: their names, those with nobody anywhere left out by the caller.
        row: patients [bins], NaN where held back.
        whole: the same of all together.
    """
    mine, all_ = shares(row), shares(whole)
    most = max(0.25, float(np.nanmax(np.nan_to_num(np.array([mine, all_])))))
    height = _TOP + _ROW * len(bins) + 6
    told = ", ".join(
        f"{name} {'held back' if math.isnan(share) else f'{share:.0%}'}"
        for name, share in zip(bins, mine, strict=True)
    )
    drawing = Drawing(_WIDTH, height, f"{title}: {told}")
    drawing.text((0, 14), shortened(title, 34), "tb")
    drawing.text((0, 29), _patients(row), "ts")
    reach = _WIDTH - _LEFT - 40
    for number, name in enumerate(bins):
        top = _TOP + number * _ROW
        drawing.text((_LEFT - 6, top + 11), shortened(name, 15), "tick", "end")
        _bar(drawing, top, float(mine[number]), reach / most)
        if not math.isnan(all_[number]):
            at = _LEFT + float(all_[number]) * reach / most
            drawing.line((at, top), (at, top + _ROW - 3), "axis", stroke_width=2, style="stroke:#1b2430")
    return drawing.svg()


def divided(title: str, ill: float, well: float, whole: float) -> Markup:
    """One hospital's share of positives, and where that of all is.

    Args:
        title: the hospital.
        ill: patients who are positive.
        well: patients who are labelled and are not.
        whole: share of positives of all together.
    """
    share = ill / (ill + well) if ill + well > 0 else math.nan
    words = "held back" if math.isnan(share) else f"{share:.0%}"
    drawing = Drawing(_WIDTH, 62, f"{title}: {words} positive, all together {whole:.0%}")
    drawing.text((0, 14), shortened(title, 34), "tb")
    drawing.text((0, 29), f"about {ill + well:,.0f} labelled patients", "ts")
    drawing.rect((0, 38), (_WIDTH - 46, 15), "band")
    if not math.isnan(share):
        drawing.rect((0, 38), (share * (_WIDTH - 46), 15), "", fill=_COLOUR)
    drawing.line(
        (whole * (_WIDTH - 46), 35),
        (whole * (_WIDTH - 46), 56),
        "axis",
        style="stroke:#1b2430",
        stroke_width=2,
    )
    drawing.text((_WIDTH - 40, 50), words, "num")
    return drawing.svg()


def key() -> list[tuple[Markup, str]]:
    """What the marks mean."""
    bar, line = Drawing(18, 12, "bar"), Drawing(18, 12, "line")
    bar.rect((0, 1), (18, 10), "", fill=_COLOUR)
    line.line((9, 0), (9, 12), "axis", style="stroke:#1b2430", stroke_width=2)
    held = Drawing(18, 12, "held back")
    held.rect((0, 1), (18, 10), "", fill="none", stroke=_NEUTRAL, stroke_dasharray="2 2")
    return [
        (bar.svg(), "share of the patients shown here"),
        (line.svg(), "all together"),
        (held.svg(), "held back: too few, or what would tell too few"),
    ]


def _bar(drawing: Drawing, top: float, share: float, scale: float) -> None:
    if math.isnan(share):
        drawing.rect((_LEFT, top), (26, _ROW - 5), "", fill="none", stroke=_NEUTRAL, stroke_dasharray="2 2")
        return
    drawing.rect((_LEFT, top), (max(share * scale, 0.8), _ROW - 5), "", fill=_COLOUR)
    drawing.text((_LEFT + share * scale + 5, top + 10), f"{share:.0%}", "num")


def _patients(row: Row) -> str:
    return f"about {np.nansum(row):,.0f} patients shown"
