"""docs/what-leaves.md names every field that can leave, and no other."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import common.messages
from client.departures import WORDS
from client.egress import _LEAVE
from client.policy import Policy
from common.enrolment import Ask, Renew
from common.envelope import Envelope

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "what-leaves.md").read_text(encoding="utf-8")


BESIDE = (Ask, Renew)
"""What a hospital says outside of rounds, beside the door; nothing in it is of a patient."""


def _kinds(kind: Any, seen: dict[str, type]) -> dict[str, type]:
    """Every dataclass a message is made of, by name."""
    for part in get_args(kind):
        _kinds(part, seen)
    if dataclasses.is_dataclass(kind) and kind.__name__ not in seen:
        seen[kind.__name__] = kind
        for hint in get_type_hints(
            kind, {**vars(common.messages), **vars(sys.modules[kind.__module__])}
        ).values():
            _kinds(hint, seen)
    return seen


def test_every_field_that_can_leave_has_its_row_and_no_other_has():
    kinds: dict[str, type] = {}
    for kind in (*_LEAVE, Envelope, *BESIDE):
        _kinds(kind, kinds)
    sections = re.findall(r"^##+ (\w+).*?\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    told = {name: re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE) for name, body in sections}
    fields = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in kinds.items()}
    assert {name: rows for name, rows in told.items() if rows} == fields


def test_every_kind_that_leaves_has_words_for_people():
    assert {kind.__name__.lower() for kind in (*_LEAVE, *BESIDE)} == set(WORDS)


def test_every_row_says_how_it_is_coarsened_and_protected():
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    assert all(all(cell.strip() for cell in row.strip("|").split("|")) for row in rows)
    assert all(row.count("|") == 5 for row in rows)


def test_every_key_of_the_policy_it_names_is_one():
    named = set(re.findall(r"`policy\.(\w+)`", TEXT)) | set(re.findall(r"`(max_\w+|min_\w+)`", TEXT))
    assert named <= {field.name for field in dataclasses.fields(Policy)}
