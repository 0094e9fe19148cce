"""A real site doing rounds, as a process of its own that may be recorded or killed.

The work is small, and everything around it is the real thing: instruction, desk, ledger, countersignature,
stored update. Each round says on a side channel when its noise is drawn (`noise`) and when its bytes are handed
over (`sent`): what a sceptic outside would have seen.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from pathlib import Path
from typing import Final

from client.privacy.desk import Asked, Desk
from client.privacy.ledger import Ledger, Limits, Release
from client.site import load_site
from common.accounting import DpEventSpec
from common.heads import countersign
from common.identity import Identity
from common.types import RunId
from tests.client import ledger_mutants

COHORT: Final = [f"key-{number:03d}" for number in range(12)]
EVENT: Final = DpEventSpec(1.0, 60.0, 1)
LIMITS: Final = Limits(run_epsilon=50.0, lifetime_epsilon=50.0, delta=1e-5)
BYTES: Final = 9000
"""Of an update: more than two pages of the file."""


def release_of(number: int) -> Release:
    """The release of one round."""
    return Release(RunId("run-a"), number, "sha256:plan", f"sha256:model-{number}")


def rounds(folder: Path, marks: int, first: int, last: int, kind: str = "real") -> None:
    """Do rounds `first` to `last` at the site in `folder`, telling `marks` what the world could see."""
    site = load_site(folder)
    desk = ledger_mutants.DESKS[kind](site)
    server = Identity.load(folder / "server.key")
    for number in range(first, last + 1):
        head = desk.head()
        word = countersign(server, site.name, head, RunId("run-a"), number) if head else None

        def work(pay, number=number):
            """Pay, draw, and give what would be sent."""
            pay(COHORT, EVENT, LIMITS)
            os.write(marks, f"noise {number}\n".encode())
            return secrets.token_bytes(BYTES)

        blob = desk.send(Asked(release_of(number), word), work)
        os.write(marks, f"sent {number} {hashlib.sha256(blob).hexdigest()}\n".encode())


def main() -> None:
    """Rounds as the command line says: folder, marks, first, last, kind of desk."""
    folder, marks, first, last, kind = sys.argv[1:]
    channel = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rounds(Path(folder), channel, int(first), int(last), kind)


if __name__ == "__main__":
    main()

__all__ = ["COHORT", "EVENT", "LIMITS", "Desk", "Ledger", "release_of", "rounds"]
