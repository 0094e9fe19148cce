"""The site's one way to its ledger: opened, checked against what was countersigned, and paid at.

`send` is the order of law 2: what the server countersigned is judged first; a release that is stored already
is given again, byte for byte; otherwise it is paid for before its noise can be drawn, and on disk before it
is handed over. Whoever makes the release gets `pay` and nothing else of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Final

from client.privacy.heads import NAME, Expected, Heads
from client.privacy.ledger import Ledger, Limits, Memory, Receipt, Release
from client.privacy.ledger_open import refuse
from client.privacy.limits import Span
from client.site import Site
from common.accounting import DpEventSpec
from common.audit import AuditLog
from common.errors import LedgerError, WrongOrder
from common.messages import Countersignature, LedgerHead
from common.types import RunId

Pay = Callable[[Collection[str], DpEventSpec, Limits], Receipt]
"""Charges the cohort with an event within limits; returns when that is on disk."""
Work = Callable[[Pay], bytes]
"""Pays, then draws noise, then gives the protected update."""


@dataclass(frozen=True)
class Asked:
    """Which release somebody wants, and what came with the wish."""

    release: Release
    countersignature: Countersignature | None = None
    alone: bool = False
    """The hospital asks itself, without a consortium: nobody is there to countersign."""


class Desk:
    """The ledger of one site, for one process."""

    def __init__(self, site: Site, ledger: type[Ledger] = Ledger) -> None:
        self._site = site
        self._ledger: Final = ledger
        self._audit = AuditLog(site.audit)
        self._memory = Memory()
        self._warned: set[tuple[RunId, Span]] = set()
        self._lines: list[tuple[str, dict[str, object]]] = []

    @contextmanager
    def open(self) -> Iterator[Ledger]:
        """The ledger, which contains what was countersigned.

        Raises:
            LedgerError: what `Ledger` says, `ledger-rollback`, `ledger-fork`, `ledger-countersign`.
        """
        with self._opened() as (ledger, _):
            yield ledger

    def head(self) -> LedgerHead | None:
        """Of the ledger as it stands; None, and a line in the audit log, when it is not fit for use."""
        try:
            with self.open() as ledger:
                return ledger.head
        except LedgerError as error:
            self._audit.append("ledger.refused", code=error.code)
            return None

    def send(self, asked: Asked, work: Work) -> bytes:
        """The protected update of a release: the one that is stored, or a new one, paid for.

        Raises:
            LedgerError: what stands in the way; nothing was drawn. Whatever `work` raises: what it paid stays paid.
            WrongOrder: `work` did not pay.
        """
        try:
            with self._opened() as (ledger, heads):
                self._countersigned(ledger, heads, asked)
                release = asked.release
                stored = ledger.replay(release)
                if stored is not None:
                    self._write("update.replayed", run=release.run, round=release.round)
                    return stored
                return self._anew(ledger, release, work)
        except LedgerError as error:
            self._write("ledger.refused", code=error.code, run=asked.release.run)
            raise

    def charge(
        self, release: Release, spend_keys: Collection[str], event: DpEventSpec, limits: Limits
    ) -> Receipt:
        """Pay for something that leaves and is not an update; see `Ledger.charge`."""
        with self.open() as ledger:
            receipt = ledger.charge(release, spend_keys, event, limits)
        self._note(receipt)
        return receipt

    def _anew(self, ledger: Ledger, release: Release, work: Work) -> bytes:
        paid: list[Receipt] = []

        def pay(spend_keys: Collection[str], event: DpEventSpec, limits: Limits) -> Receipt:
            """Once, before any noise."""
            if paid:
                raise WrongOrder("desk", "a release is paid for once", "Ask for another release")
            paid.append(ledger.charge(release, spend_keys, event, limits))
            self._note(paid[0])
            return paid[0]

        blob = work(pay)
        if not paid:
            raise WrongOrder("desk", "what was made was not paid for", "Pay first, then draw noise")
        ledger.store_update(paid[0], blob)
        return blob

    def _countersigned(self, ledger: Ledger, heads: Heads, asked: Asked) -> None:
        if asked.alone:
            return
        release, given = asked.release, asked.countersignature
        pinned = heads.accept(ledger, given, Expected(self._site.name, release.run, release.round))
        if given is None:
            return
        if pinned:
            self._lines.append(("server.pinned", {"digest": heads.known.fingerprint}))
        head = {"count": given.head.sequence, "digest": given.head.digest}
        self._lines.append(("head.countersigned", {**head, "run": release.run, "round": release.round}))

    def _note(self, receipt: Receipt) -> None:
        release, head = receipt.release, receipt.head
        where: dict[str, object] = {"run": release.run, "round": release.round}
        for usage in receipt.warnings:
            if (release.run, usage.span) not in self._warned:
                self._warned.add((release.run, usage.span))
                spent = {"epsilon": usage.epsilon} if isfinite(usage.epsilon) else {}
                self._lines.append(("ledger.warning", {**where, "kind": usage.span.value, **spent}))
        self._write("ledger.charged", **where, count=head.sequence, digest=head.digest)

    def _write(self, event: str, **fields: object) -> None:
        """The line, after those that waited for it: one sync of the log for all."""
        lines, self._lines = [*self._lines, (event, fields)], []
        self._audit.append_many(lines)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Ledger, Heads]]:
        heads = Heads(self._site.state / NAME)
        with self._ledger_of(heads) as ledger:
            heads.check(ledger)
            yield ledger, heads

    def _ledger_of(self, heads: Heads) -> Ledger:
        # A virtual hospital's ledger begins with its first round; a real one is made with the site and
        # never again, because a missing ledger must not pass for an unspent one.
        path, simulated = self._site.ledger, self._site.simulated
        if simulated and not path.exists():
            if heads.known.newest is not None:
                refuse("missing", "the ledger is not there", "Restore the newest one; never make a fresh one")
            self._ledger.create(path, simulated=True).close()
        return self._ledger(path, simulated=simulated, memory=self._memory)
