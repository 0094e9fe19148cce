"""From the cells of a table to the numbers a network sees, by rules that are written down before any data is looked at.

A column is centred and scaled by constants of the study file, the same at every hospital, and not by the hospital's own
mean: scaling each hospital by itself takes away what differs between them, and with it the truth that it carries. On the
four hospitals of UCI heart disease that costs six points of accuracy (docs/tables.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from common.errors import DataError

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class Column:
    """How one column becomes one or more numbers.

    Raises:
        ValueError: as a plan's mistakes: a scale of zero, or levels and a scale at once.
    """

    centre: float = 0.0
    scale: float = 1.0
    """A number x becomes (x - centre) / scale."""
    levels: tuple[float, ...] = ()
    """Codes of a category: one number 0 or 1 for each but the first. Empty: a number."""
    missing: tuple[float, ...] = ()
    """Values that stand for "not measured"; an empty cell is so in any case."""
    flag: bool = False
    """Whether a further number says that the cell is missing."""

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError("`scale` must be above zero")
        if self.levels and (self.centre, self.scale) != (0.0, 1.0):
            raise ValueError("`levels` go without `centre` and `scale`")

    @property
    def width(self) -> int:
        """Numbers that this column becomes."""
        return (len(self.levels) - 1 if self.levels else 1) + self.flag

    def numbers(self, cells: Sequence[str], name: str) -> npt.NDArray[np.float64]:
        """[rows, width]; a missing cell is the reference: the centre, or the first level.

        Raises:
            DataError: a cell that is no number, or no level.
        """
        values = np.array([_number(cell, name) for cell in cells])
        absent = np.isnan(values) | np.isin(values, self.missing)
        parts = self._levels(values, absent, name) if self.levels else [self._scaled(values, absent)]
        if self.flag:
            parts.append(absent.astype(np.float64))
        return np.stack(parts, axis=1)

    def _scaled(
        self, values: npt.NDArray[np.float64], absent: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        return np.where(absent, 0.0, (values - self.centre) / self.scale)

    def _levels(
        self, values: npt.NDArray[np.float64], absent: npt.NDArray[np.bool_], name: str
    ) -> list[npt.NDArray[np.float64]]:
        if not bool(np.all(absent | np.isin(values, self.levels))):
            raise DataError(
                f"column {name}",
                "a cell is none of its levels",
                "Add the level to the study file",
                code="data-label",
            )
        return [(~absent & (values == level)).astype(np.float64) for level in self.levels[1:]]


def encode(rows: Sequence[Mapping[str, str]], columns: Mapping[str, Column]) -> npt.NDArray[np.float32]:
    """The rows of a table as images of one line: float32 [rows, 1, numbers].

    Raises:
        DataError: a column that is not there, or a cell that it does not allow.
    """
    for name in columns:
        if rows and name not in rows[0]:
            raise DataError(
                f"column {name}",
                "the table does not have it",
                "Compare the study file with the table's first line",
            )
    parts = [column.numbers([row[name] for row in rows], name) for name, column in columns.items()]
    return np.concatenate(parts, axis=1).astype(np.float32)[:, None, :]


def _number(cell: str, name: str) -> float:
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise DataError(
            f"column {name}",
            "a cell is not a number",
            "Code categories as numbers; leave a missing cell empty",
        ) from None
