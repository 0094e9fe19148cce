"""How often a server may ask, kept on disk: what was asked, of which run, and what was answered.

Suppression protects one answer. Whoever may ask again and again, each time with another model or operating point, could
take the answers apart; so the policy sets how often, and no restart forgets it.

1. A run belongs to the plan under which it first asked; under another it gets no answer.
2. The same question of the same run, to the bit, gets the same bytes again, for free: a patient who came or
   left in between is not told by the difference.
3. Any other question is counted, on disk, before it is looked at; an answer that failed stays counted.
4. Thresholds and evaluations of all runs together have a limit per 365 days, because a run's name is the server's.

The clock only ever frees: set back, it frees nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from client.policy import Policy
from common.arrays import digest
from common.errors import PolicyRefused
from common.messages import Instruction, Kind
from common.sqlite import committed

_YEAR: Final = timedelta(days=365)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, plan TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS asked (
    n INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    kind TEXT NOT NULL,
    question TEXT NOT NULL,
    at TEXT NOT NULL,
    answer BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS asked_by_run ON asked (run, kind, question);
"""
_FIGURES: Final = (Kind.THRESHOLD, Kind.EVALUATE)
"""What is limited per year."""
_REPEATED: Final = (*_FIGURES, Kind.ANALYSE)
"""What is answered again with the same bytes."""
_ANALYSES_PER_RUN: Final = 1
"""Under an own name; how many runs there may be in a year is remembered with them (`client.analytics.memory`)."""


class Questions:
    """The site's memory of what it was asked, at `path`; made with the first question."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def admit(self, instruction: Instruction, policy: Policy) -> bytes | None:
        """Count a question, or find that it was answered before.

        Args:
            instruction: a survey, threshold or evaluation; training is the ledger's to count.
            policy: how often may be asked.

        Returns:
            The bytes that answered the very same question of this run, or None: then it is counted now.

        Raises:
            PolicyRefused: `policy-run` for a run of another plan, `policy-questions` above a limit.
            StorageError: `questions-damaged`, or the disk refuses.
        """
        name, kind = question_digest(instruction), instruction.kind
        with self._open() as base:
            _own_plan(base, instruction)
            if kind in _REPEATED:
                query = "SELECT answer FROM asked WHERE run = ? AND kind = ? AND question = ? ORDER BY n"
                before = base.execute(query, (instruction.run, kind.value, name)).fetchone()
                if before is not None:
                    return None if before[0] is None else bytes(before[0])
            _within(base, instruction, policy)
            base.execute(
                "INSERT INTO asked (run, kind, question, at) VALUES (?, ?, ?, ?)",
                (instruction.run, kind.value, name, _now(base)),
            )
        return None

    def keep(self, instruction: Instruction, blob: bytes) -> None:
        """Keep what answered a question, before it is sent.

        Raises:
            StorageError: as `admit`.
        """
        if instruction.kind not in _REPEATED:
            return
        with self._open() as base:
            base.execute(
                "UPDATE asked SET answer = ? WHERE run = ? AND kind = ? AND question = ? AND answer IS NULL",
                (blob, instruction.run, instruction.kind.value, question_digest(instruction)),
            )

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return committed(self._path, _TABLES, "questions-damaged")


def question_digest(instruction: Instruction) -> str:
    """SHA-256 over everything an answer may depend on: plan, code, model, operating point."""
    asked = [
        instruction.kind.value,
        instruction.round,
        instruction.plan_digest,
        instruction.code_digest,
        digest(instruction.arrays),
        instruction.threshold,
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _own_plan(base: sqlite3.Connection, instruction: Instruction) -> None:
    base.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (instruction.run, instruction.plan_digest))
    (plan,) = base.execute("SELECT plan FROM runs WHERE run = ?", (instruction.run,)).fetchone()
    if plan != instruction.plan_digest:
        raise PolicyRefused(
            "the run", "it asked under another plan before", "Start a run of its own", code="policy-run"
        )


def _within(base: sqlite3.Connection, instruction: Instruction, policy: Policy) -> None:
    """Refuse what is one question too many for its run or for the year."""
    limit = {
        Kind.SURVEY: policy.max_surveys_per_run,
        Kind.THRESHOLD: policy.max_thresholds_per_run,
        Kind.EVALUATE: policy.max_evaluations_per_run,
        Kind.ANALYSE: _ANALYSES_PER_RUN,
    }[instruction.kind]
    query = "SELECT COUNT(*) FROM asked WHERE run = ? AND kind = ?"
    (count,) = base.execute(query, (instruction.run, instruction.kind.value)).fetchone()
    if count >= limit:
        raise _too_often(f"the run has asked {count} times", f"policy.max_{instruction.kind.value}s_per_run")
    if instruction.kind not in _FIGURES:
        return
    since = (datetime.fromisoformat(_now(base)) - _YEAR).isoformat(timespec="seconds")
    query = "SELECT COUNT(*) FROM asked WHERE at > ? AND kind IN (?, ?)"
    (count,) = base.execute(query, (since, *(kind.value for kind in _FIGURES))).fetchone()
    if count >= policy.max_questions_per_year:
        raise _too_often(f"{count} questions were asked within a year", "policy.max_questions_per_year")


def _now(base: sqlite3.Connection) -> str:
    """The present second, or that of the last question where the clock was set back."""
    (last,) = base.execute("SELECT COALESCE(MAX(at), '') FROM asked").fetchone()
    return max(str(last), datetime.now(UTC).isoformat(timespec="seconds"))


def _too_often(what: str, setting: str) -> PolicyRefused:
    return PolicyRefused(
        "the question",
        what,
        f"Use what was answered, or raise {setting} in site.toml",
        code="policy-questions",
    )
