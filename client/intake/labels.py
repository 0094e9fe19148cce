"""A label table: read whole, checked whole, every error with its line; joined by keyed names only.

    accession|study|instance|path , label , source , version [, split]

`path` is relative to the folder that is taken in and goes with PNG and JPEG; such a table may also hold
patient_id, age, sex and view, and may leave out source and version; both are words of a narrow form (`label_words`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.index_rows import Label
from client.intake.label_words import MOST, plain_source, plain_version
from client.intake.outcome import Person
from common.errors import LabelError

KINDS: Final = ("accession", "study", "instance", "path")
_SPLITS: Final = {"": "", "train": "train", "validation": "validation", "val": "validation", "test": "test"}
_DEFAULT_SOURCE: Final = "csv"
_DEFAULT_VERSION: Final = "1"
MAX_TABLE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class LabelRow:
    """One line of a table. `key` is the hospital's own and is never written down."""

    line: int
    key: str = field(repr=False)
    label: Label
    source: str
    version: str
    split: str | None = None
    """As in `GivenLabel`: None where the table has no such column."""
    person: Person | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LabelTable:
    """A table that passed every check of its own; `rows` by key, in the order of the lines."""

    name: str
    kind: str
    rows: Mapping[str, LabelRow] = field(default_factory=dict, repr=False)

    def error(self, line: int, rule: str, remedy: str) -> LabelError:
        """A mistake at a line of this table."""
        return _error(self.name, line, rule, remedy)


def read_labels(path: Path) -> LabelTable:
    """Read and check a table.

    Raises:
        LabelError: naming the table, the line, the rule and the remedy; never what stands in the line.
    """
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    good = 0
    try:
        columns = [(c or "").strip().casefold() for c in reader.fieldnames or ()]
        reader.fieldnames = columns
        kind = _kind(path.name, columns)
        rows: dict[str, LabelRow] = {}
        for record in reader:
            row = _row(path.name, reader.line_num, kind, record)
            _check_new(path.name, row, rows.get(row.key))
            _check_like(path.name, row, next(iter(rows.values()), row))
            rows[row.key] = row
            good = reader.line_num
    except csv.Error:
        raise _error(
            path.name, max(1, good) + 1, "it is not valid CSV", "Export it as CSV in UTF-8"
        ) from None
    _check_few(path.name, rows.values())
    if not rows:
        raise LabelError(
            path.name, "it holds no labels", "Add one line per image or study", code="labels-empty"
        )
    return LabelTable(path.name, kind, rows)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise LabelError(path.name, "it is too large for a label table", "Split it", code="labels-size")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LabelError(
            path.name, "the label table is not there", "Give its path with --labels", code="labels-missing"
        ) from None
    except IsADirectoryError:
        raise LabelError(
            path.name, "it is a folder, not a table", "Give the CSV file itself", code="labels-missing"
        ) from None
    except OSError:
        raise LabelError(
            path.name, "the label table cannot be read", "Check its rights", code="labels-unreadable"
        ) from None
    except UnicodeDecodeError:
        raise LabelError(
            path.name, "the label table is not UTF-8", "Export it as CSV in UTF-8", code="labels-unreadable"
        ) from None


def _kind(name: str, columns: list[str]) -> str:
    found = [kind for kind in KINDS if kind in columns]
    if not columns:
        raise LabelError(name, "it is empty", "Export the labels again", code="labels-empty")
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        raise _error(name, 1, "its columns are not divided by commas", "Save it as CSV divided by commas")
    if len(found) != 1:
        remedy = "Keep one of them" if found else "Name that column in the first line"
        raise _error(name, 1, f"exactly one of the columns {', '.join(KINDS)} names the image", remedy)
    wanted = ["label"] if found[0] == "path" else ["label", "source", "version"]
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise _error(name, 1, f"the column {', '.join(missing)} is missing", "Add it to the first line")
    if len(set(columns)) != len(columns):
        raise _error(name, 1, "a column is named twice", "Keep one of them")
    return found[0]


