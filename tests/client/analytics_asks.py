"""A hospital's memory of two years of analyses, as a process of its own that may be recorded.

The order of the calls is that of `client.analytics.analyst` and of masked rounds: let in, fix the patients, count, answer; write
the list down, sign it. Each step says on a side channel when its answer is handed over: what the world could have seen.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from client.analytics.memory import NAME, OWN, SUM, Memory, Wanted
from client.policy import Policy
from common.analytics import Counts
from common.durability import relax
from common.types import Digest, RunId

POLICY: Final = Policy(max_analyses_per_year=4)
FIRST: Final = 2031
BINS: Final = (Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64))
CELLS: Final = 900
"""Of an answer: more than a page of the file."""


@dataclass(frozen=True)
class Question:
    """One analysis that is asked for."""

    run: str
    year: int
    place: str
    bins: Digest
    sites: tuple[str, ...] = ()
    """Signed afterwards; nothing where own cells are shown."""


QUESTIONS: Final = (
    Question("run-a", FIRST, SUM, BINS[0], ("alpha", "beta", "gamma", "delta")),
    Question("run-b", FIRST, SUM, BINS[1], ("alpha", "beta", "gamma", "delta", "eta", "theta", "iota")),
    Question("run-c", FIRST + 1, OWN, BINS[0]),
)


def memory_of(site: Path, year: int) -> Memory:
    """The memory of a site whose clock stands in this year."""
    return Memory(site / "state" / NAME, lambda: datetime(year, 5, 1, tzinfo=UTC))


def patients(year: int) -> list[str]:
    """Who has images in this year: more than in the year before."""
    return [f"spend-{number:03d}" for number in range(40 * (year - FIRST + 1))]


def digest(counts: Counts) -> str:
    """Of an answer."""
    return hashlib.sha256(counts.tobytes()).hexdigest()


def known(cohort: Collection[str]) -> str:
    """Of the patients of a year."""
    return hashlib.sha256(",".join(sorted(cohort)).encode()).hexdigest()


def counted() -> Counts:
    """Never the same twice, so that what is counted again cannot pass for what was answered."""
    return np.frombuffer(secrets.token_bytes(8 * CELLS), dtype=np.int64) >> 40


class Late(Memory):
    """A mutant that keeps an answer in its head until the next question."""

    def counts(self, year, bins, count):
        """Counted, not written."""
        before = getattr(self, "_waiting", None)
        if before is not None:
            super().counts(before[0], before[1], lambda: before[2])
        self._waiting = (year, bins, count())
        return self._waiting[2]


class Unsigned(Memory):
    """A mutant that signs before it writes down."""

    def sign(self, run, sites):
        """Signed, not written."""


MUTANTS: Final = {"real": Memory, "unsynced": Memory, "answers-first": Late, "signs-first": Unsigned}


def asks(site: Path, marks: int, kind: str = "real") -> None:
    """Answer all questions, telling `marks` what the world could see."""
    if kind == "unsynced":
        relax()
    clock = [FIRST]
    memory = MUTANTS[kind](site / "state" / NAME, lambda: datetime(clock[0], 5, 1, tzinfo=UTC))

    def say(*words: object) -> None:
        os.write(marks, (" ".join(map(str, words)) + "\n").encode())

    for one in QUESTIONS:
        clock[0] = one.year
        year = memory.begin(Wanted(RunId(one.run), one.place, one.bins), POLICY)

        def count(year: int = year) -> Counts:
            memory.cohort(year, patients(year))
            return counted()

        found = memory.counts(year, one.bins, count)
        say("answered", one.run, year, digest(found), known(memory.cohort(year, ())))
        if one.sites:
            memory.sign(RunId(one.run), one.sites)
            say("signed", one.run)


def main() -> None:
    """As the command line says: site, marks, kind of memory."""
    site, marks, kind = sys.argv[1:]
    asks(Path(site), os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), kind)


if __name__ == "__main__":
    main()
