"""Small drawings as inline SVG: elements that escape what they are given, scales, ticks, markers.

Lengths are in CSS pixels of the drawing's own box; the page scales the box, never the text alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A straight map from values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of `value`, held inside the plot."""
        span = self.high - self.low or 1.0
        share = min(max((value - self.low) / span, 0.0), 1.0)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between `low` and `high`, about `about` of them, steps of 1, 2 or 5 times 10^k."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel, without a trailing zero."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def element(name: str, content: str | Markup | None = None, /, **attributes: object) -> Markup:
    """One element; content and every attribute value are escaped (`class_` becomes `class`)."""
    parts = [Markup("<") + name]
    for key, value in attributes.items():
        shown = number(value) if isinstance(value, float) else str(value)
        parts.append(Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), shown))
    if content is None:
        return Markup("").join([*parts, Markup("/>")])
    return Markup("").join([*parts, Markup(">"), escape(content), Markup("</") + name + Markup(">")])


@dataclass
class Drawing:
    """A drawing under construction, `width` by `height` pixels, with a text for those who cannot see it."""

    width: float
    height: float
    alt: str
    parts: list[Markup] = field(default_factory=list)

    def add(self, name: str, content: str | Markup | None = None, /, **attributes: object) -> None:
        """Append one element."""
        self.parts.append(element(name, content, **attributes))

    def line(self, start: Point, end: Point, class_: str, **more: object) -> None:
        """A straight line."""
        self.add("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_, **more)

    def rect(self, corner: Point, size: Point, class_: str, **more: object) -> None:
        """A rectangle from its upper left corner; sizes below zero become zero."""
        wide, high = max(size[0], 0.0), max(size[1], 0.0)
        self.add("rect", x=corner[0], y=corner[1], width=wide, height=high, class_=class_, **more)

    def text(self, at: Point, words: str, class_: str = "t", anchor: str = "start", **more: object) -> None:
        """Words on a baseline; `anchor` is start, middle or end."""
        self.add("text", words, x=at[0], y=at[1], class_=class_, text_anchor=anchor, **more)

    def path(self, points: Sequence[Point | None], class_: str, **more: object) -> None:
        """A line through points; a None lifts the pen, so a missing value stays a gap."""
        commands, down = [], False
        for point in points:
            if point is None:
                down = False
                continue
            commands.append(f"{'L' if down else 'M'}{number(point[0])} {number(point[1])}")
            down = True
        if commands:
            self.add("path", d="".join(commands), class_=class_, fill="none", **more)

    def marker(self, at: Point, shape: str, colour: str, *, hollow: bool = False, size: float = 4.5) -> None:
        """A data point: circle, square, diamond or triangle, so that colour is never alone."""
        fill = "#fff" if hollow else colour
        style: dict[str, object] = {"fill": fill, "stroke": colour, "stroke_width": 1.6}
        if shape == "circle":
            self.add("circle", cx=at[0], cy=at[1], r=size, **style)
            return
        corners = {
            "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
            "diamond": ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
            "triangle": ((0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
        }[shape]
        points = " ".join(f"{number(at[0] + x * size)},{number(at[1] + y * size)}" for x, y in corners)
        self.add("polygon", points=points, **style)

    def svg(self, class_: str = "chart") -> Markup:
        """The finished drawing, announced to screen readers by its text."""
        box = f"0 0 {number(self.width)} {number(self.height)}"
        inner = element("title", self.alt) + Markup("").join(self.parts)
        return element(
            "svg",
            inner,
            class_=class_,
            viewBox=box,
            width=number(self.width),
            height=number(self.height),
            role="img",
            aria_label=self.alt,
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near `wanted`, at least `gap` apart where [low, high] has room, in the same order."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = [0.0] * len(wanted)
    cursor = low - gap
    for index in order:
        cursor = placed[index] = max(wanted[index], cursor + gap)
    cursor = high + gap
    for index in reversed(order):
        cursor = placed[index] = min(placed[index], cursor - gap)
    return placed


def shortened(words: str, most: int) -> str:
    """`words`, cut to `most` characters with an ellipsis."""
    return words if len(words) <= most else words[: most - 1] + "…"
