"""The privacy ledger: the only door through which a patient's privacy is spent.

1. A ledger is created once, on purpose. A missing, damaged, shared or foreign one is refused.
2. `charge` first looks for the same release among the stored updates: a repeat costs nothing.
3. Otherwise it tries the composition for every patient of the cohort, over the run, any 365 days and
   life, and refuses by name what would exceed a limit. A refusal spends nothing.
4. Then it writes the whole round's cost, and returns only when it is on disk. Only now may noise be
   drawn. Nothing is ever given back: a charge whose training failed stays.
5. `store_update` puts the protected update on disk, once per charge, before it may be sent.
6. `replay` gives the same bytes again.

Spend is kept per patient under the spend key, which outlives pseudonyms, runs and studies; a cohort's
spend is that of its worst patient. Time never runs backwards here: a clock behind the last charge by more
than two minutes is refused. Wrong order is `WrongOrder`; everything else is `LedgerError`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from client.privacy.book import Book, Charge, Release, cohort_digest
from client.privacy.ledger_file import LedgerFile, Write, group_members
from client.privacy.ledger_open import corrupt, refuse
from client.privacy.ledger_parts import Memory, Receipt, Stored, charge_from
from client.privacy.limits import Limits, Usage
from common.accounting import DpEventSpec
from common.errors import LedgerError, WrongOrder
from common.messages import LedgerHead as Head
from common.types import Digest, RunId

ROUNDS_KEPT: Final = 2
"""Stored updates per run: the round in hand and the one before. Older bytes are dropped, rows never."""
CLOCK_SLACK: Final = timedelta(minutes=2)
"""How far a clock may lie behind the last charge; what a machine's clock is set by after a start."""

