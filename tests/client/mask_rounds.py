"""A real site in masked rounds, as a process of its own that may be recorded; and sites that break the law of masks.

The site works with the real store; the other hospitals and the server sit at the same table (`tests.masked_round`), in
folders that nobody watches. Each question is put down before it is asked, and each answer is told on a side
channel when it is handed over: what a sceptic outside would have seen.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Final

import numpy as np

from client.privacy.masking import STAGES, Masking
from client.privacy.masking_store import Store
from common import wire
from common.arrays import digest
from common.messages import Kind
from tests.masked_round import Table, table

SITES: Final = 4
SITE: Final = "site-0"
LOST: Final = "site-3"
"""Vanishes once it has shared out, so that every round has somebody dead."""


class Unsynced(Store):
    """Leaves it to the operating system when anything reaches the platter."""

    synchronous = "OFF"


class SendsFirst(Masking):
    """Hands an answer over, and stores it with the next question."""

    _late = None

    def answer(self, instruction, plan, train):
        if self._late is not None:
            kept, self._late = self._late, None
            with self._store.open() as book:
                book.answer(*kept)
        return super().answer(instruction, plan, train)

    def _kept(self, book, asked, reply):
        if asked.instruction.kind not in (Kind.TRAIN, Kind.CONSENT):
            return super()._kept(book, asked, reply)
        self._late = (asked.instruction.run, asked.instruction.kind, asked.digest, wire.pack(reply))
        return reply


class ForgetsMasks(Masking):
    """Does not note which update it masked: the very same one may get a second mask."""

    def _trained(self, asked, update):
        reply = super()._trained(asked, update)
        with self._store.open() as book:
            book._base.execute("DELETE FROM masks")
        return reply


HALVES: Final = {
    "real": Masking,
    "unsynced": lambda site: Masking(site, Unsynced),
    "sends-first": SendsFirst,
    "forgets-masks": ForgetsMasks,
}


def seated(folder: Path, kind: str = "real") -> Table:
    """The table in a folder, made there where there is none."""
    made = table(folder, SITES)
    made.halves[SITE] = HALVES[kind](made.sites[SITE])
    return made


def rounds(made: Table, numbers: range, asked: Path, marks: int) -> None:
    """Masked rounds of everybody, of which the world sees what `SITE` answers."""
    plain, updates = made.ask, made.updates

    def seen(name, kind, secure, model=None, **other):
        if name != SITE:
            return plain(name, kind, secure, model, **other)
        key = f"{made.round} {kind.value}"
        (asked / key.replace(" ", "-")).write_bytes(wire.pack(made.instruction(kind, secure, model, **other)))
        os.write(marks, f"asked {key}\n".encode())
        blob = wire.pack(plain(name, kind, secure, model, **other))
        content = digest(made.updates[SITE]) if kind is Kind.TRAIN else "-"
        os.write(marks, f"sent {key} {hashlib.sha256(blob).hexdigest()} {content}\n".encode())
        return wire.unpack(blob)

    made.ask = seen
    for number in numbers:
        made.round, made.keys, made.dealt, made.masked, made.consents, made.opened = (
            number,
            {},
            {},
            {},
            {},
            {},
        )
        made.updates = {
            site: {n: (a * np.float32(0.9**number)).astype(np.float32) for n, a in update.items()}
            for site, update in updates.items()
        }
        for stage in STAGES:
            getattr(made, f"do_{stage.value}")(*((LOST,) if stage is Kind.TRAIN else ()))
        found, _ = made.total()
        exact = made.expected()
        if any(np.abs(found.counts[n] * 2.0**-32 - exact[n]).max() > 1e-3 for n in exact):
            raise ValueError("the sum is another")


def main() -> None:
    """Rounds as the command line says: folder, folder of questions, marks, first, last, kind of site."""
    folder, asked, marks, first, last, kind = sys.argv[1:]
    channel = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rounds(seated(Path(folder), kind), range(int(first), int(last) + 1), Path(asked), channel)


if __name__ == "__main__":
    main()
