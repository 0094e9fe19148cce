"""The list of accession numbers to pull: a column of a label table, or one number a line."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final

from client.intake.labels import MAX_TABLE_BYTES
from common.errors import LabelError

_COLUMN: Final = "accession"
_LONGEST: Final = 16
"""Characters of the value representation SH (PS3.5 6.2)."""


def read_accessions(path: Path) -> tuple[str, ...]:
    """The numbers in the order of the lines, each once.

    Raises:
        LabelError: the file cannot be read, is empty, or a line holds what is no accession number; with its line,
            never with what stands in it.
    """
    text = _text(path)
    first = text.split("\n", 1)[0]
    columns = [cell.strip().strip('"').casefold() for cell in first.split(",")]
    if _COLUMN in columns:
        numbers = _column(path.name, text)
    else:
        numbers = [(line, cell.strip()) for line, cell in enumerate(text.splitlines(), 1)]
    found: dict[str, None] = {}
    for line, number in numbers:
        if number:
            found[_checked(path.name, line, number)] = None
    if not found:
        raise LabelError(
            path.name, "it holds no accession number", "Write one a line", code="accessions-empty"
        )
    return tuple(found)


def _column(name: str, text: str) -> list[tuple[int, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        reader.fieldnames = [(column or "").strip().casefold() for column in reader.fieldnames or ()]
        return [(reader.line_num, (row.get(_COLUMN) or "").strip()) for row in reader]
    except csv.Error:
        raise LabelError(
            f"{name} line {reader.line_num + 1}", "it is not valid CSV", "Export it as CSV in UTF-8"
        ) from None


def _checked(name: str, line: int, number: str) -> str:
    # A wildcard or a list would bring studies that nobody named.
    if len(number) > _LONGEST or any(mark in number for mark in "*?\\,;\t") or not number.isprintable():
        raise LabelError(
            f"{name} line {line}",
            "an accession number has at most 16 characters and none of * ? \\ , ;",
            "Write one number a line, or name the column of a table `accession`",
            code="accessions",
        )
    return number


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise LabelError(
                path.name, "it is too large for a list of numbers", "Split it", code="accessions"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise LabelError(
            path.name,
            "the list of accession numbers cannot be read",
            "Give the path of a text or CSV file in UTF-8",
            code="accessions-unreadable",
        ) from None
