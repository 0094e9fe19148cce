"""What the ledger hands out and what it keeps in mind: receipts, stored updates, what was verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from client.privacy.book import Book, Charge, Release, release_from
from client.privacy.ledger_open import Stamp
from client.privacy.limits import Usage
from common.accounting import DpEventSpec
from common.messages import LedgerHead
from common.types import Digest


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
    run_epsilon: float
    """The same over the release's run alone."""
    head: LedgerHead
    usage: tuple[Usage, ...] = ()
    """What the cohort's worst patient has spent of each limit, this charge included."""

    @property
    def warnings(self) -> tuple[Usage, ...]:
        """The limits of which four fifths or more are spent."""
        return tuple(usage for usage in self.usage if usage.near)


@dataclass(frozen=True)
class Stored:
    """A protected update that is still there: the row of its charge, and its digest."""

    sequence: int
    sha256: str


@dataclass
class Memory:
    """What one process verified in a ledger, to be believed again while nobody else wrote to the file.

    A resident service opens its ledger every round; without it, every round would read every row.
    """

    stamp: Stamp | None = None
    digests: list[Digest] = field(default_factory=list)
    book: Book = field(default_factory=Book)
    stored: dict[Release, Stored] = field(default_factory=dict)


def charge_from(body: dict[str, Any]) -> Charge:
    """A charge back from its row."""
    return Charge(
        release=release_from(body["release"]),
        event=DpEventSpec(**body["event"]),
        delta=body["delta"],
        cohort=Digest(body["cohort"]),
        patients=body["patients"],
        time=body["time"],
    )
