"""From a template and values to one self-contained HTML file; and the formats numbers are shown in."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from common.errors import StorageError
from common.messages import Estimate

MINUS = "\u2212"
DASH = "\u2013"
NOTHING = "\u2014"

Value = str | int | float | None


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is shown, and how (`number`, `weak`, `muted`, `good` or nothing)."""

    text: str
    style: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table: the first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    csv: str = ""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One drawing, wide and narrow, with its title, what to see in it, and its numbers as a link."""

    title: str
    wide: Markup
    narrow: Markup | None = None
    patients: str = ""
    note: str = ""
    csv: str = ""


def two(value: float | None) -> str:
    """A share or an area to two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def signed(value: float | None) -> str:
    """A difference to three decimals, always with its sign."""
    return NOTHING if value is None else f"{value:+.3f}".replace("-", MINUS)


def estimate(value: Estimate | None) -> str:
    """`0.91 (0.87-0.95)`, or a dash where nothing was released."""
    return NOTHING if value is None else f"{two(value.value)} ({two(value.low)}{DASH}{two(value.high)})"


def difference(value: Estimate | None) -> str:
    """`+0.012 (-0.010 to +0.034)`, or a dash where nothing was released."""
    if value is None:
        return NOTHING
    return f"{signed(value.value)} ({signed(value.low)} to {signed(value.high)})"


def count(value: int | None, least: int = 11) -> str:
    """A count, or the bound below which it was held back."""
    return f"<{least}" if value is None else f"{value:,}"


def moment(iso: str) -> str:
    """`1 January 2025, 10:00 UTC` from ISO 8601; what cannot be read is shown as it stands."""
    try:
        at = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    utc = at.astimezone(UTC) if at.tzinfo else at
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def csv_uri(header: Sequence[str], rows: Iterable[Sequence[Value]]) -> str:
    """A `data:` address of the numbers as CSV; text that a spreadsheet would run is disarmed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_disarmed(name) for name in header])
    writer.writerows([_disarmed(value) for value in row] for row in rows)
    return "data:text/csv;charset=utf-8," + quote(buffer.getvalue())


def _disarmed(value: Value) -> Value:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def render(template: str, folder: Path, values: dict[str, object]) -> str:
    """Fill `template` of `folder`; everything is escaped unless it is already markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def write_whole(text: str, path: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        StorageError: when the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".page-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        raise StorageError(
            path.name, "the report cannot be written", "Check free space and rights of its folder"
        ) from None
