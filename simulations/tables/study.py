"""A study over a table in one file: which column is the site, which the truth, how the others become numbers.

`[table]` says how the table is read, `[plan]` is a plan as everywhere else but for its `[plan.input]`, which follows from
the columns, and `[arm.<name>]` changes the plan of one arm.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from common.errors import DataError, InputError, PlanError
from common.plan import Plan, plan_from_dict
from simulations.mistakes import problems_of
from simulations.scenario import merged, read_toml
from simulations.tables.columns import STRICT, Column

Arm = Literal["federated", "alone", "pooled", "private"]
MODALITY: Final = "TABLE"


@dataclass(frozen=True, config=STRICT)
class Table:
    """`[table]`."""

    file: str
    """Beside the study file, or in the folder given by `--data`."""
    site: str
    label: str
    """0 or 1."""
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    scaling: Literal["constants", "hospital"] = "constants"
    """`hospital`: each hospital then centres and scales every number by its own training patients, as FLamby does."""
    part: str = ""
    """The column that says `train` or `test`; empty: drawn by the plan's split seed."""


@dataclass(frozen=True, config=STRICT)
class Study:
    """A whole study file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    table: Table
    plan: dict[str, Any]
    arms: tuple[Arm, ...] = ("alone", "federated", "pooled", "private")
    arm: dict[Arm, dict[str, Any]] = field(default_factory=dict)

    def plan_for(self, arm: Arm) -> Plan:
        """The plan of one arm.

        Raises:
            PlanError: with every mistake.
        """
        width = sum(column.width for column in self.table.columns.values())
        whole = {**self.plan, "input": {"modalities": [MODALITY], "shape": [1, width]}}
        return plan_from_dict(merged(whole, self.arm.get(arm, {})), f"{self.name}, arm {arm}")


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        PlanError: every mistake of the file and of the plans of its arms.
        InputError: it is not there, or no TOML.
    """
    raw = read_toml(path)
    try:
        study = TypeAdapter(Study).validate_python(raw)
    except ValidationError as error:
        raise PlanError(path.name, problems_of(error, raw, Study), "study") from None
    for arm in study.arms:
        study.plan_for(arm)
    return study


def read_rows(path: Path, table: Table) -> dict[str, list[Mapping[str, str]]]:
    """The rows of each site, in the order of the file.

    Raises:
        InputError: the file is not there or not readable.
        DataError: a column is missing, or a label is neither 0 nor 1.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(path.name, "the table cannot be read", "Give its folder with --data") from None
    _check(rows, table, path.name)
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(row[table.site], []).append(row)
    return found


def _check(rows: Sequence[Mapping[str, str]], table: Table, name: str) -> None:
    named = (table.site, table.label, *([table.part] if table.part else []), *table.columns)
    missing = [column for column in named if rows and column not in rows[0]]
    if not rows or missing:
        rule = f"it has no column {', '.join(missing)}" if missing else "it has no row"
        raise DataError(name, rule, "Compare the study file with the table's first line", code="data-empty")
    if {row[table.label] for row in rows} - {"0", "1"}:
        raise DataError(
            name, "a label is neither 0 nor 1", "Code the finding as 1, its absence as 0", code="data-label"
        )
    if table.part and {row[table.part] for row in rows} - {"train", "test"}:
        raise DataError(
            name,
            "a part is neither train nor test",
            "Name one of them in each row",
            code="data-split-conflict",
        )
