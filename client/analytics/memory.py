"""What a hospital remembers of a year's analyses, in `state/analytics.sqlite`; each change is on disk when it returns.

`runs`     who asked in which year, for which place (`sum` or `own`) and which bins
`cohort`   the patients of a year, by their names in the privacy ledger; fixed with the year's first analysis
`counts`   what was counted into which bins; given again, whoever came since
`sums`     the lists of hospitals that were signed

Laws: 1. one place a year. 2. Own cells in one set of bins a year. 3. As many runs a year as the policy says. 4. A list is on disk
before it is signed, and none is signed that singles a hospital out (`client.analytics.differencing`).
The year is this machine's, and never goes back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from client.analytics.differencing import singled_out
from client.policy import Policy
from common.analytics import Counts
from common.errors import FederationError, PolicyRefused
from common.sqlite import committed
from common.types import Digest, RunId

NAME: Final = "analytics.sqlite"
SUM: Final = "sum"
OWN: Final = "own"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS runs (year INTEGER NOT NULL, run TEXT NOT NULL, place TEXT NOT NULL, bins TEXT NOT NULL,
  PRIMARY KEY (year, run)) STRICT;
CREATE TABLE IF NOT EXISTS cohort (year INTEGER NOT NULL, patient TEXT NOT NULL, PRIMARY KEY (year, patient)) STRICT;
CREATE TABLE IF NOT EXISTS counts (year INTEGER NOT NULL, bins TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (year, bins)) STRICT;
CREATE TABLE IF NOT EXISTS sums (year INTEGER NOT NULL, run TEXT NOT NULL, sites TEXT NOT NULL, PRIMARY KEY (year, run)) STRICT;
"""


@dataclass(frozen=True)
class Wanted:
    """One analysis, as it concerns this hospital."""

    run: RunId
    place: str
    """`SUM` or `OWN`."""
    bins: Digest
    """Of the schema."""


class Memory:
    """The file of one site."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._now = now

    def begin(self, wanted: Wanted, policy: Policy) -> int:
        """Let an analysis in, and write it down; gives its year.

        Raises:
            PolicyRefused: `policy-analytics` for a second place or other bins, `policy-questions` above the year's limit.
            StorageError: the file is damaged or cannot be written.
        """
        with self._open() as base:
            row = base.execute("SELECT year FROM runs WHERE run = ?", (wanted.run,)).fetchone()
            year = self._year(base) if row is None else int(row[0])
            others = base.execute("SELECT run, place, bins FROM runs WHERE year = ?", (year,)).fetchall()
            _check(wanted, others, policy)
            base.execute(
                "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)",
                (year, wanted.run, wanted.place, wanted.bins),
            )
        return year

    def cohort(self, year: int, there: Collection[str]) -> frozenset[str]:
        """The patients of a year: those who are there now, if nobody asked before."""
        with self._open() as base:
            query = "SELECT patient FROM cohort WHERE year = ?"
            known = frozenset(str(row[0]) for row in base.execute(query, (year,)))
            if not known:
                base.executemany("INSERT INTO cohort VALUES (?, ?)", [(year, one) for one in sorted(there)])
        return known or frozenset(there)

    def counts(self, year: int, bins: Digest, count: Callable[[], Counts]) -> Counts:
        """What was counted into these bins in this year; `count` is asked the first time only."""
        with self._open() as base:
            query = "SELECT body FROM counts WHERE year = ? AND bins = ?"
            row = base.execute(query, (year, bins)).fetchone()
        if row is not None:
            return np.array(json.loads(row[0]), dtype=np.int64)
        fresh = count()
        with self._open() as base:
            body = json.dumps(fresh.tolist())
            base.execute("INSERT OR IGNORE INTO counts VALUES (?, ?, ?)", (year, bins, body))
            row = base.execute(query, (year, bins)).fetchone()
        return np.array(json.loads(row[0]), dtype=np.int64)

    def sign(self, run: RunId, sites: Collection[str]) -> None:
        """Write down that a sum of these sites is consented to.

        Raises:
            FederationError: `secagg-difference` where this and earlier sums together single hospitals out.
            StorageError: as `begin`.
        """
        with self._open() as base:
            row = base.execute("SELECT year FROM runs WHERE run = ?", (run,)).fetchone()
            year = self._year(base) if row is None else int(row[0])
            query = "SELECT sites FROM sums WHERE year = ? AND run <> ?"
            before = [json.loads(one[0]) for one in base.execute(query, (year, run))]
            told = singled_out([*before, list(sites)])
            if told:
                raise FederationError(
                    "secure aggregation",
                    f"with the sums of earlier analyses this one would tell the counts of {' and '.join(told)}",
                    "Ask the same hospitals as before, or with noise (analytics.epsilon), or in the new year",
                    code="secagg-difference",
                )
            text = json.dumps(sorted(sites))
            base.execute("INSERT OR REPLACE INTO sums VALUES (?, ?, ?)", (year, run, text))

    def _year(self, base: sqlite3.Connection) -> int:
        (last,) = base.execute("SELECT COALESCE(MAX(year), 0) FROM runs").fetchone()
        return max(int(last), self._now().year)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return committed(self._path, _TABLES)


def _check(wanted: Wanted, others: Collection[tuple[str, str, str]], policy: Policy) -> None:
    """The year's laws."""
    mine = [row for row in others if row[0] == wanted.run]
    if mine and mine[0][1:] != (wanted.place, wanted.bins):
        raise _refused("the run asked for something else before")
    if any(place != wanted.place for _, place, _ in others):
        raise _refused(
            "this hospital was counted the other way this year, and the two together would tell more than either"
        )
    if wanted.place == OWN and any(bins != wanted.bins for _, _, bins in others):
        raise _refused("its own cells were shown in other bins this year")
    if not mine and len(others) >= policy.max_analyses_per_year:
        raise PolicyRefused(
            "the analysis",
            f"{len(others)} were answered this year",
            "Use what was answered, or raise policy.max_analyses_per_year in site.toml",
            code="policy-questions",
        )


def _refused(rule: str) -> PolicyRefused:
    remedy = "Use what was answered before, or ask in the new year"
    return PolicyRefused("the analysis", rule, remedy, code="policy-analytics")
