"""The privacy ledger: the only door through which a patient's privacy is spent.

1. A ledger is created once, on purpose. A missing, damaged, shared or foreign one is refused.
2. `charge` first looks for the same release among the stored updates: a repeat costs nothing.
3. Otherwise it tries the composition for every patient of the cohort, over the run and for life, and
   refuses by name what would exceed a limit. A refusal spends nothing.
4. Then it writes the whole round's cost, and returns only when it is on disk. Only now may noise be
   drawn. Nothing is ever given back: a charge whose training failed stays.
5. `store_update` puts the protected update on disk, once per charge, before it may be sent.
6. `replay` gives the same bytes again.

Spend is kept per patient under the spend key, which outlives pseudonyms, runs and studies; a cohort's
spend is that of its worst patient. Wrong order is `WrongOrder`; everything else is `LedgerError`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from client.privacy.book import Book, Charge, Limits, Release, cohort_digest, release_from
from client.privacy.ledger_file import Head, LedgerFile, Write, group_members
from common.accounting import DpEventSpec
from common.errors import LedgerError, WrongOrder
from common.types import Digest, RunId

ROUNDS_KEPT: Final = 2
"""Stored updates per run: the round in hand and the one before. Older bytes are dropped, rows never."""

__all__ = ["Head", "Ledger", "Limits", "Receipt", "Release"]


@dataclass(frozen=True)
class Receipt:
    """Proof that a release is paid for."""

    release: Release
    sequence: int
    """The charge's row."""
    repeat: bool
    """True: already charged and stored; send `Ledger.replay`, and draw no noise."""
    epsilon: float
    """Lifetime spend of the cohort's worst patient at the plan's delta, this charge included."""
    head: Head


@dataclass(frozen=True)
class _Stored:
    sequence: int
    sha256: str


class Ledger:
    """An open ledger; a context manager. Safe for threads of one process, closed to other processes.

    Args:
        path: `<state>/ledger.sqlite`.
        simulated: the site's own flag; must be the one the ledger was created with.

    Raises:
        LedgerError: `ledger-missing`, `ledger-locked`, `ledger-corrupt`, `ledger-simulated`.
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self._mutex = threading.Lock()
        self._file = LedgerFile(path, simulated=simulated)
        self._book = Book()
        self._stored: dict[Release, _Stored] = {}
        # Charges of this process only: after a crash the noise is drawn, and paid for, anew.
        self._unsealed: set[int] = set()
        try:
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
            LedgerError: `ledger-spent`, `ledger-non-private`, `ledger-empty`, `ledger-write`.
        """
        with self._mutex:
            if release in self._stored:
                spent = self._book.epsilon(limits.delta, spend_keys)
                return Receipt(release, self._stored[release].sequence, True, spent, self._file.head)
            keys = tuple(sorted(set(spend_keys)))
            if not keys:
                raise LedgerError(
                    f"run {release.run}", "a cohort has patients", "Ingest first", code="ledger-empty"
                )
            charge = _charge(release, keys, event, limits)
            spent = self._book.admit(charge, keys, limits)
            new = () if self._book.knows(charge.cohort) else keys
            head = self._file.append(Write(_charge_row(charge), cohort=charge.cohort, members=new))
            self._enter(charge, keys)
            self._unsealed.add(head.sequence)
            return Receipt(release, head.sequence, False, spent, head)

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
            self._seal(receipt.release, _Stored(receipt.sequence, sha256))
            return head

    def replay(self, release: Release) -> bytes | None:
        """The stored update of this very release, byte for byte, or None when there is none.

        Raises:
            LedgerError: `ledger-corrupt` when the bytes are not those that were stored.
        """
        with self._mutex:
            stored = self._stored.get(release)
            if stored is None:
                return None
            blob = self._file.update(stored.sequence)
            if blob is None or hashlib.sha256(blob).hexdigest() != stored.sha256:
                raise LedgerError(
                    "ledger.sqlite",
                    "a stored update is not what was stored",
                    "Do not send; restore the ledger from backup",
                    code="ledger-corrupt",
                )
            return blob

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

    @property
    def charges(self) -> tuple[Charge, ...]:
        """Every charge, in order."""
        with self._mutex:
            return tuple(self._book.charges)

    @property
    def head(self) -> Head:
        """Counter and digest of the last row."""
        return self._file.head

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._mutex:
            self._file.close()

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
        for sequence, body in self._file.rows:
            if body["kind"] == "charge":
                charge = _charge_from(body)
                keys = cohorts.get(charge.cohort, [])
                if cohort_digest(keys) != charge.cohort:
                    raise LedgerError(
                        "ledger.sqlite",
                        "a cohort is not the one that was charged",
                        "Do not train; restore the ledger from backup",
                        code="ledger-corrupt",
                    )
                by_sequence[sequence] = charge.release
                self._enter(charge, keys)
            else:
                self._seal(by_sequence[body["charge"]], _Stored(body["charge"], body["sha256"]))
        kept = self._file.stored_sequences()
        self._stored = {r: s for r, s in self._stored.items() if s.sequence in kept}

    def _enter(self, charge: Charge, keys: Collection[str]) -> None:
        self._book.enrol(charge.cohort, keys)
        self._book.record(charge)

    def _seal(self, release: Release, stored: _Stored) -> None:
        self._stored[release] = stored
        self._unsealed.discard(stored.sequence)

    def _outdated(self, release: Release) -> list[Release]:
        return [r for r in self._stored if r.run == release.run and r.round <= release.round - ROUNDS_KEPT]


def _charge(release: Release, keys: tuple[str, ...], event: DpEventSpec, limits: Limits) -> Charge:
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Charge(release, event, limits.delta, cohort_digest(keys), len(keys), time)


def _charge_row(charge: Charge) -> dict[str, Any]:
    return {"kind": "charge", **asdict(charge)}


def _charge_from(body: dict[str, Any]) -> Charge:
    return Charge(
        release=release_from(body["release"]),
        event=DpEventSpec(**body["event"]),
        delta=body["delta"],
        cohort=Digest(body["cohort"]),
        patients=body["patients"],
        time=body["time"],
    )
