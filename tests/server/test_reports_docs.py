"""`docs/metrics.md` names every key of the record, and no key that is not there."""

from __future__ import annotations

import dataclasses
import re
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import common.messages
import server.records
from common.statistics import findings
from server import records_bias
from server.records import RunRecord, read_record, write_record
from tests.server.report_records import realistic

DOC = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def keys(kind: Any, seen: set[type]) -> set[str]:
    """Field names of a dataclass and of everything inside it."""
    if get_origin(kind) in (Union, types.UnionType, tuple, dict):
        return set().union(*(keys(part, seen) for part in get_args(kind)), set())
    if not dataclasses.is_dataclass(kind) or kind in seen:
        return set()
    seen.add(kind)
    known = {**vars(findings), **vars(records_bias), **vars(common.messages), **vars(server.records)}
    hints = get_type_hints(kind, known)
    inside = set().union(*(keys(hints[f.name], seen) for f in dataclasses.fields(kind)), set())
    return inside | {f.name for f in dataclasses.fields(kind)}


def test_every_key_of_the_record_is_documented():
    rows = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`([a-z_0-9]+)`", row)}
    bins = set(re.findall(r"`(mean_score|observed|patients)`", "\n".join(rows)))
    assert keys(RunRecord, set()) - named - bins == set()


def test_no_first_column_names_a_key_that_does_not_exist():
    rows = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    first = {word for row in rows for word in re.findall(r"`([a-z_0-9]+)`", row.split("|")[1])}
    assert first <= keys(RunRecord, set())


def test_a_record_survives_the_disk(tmp_path):
    path = tmp_path / "metrics.json"
    write_record(realistic(), path)
    assert read_record(path) == realistic()