__all__ = ["Head", "Ledger", "Limits", "Memory", "Receipt", "Release", "Usage"]

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """An open ledger; a context manager. Safe for threads of one process, closed to other processes.

    Args:
        path: `<state>/ledger.sqlite`.
        simulated: the site's own flag; must be the one the ledger was created with.
        memory: of this process; filled at closing.
        clock: gives the time, with its zone.

    Raises:
        LedgerError: `ledger-missing`, `ledger-locked`, `ledger-corrupt`, `ledger-simulated`,
            `ledger-journal`, `ledger-readonly`.
    """

    def __init__(
        self, path: Path, *, simulated: bool = False, memory: Memory | None = None, clock: Clock = _now
    ) -> None:
        self._mutex = threading.Lock()
        self._clock = clock
        self._memory = memory or Memory()
        believed = (self._memory.stamp, self._memory.digests) if self._memory.stamp else None
        self._file = LedgerFile(path, simulated=simulated, believed=believed)
        # Charges of this process only: after a crash the noise is drawn, and paid for, anew.
        self._unsealed: set[int] = set()
        self._book, self._stored = Book(), dict[Release, Stored]()
        try:
            if self._file.trusted:
                self._book, self._stored = self._memory.book, self._memory.stored
            else:
                self._load()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def create(cls, path: Path, *, simulated: bool = False) -> Ledger:
        """Make an empty ledger and open it.

        Raises:
            LedgerError: `ledger-exists` when there is one already.
        """
        LedgerFile.create(path, simulated=simulated)
        return cls(path, simulated=simulated)

    def charge(
        self, release: Release, spend_keys: Collection[str], event: DpEventSpec, limits: Limits
    ) -> Receipt:
        """Pay for a round before its noise is drawn, or find that it is paid.

        Args:
            release: what is to be sent.
            spend_keys: the cohort: every training patient of the site, drawn or not.
            event: what the round does to each of them, `DpPlan.round_event`; noise 0 when non-private.
            limits: of plan and policy.

        Raises:
            LedgerError: `ledger-spent`, `ledger-non-private`, `ledger-empty`, `ledger-clock`,
                `ledger-write`.
        """
        with self._mutex:
            if release in self._stored:
                return self._repeat(release, spend_keys, limits)
            keys = tuple(sorted(set(spend_keys)))
            if not keys:
                raise LedgerError(
                    f"run {release.run}", "a cohort has patients", "Ingest first", code="ledger-empty"
                )
            charge = Charge(
                release, event, limits.delta, cohort_digest(keys), len(keys), self._time(strict=True)
            )
            spent = self._book.admit(charge, keys, limits)
            new = () if self._book.knows(charge.cohort) else keys
            row = {"kind": "charge", **asdict(charge)}
            head = self._file.append(Write(row, cohort=charge.cohort, members=new))
            self._enter(charge, keys)
            self._unsealed.add(head.sequence)
            return Receipt(release, head.sequence, False, spent.epsilon, spent.run_epsilon, head, spent.usage)

    def store_update(self, receipt: Receipt, blob: bytes) -> Head:
        """Put the protected update of a charge on disk, before it is sent.

        Raises:
            WrongOrder: the receipt is a repeat, of another ledger, or already has its update.
            LedgerError: `ledger-write`.
        """
        with self._mutex:
            if receipt.repeat or receipt.sequence not in self._unsealed:
                raise WrongOrder(
                    "ledger", "an update is stored once per charge", "Charge first, then train, then store"
                )
            sha256 = hashlib.sha256(blob).hexdigest()
            row = {"kind": "update", "charge": receipt.sequence, "bytes": len(blob), "sha256": sha256}
            old = self._outdated(receipt.release)
            write = Write(
                row,
                update=(receipt.sequence, blob),
                forget=tuple(self._stored[release].sequence for release in old),
            )
            head = self._file.append(write)
            for release in old:
                del self._stored[release]
            self._seal(receipt.release, Stored(receipt.sequence, sha256))
            return head

    def replay(self, release: Release) -> bytes | None:
        """The stored update of this very release, byte for byte, or None when there is none.

        Raises:
            LedgerError: `ledger-corrupt` when the bytes are not those that were stored.
        """
        with self._mutex:
            stored = self._stored.get(release)
            return None if stored is None else self._bytes(stored)

    def check_updates(self) -> int:
        """Compare every stored update with the digest in its row; how many there are.

        Raises:
            LedgerError: `ledger-corrupt` when one is not what was stored.
        """
        with self._mutex:
            for stored in self._stored.values():
                self._bytes(stored)
            return len(self._stored)

    def epsilon(
        self, delta: float, spend_keys: Collection[str] | None = None, run: RunId | None = None
    ) -> float:
        """What the worst of these patients has spent, over one run or for life; infinite if ever non-private.

        Args:
            delta: at which epsilon is asked for.
            spend_keys: the cohort; every patient on record when not given.
            run: one run's part only.
        """
        with self._mutex:
            return self._book.epsilon(delta, spend_keys, run)

    def usage(self, limits: Limits, spend_keys: Collection[str] | None = None) -> tuple[Usage, ...]:
        """What the worst of these patients has spent of each limit by now; of the run, that which cost most."""
        with self._mutex:
            return self._book.usage(spend_keys, None, self._time(strict=False), limits)

    @property
    def book(self) -> Book:
        """What the ledger knows, for figures; only `charge` adds to it."""
        return self._book

    @property
    def charges(self) -> tuple[Charge, ...]:
        """Every charge, in order."""
        with self._mutex:
            return tuple(self._book.charges)

    @property
    def head(self) -> Head:
        """Counter and digest of the last row."""
        return self._file.head

    def digest_at(self, sequence: int) -> Digest | None:
        """The digest of this row, of what came before the first row for 0, or None when there is none."""
        digests = self._file.chain.digests
        return digests[sequence] if 0 <= sequence < len(digests) else None

    def rows(self) -> list[tuple[int, str, str]]:
        """Sequence, body as it was hashed, and digest of every row."""
        with self._mutex:
            return self._file.text()

    def members(self) -> dict[Digest, list[str]]:
        """The spend keys of every cohort."""
        with self._mutex:
            return group_members(self._file.members())

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._mutex:
            memory = self._memory
            memory.stamp = self._file.close()
            memory.digests, memory.book, memory.stored = self._file.chain.digests, self._book, self._stored

    def __enter__(self) -> Self:
        """Use as `with Ledger(...) as ledger`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _load(self) -> None:
        cohorts = group_members(self._file.members())
        by_sequence: dict[int, Release] = {}
        for sequence, body in self._file.rows():
            if body["kind"] == "charge":
                charge = charge_from(body)
                keys = cohorts.get(charge.cohort, [])
                if not self._book.knows(charge.cohort) and cohort_digest(keys) != charge.cohort:
                    corrupt("a cohort is not the one that was charged")
                by_sequence[sequence] = charge.release
                self._enter(charge, keys)
            else:
                self._seal(by_sequence[body["charge"]], Stored(body["charge"], body["sha256"]))
        kept = self._file.stored_sequences()
        self._stored = {r: s for r, s in self._stored.items() if s.sequence in kept}

    def _repeat(self, release: Release, spend_keys: Collection[str], limits: Limits) -> Receipt:
        spent, of_run = (self._book.epsilon(limits.delta, spend_keys, run) for run in (None, release.run))
        usage = self._book.usage(spend_keys, release.run, self._time(strict=False), limits)
        sequence = self._stored[release].sequence
        return Receipt(release, sequence, True, spent, of_run, self._file.head, usage)

    def _time(self, *, strict: bool) -> str:
        """Now, or the time of the last charge when the clock is a little behind it.

        Raises:
            LedgerError: `ledger-clock` when it is far behind it, and `strict`.
        """
        now = self._clock().astimezone(UTC)
        last = self._book.time
        if last and strict and now < datetime.fromisoformat(last) - CLOCK_SLACK:
            refuse(
                "clock",
                "this machine's clock is behind the time of the last charge",
                "Set the clock right; time in the ledger does not run backwards",
            )
        return max(now.isoformat(timespec="seconds"), last)

    def _bytes(self, stored: Stored) -> bytes:
        blob = self._file.update(stored.sequence)
        if blob is None or hashlib.sha256(blob).hexdigest() != stored.sha256:
            corrupt("a stored update is not what was stored")
        return blob

    def _enter(self, charge: Charge, keys: Collection[str]) -> None:
        self._book.enrol(charge.cohort, keys)
        self._book.record(charge)

    def _seal(self, release: Release, stored: Stored) -> None:
        self._stored[release] = stored
        self._unsealed.discard(stored.sequence)

    def _outdated(self, release: Release) -> list[Release]:
        return [r for r in self._stored if r.run == release.run and r.round <= release.round - ROUNDS_KEPT]
