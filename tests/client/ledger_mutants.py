"""Ledgers that break law 2 on purpose, at the port where the real one stands; the walk must catch each."""

from __future__ import annotations

from typing import Final

from client.privacy.desk import Desk
from client.privacy.ledger import Ledger


class WritesAfter(Desk):
    """Draws the noise first and charges once the update is made."""

    def _anew(self, ledger, release, work):
        asked = []
        blob = work(lambda *of: asked.append(of))
        receipt = ledger.charge(release, *asked[0])
        ledger.store_update(receipt, blob)
        return blob


class SendsBeforeStoring(Desk):
    """Hands the update over and stores it with the round after: a crash between makes a second, other one."""

    _late = None

    def _anew(self, ledger, release, work):
        receipts = []

        def pay(*of):
            receipts.append(ledger.charge(release, *of))
            return receipts[0]

        return work(pay)


class _Batching(Ledger):
    """Keeps charges in memory and commits them by the three."""

    def __init__(self, *args, **kwargs):
        self._late = []
        super().__init__(*args, **kwargs)

    def charge(self, release, spend_keys, event, limits):
        self._late.append((release, spend_keys, event, limits))
        held = _HELD.setdefault(id(self._memory), [])
        held.append(self._late[-1])
        if len(held) < 3:
            return None
        receipts = [super(_Batching, self).charge(*of) for of in held]
        held.clear()
        return receipts[-1]

    def store_update(self, receipt, blob):
        return None if receipt is None else super().store_update(receipt, blob)


_HELD: dict[int, list] = {}


class Batches(Desk):
    """A desk with the batching ledger behind it."""

    def __init__(self, site):
        super().__init__(site, _Batching)

    def _note(self, receipt):
        if receipt is not None:
            super()._note(receipt)


DESKS: Final = {
    "real": Desk,
    "writes-after": WritesAfter,
    "batches": Batches,
    "sends-first": SendsBeforeStoring,
}