def _row(name: str, line: int, kind: str, record: Mapping[str | None, str | None]) -> LabelRow:
    if None in record or None in record.values():
        raise _error(name, line, "it has more or fewer fields than the first line", "Correct the line")
    cell = {str(column): str(value).strip() for column, value in record.items()}
    key = _path_key(cell["path"]) if kind == "path" else cell[kind]
    if not key:
        raise _error(name, line, f"the column {kind} is empty", "Name the image, or remove the line")
    split = cell.get("split", "").casefold()
    if split not in _SPLITS:
        raise _error(name, line, "split is one of train, validation, test or empty", "Correct the split")
    source, version = _said(name, line, kind, cell)
    return LabelRow(
        line=line,
        key=key,
        label=_label(name, line, cell["label"]),
        source=source,
        version=version,
        split=_SPLITS[split] if "split" in cell else None,
        person=_person(cell, key) if kind == "path" else None,
    )


def _said(name: str, line: int, kind: str, cell: Mapping[str, str]) -> tuple[str, str]:
    """Who labelled, and in which edition."""
    source, version = cell.get("source", ""), cell.get("version", "")
    if kind != "path" and not (source and version):
        raise _error(name, line, "a label says its source and version", "Fill both columns")
    who, edition = plain_source(source or _DEFAULT_SOURCE), plain_version(version or _DEFAULT_VERSION)
    if who is None:
        rule = "a source is one word of at most 24 letters, digits and .-_"
        raise _error(name, line, rule, "Name the reader by a short code")
    if edition is None:
        rule = "a version is a number or a date, such as 2, v1.3 or 2024-05"
        raise _error(name, line, rule, "Number the versions")
    return who, edition


def _path_key(text: str) -> str:
    return text.replace("\\", "/").removeprefix("./")


def _person(cell: Mapping[str, str], key: str) -> Person:
    number = cell.get("patient_id") or Path(key).stem
    return Person(number, cell.get("age", ""), cell.get("sex", ""), cell.get("view", ""))


def _label(name: str, line: int, text: str) -> Label:
    """A number, or several divided by semicolons for a multilabel task."""
    if not text:
        raise _error(name, line, "the label is empty", "Fill it, or remove the line")
    try:
        numbers = [float(part) for part in text.split(";")]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise _error(
            name, line, "a label is a number, or numbers divided by ';'", "Code the label as a number"
        )
    if len(numbers) > 1:
        return tuple(numbers)
    return int(numbers[0]) if numbers[0] == int(numbers[0]) else numbers[0]


def _check_few(name: str, rows: Collection[LabelRow]) -> None:
    """See that sources and versions are those of readers and editions, not of patients."""
    for column, words in (("source", {r.source for r in rows}), ("version", {r.version for r in rows})):
        if len(words) > MOST:
            raise LabelError(
                name,
                f"the column {column} holds {len(words)} different words, and a table has at most {MOST}",
                "Say there who labelled and in which edition; leave names, numbers and dates of patients out",
                code="labels",
            )


def _check_new(name: str, row: LabelRow, earlier: LabelRow | None) -> None:
    if earlier is None:
        return
    if earlier.label != row.label:
        raise _error(
            name,
            row.line,
            f"it contradicts line {earlier.line}: the same image has another label",
            "Keep the one that is right",
            code="labels-contradict",
        )
    raise _error(
        name,
        row.line,
        f"it repeats line {earlier.line}",
        "Keep one line per image or study",
        code="labels-duplicate",
    )


def _check_like(name: str, row: LabelRow, first: LabelRow) -> None:
    if _numbers(row.label) != _numbers(first.label):
        raise _error(
            name, row.line, f"a label has as many numbers as line {first.line}", "Complete the label"
        )


def _numbers(label: Label) -> int:
    return len(label) if isinstance(label, tuple) else 1


def _error(name: str, line: int, rule: str, remedy: str, *, code: str = "labels") -> LabelError:
    return LabelError(f"{name} line {line}", rule, remedy, code=code)
