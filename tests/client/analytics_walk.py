"""Power failures at every write of a hospital's memory of analyses: nothing that was told can be told otherwise.

`python -m tests.client.analytics_walk --samples 4` walks them all by command. The disk is that of the ledger's walk
(`tests.client.disk`), the process a real one under strace. In each state that a failure could leave

1. an answer that the world has seen is given again to the digit, and of the same patients;
2. a run that was answered is counted in the year's limit, and the other place stays shut;
3. a list of hospitals that was signed is known, so that none is signed that tells one of them by difference;
4. counts never stand without the patients they are of; and the next analysis can begin.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.analytics.memory import NAME, OWN, SUM, Wanted
from common.errors import ConsiliumError
from common.types import RunId
from tests.client.analytics_asks import BINS, POLICY, QUESTIONS, Question, counted, digest, known, memory_of
from tests.client.disk import Disk
from tests.client.strace import record
from tests.client.walked import MEMORY, Failing, Found


@dataclass
class World:
    """What was told before the power failed."""

    answered: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """Run to year, digest of its counts, digest of the year's patients."""
    signed: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """One mark."""
        word, run, *rest = line.split()
        if word == "signed":
            self.signed.append(run)
        else:
            self.answered[run] = (int(rest[0]), rest[1], rest[2])


def walk(scratch: Path, kind: str = "real", *, samples: int = 2, seed: int = 0) -> Found:
    """Record a real process from the first analysis of a hospital on, and fail the power at every operation."""
    site, marks = scratch / "site", scratch / "marks"
    (site / "state").mkdir(parents=True)
    failing, world, found = Failing(Disk.of(site), samples, seed), World(), Found()
    ops = record([sys.executable, "-m", "tests.client.analytics_asks", site, marks, kind], site, marks)
    failing.each(ops, world.add, lambda state, place: _judge(state, world, found, place), found)
    return found


def _judge(site: Path, world: World, found: Found, place: str) -> None:
    """Open what a failure left with the real code, and hold it against what the world saw."""
    (site / "state").mkdir(exist_ok=True)
    try:
        for question in QUESTIONS:
            if question.run in world.answered:
                _same(site, question, world, found, place)
        # Of years that are over nothing is asked any more: a hospital's year never goes back.
        for year in {told[0] for told in world.answered.values()} & {_newest(site)}:
            _limited(site, year, world, found, place)
        found.lawless += [f"{place}: {run} was signed and is forgotten" for run in _forgotten(site, world)]
        _goes_on(site)
        if _orphans(site):
            found.lawless.append(f"{place}: counts without their patients")
    except (ConsiliumError, sqlite3.Error) as error:
        found.stuck.append(f"{place}: {error}")


def _same(site: Path, question: Question, world: World, found: Found, place: str) -> None:
    year, counts, cohort = world.answered[question.run]
    memory = memory_of(site, year)
    if digest(memory.counts(year, question.bins, counted)) != counts:
        found.changed.append(f"{place}: {question.run} would be answered otherwise")
    if known(memory.cohort(year, ["somebody-new"])) != cohort:
        found.changed.append(f"{place}: the patients of {year} would be others")
    other = Wanted(RunId(question.run), OWN if question.place == SUM else SUM, question.bins)
    if _code(lambda: memory.begin(other, POLICY)) != "policy-analytics":
        found.lawless.append(f"{place}: {question.run} would be let in for the other place")


def _limited(site: Path, year: int, world: World, found: Found, place: str) -> None:
    """One run more than were answered, where the policy allows no more than those."""
    runs = [one for one in QUESTIONS if world.answered.get(one.run, (0,))[0] == year]
    least = replace(POLICY, max_analyses_per_year=len(runs))
    more = Wanted(RunId("run-more"), runs[0].place, runs[0].bins)
    if _code(lambda: memory_of(site, year).begin(more, least)) != "policy-questions":
        found.lawless.append(f"{place}: a run of {year} is not counted in the limit")


def _forgotten(site: Path, world: World) -> list[str]:
    """Signed lists beside which the same without two of its hospitals would be signed."""
    lists = {one.run: one for one in QUESTIONS}
    return [
        run
        for run in world.signed
        if lists[run].year == _newest(site)
        and _code(lambda one=lists[run]: memory_of(site, one.year).sign(RunId("run-x"), one.sites[2:]))
        != "secagg-difference"
    ]


def _goes_on(site: Path) -> None:
    """The next year's analysis."""
    year = QUESTIONS[-1].year + 1
    memory = memory_of(site, year)
    memory.begin(Wanted(RunId("run-next"), SUM, BINS[1]), POLICY)
    memory.cohort(year, ["somebody-new"])
    memory.counts(year, BINS[1], counted)
    memory.sign(RunId("run-next"), ["alpha", "beta", "gamma"])


def _newest(site: Path) -> int:
    with closing(sqlite3.connect(site / "state" / NAME)) as base:
        there = base.execute("SELECT name FROM sqlite_master WHERE name = 'runs'").fetchone()
        return int(base.execute("SELECT MAX(year) FROM runs").fetchone()[0] or 0) if there else 0


def _orphans(site: Path) -> bool:
    query = "SELECT COUNT(*) FROM counts WHERE year NOT IN (SELECT year FROM cohort)"
    with closing(sqlite3.connect(site / "state" / NAME)) as base:
        return bool(base.execute(query).fetchone()[0])


def _code(asked: Callable[[], object]) -> str:
    """The code of the refusal; empty where there was none."""
    try:
        asked()
    except ConsiliumError as error:
        return error.code
    return ""


def main() -> int:
    """Walk by command; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="real")
    parser.add_argument("--samples", type=int, default=2)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="analytics-walk-", dir=MEMORY) as scratch:
        found = walk(Path(scratch), asked.kind, samples=asked.samples)
    sys.stdout.write(found.told("analyses", time.monotonic() - began))
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
