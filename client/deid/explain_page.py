"""The profile against the standard as one page: a picture of the counts, and every attribute, to search."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from client.deid.explain import TREATMENTS, Line
from client.deid.methods import MEANINGS
from client.deid.profile import Profile
from client.deid.standard import EDITION, OPTION_CODES
from common.pages.page import Cell, Figure, csv_uri, render, write_whole
from common.pages.svg import Drawing

_COLOURS: Final = {
    "removed": "#00684a",
    "replaced": "#0060a8",
    "emptied": "#6f9fc8",
    "shifted": "#c98a1b",
    "generalised": "#8a5a00",
    "kept": "#55606e",
}
_ALL: Final = "all"
_WHEN: Final = {
    "113101": ": when text was looked for and something was blanked",
    "113102": ": when the face was removed from a head MR",
}
"""Codes that depend on the image, and when it carries them."""
_SCRIPT: Final = """
(() => {
  const find = document.getElementById('find'), words = document.getElementById('words');
  const rows = [...document.querySelectorAll('#all tbody tr')], buttons = [...find.querySelectorAll('button')];
  const text = rows.map(row => row.textContent.toLowerCase());
  let choice = 'all';
  const fits = row => choice === 'all' || row.dataset.treatment === choice
    || (choice === 'not in the table' && row.dataset.table === 'no')
    || (choice === 'by an option' && row.dataset.verdict.startsWith('option'));
  const show = () => {
    const asked = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, at) => {
      row.hidden = !(fits(row) && asked.every(word => text[at].includes(word)));
      count += row.hidden ? 0 : 1;
    });
    document.getElementById('shown').textContent = count + ' of ' + rows.length;
    buttons.forEach(button => button.setAttribute('aria-pressed', String(button.dataset.choice === choice)));
  };
  buttons.forEach(button => button.addEventListener('click', () => { choice = button.dataset.choice; show(); }));
  words.addEventListener('input', show);
  find.classList.add('on');
  words.value = decodeURIComponent(location.hash.slice(1));
  show();
})();
"""
"""Hides rows; without it the page shows them all. Its digest stands in the page's policy, so no other may run."""


def write_page(lines: Sequence[Line], profile: Profile, whose: str, path: Path) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        StorageError: when the file cannot be written.
    """
    write_whole(page(lines, profile, whose), path)


def page(lines: Sequence[Line], profile: Profile, whose: str) -> str:
    """The page as text."""
    inside = [line for line in lines if line.basic]
    looser = [line.attribute for line in inside if line.verdict == "LOOSER"]
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    values: dict[str, object] = {
        "whose": whose,
        "edition": EDITION,
        "digest": profile.digest,
        "lines": lines,
        "looser": looser,
        "verdict": f"Looser than the standard: {', '.join(looser)}" if looser else _GOOD,
        "summary": _summary(inside),
        "cards": _cards(lines),
        "figure": _figure(lines),
        "codes": [(code, MEANINGS[code] + _WHEN.get(code, "")) for code in _codes(profile)],
        "choices": (_ALL, *TREATMENTS, "by an option", "not in the table"),
        "script": Markup(_SCRIPT),  # noqa: S704 (a constant of this module)
        "script_hash": f"sha256-{digest}",
    }
    return render("explain.html", Path(__file__).parent, values)


_GOOD: Final = (
    "Nothing that the basic profile removes or replaces is kept, unless an option of the standard allows it"
)


def _codes(profile: Profile) -> list[str]:
    optional = {code: option in profile.options for option, code in OPTION_CODES.items()}
    done = {"113101": profile.searched, "113102": profile.defaces}
    return [code for code in MEANINGS if {**optional, **done}.get(code, True)]


def _summary(inside: Sequence[Line]) -> str:
    count = Counter(line.verdict for line in inside)
    by_option = sum(n for verdict, n in count.items() if verdict.startswith("option"))
    return (
        f"Of {len(inside)} rows of the standard's table, {count['stricter']} are treated more strictly than the basic "
        f"profile demands, {count['as strict']} as strictly, and {by_option} more loosely, each under an option that "
        "the standard has for it."
    )


def _cards(lines: Sequence[Line]) -> list[Cell]:
    count = Counter(line.treatment for line in lines)
    return [Cell(f"{count[name]:,}", note=name) for name in TREATMENTS]


def _figure(lines: Sequence[Line]) -> Figure:
    bars = {
        "in the standard's table": Counter(line.treatment for line in lines if line.basic),
        "beside it": Counter(line.treatment for line in lines if not line.basic),
    }
    rows = [(name, treatment, count[treatment]) for name, count in bars.items() for treatment in TREATMENTS]
    return Figure(
        "Attributes by treatment",
        _bars(bars, 1070.0, 230.0),
        _bars(bars, 360.0, 0.0),
        note="Beside the table stand technical attributes: layout of the pixels, exposure, geometry.",
        csv=csv_uri(("where", "treatment", "attributes"), rows),
    )


def _bars(bars: dict[str, Counter[str]], width: float, left: float) -> Markup:
    """One bar for each group, divided by treatment; labels stand left of the bar, or above it when left is 0."""
    above = 0.0 if left else 20.0
    step = 46.0 + above
    text = "; ".join(
        f"{name}: " + ", ".join(f"{count[t]} {t}" for t in TREATMENTS if count[t])
        for name, count in bars.items()
    )
    each_row = 3 if left == 0 else 6
    drawing = Drawing(width, step * len(bars) + 26.0 * (6 // each_row), text)
    for at, (name, count) in enumerate(bars.items()):
        top, total = at * step + above, sum(count.values()) or 1
        drawing.text((0, top + (-5 if above else 21)), f"{name} ({total})", "tb")
        start = left
        for treatment in TREATMENTS:
            size = (width - left) * count[treatment] / total
            drawing.rect((start, top), (size, 30), "seg", fill=_COLOURS[treatment])
            if size > 34:
                drawing.text(
                    (start + size / 2, top + 20), str(count[treatment]), "t", "middle", style="fill:#fff"
                )
            start += size
    _key(drawing, left, step * len(bars), each_row)
    return drawing.svg()


def _key(drawing: Drawing, left: float, top: float, each_row: int) -> None:
    for at, treatment in enumerate(TREATMENTS):
        x, y = left + (at % each_row) * 118.0, top + (at // each_row) * 26.0
        drawing.rect((x, y), (13, 13), "seg", fill=_COLOURS[treatment])
        drawing.text((x + 19, y + 11), treatment, "ts")
