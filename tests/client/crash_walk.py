"""Power failures at every place of a round, and kills at random moments; what the ledger then knows.

`python -m tests.client.crash_walk --kills 1000` does the kills by command.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.policy import Policy
from client.privacy.desk import Asked, Desk
from client.privacy.heads import NAME, Heads
from client.privacy.ledger import Ledger
from client.site import init_site, load_site
from common.errors import ConsiliumError
from common.heads import countersign
from common.identity import Identity
from common.types import RunId
from tests.client.crash_rounds import COHORT, EVENT, LIMITS, release_of, rounds
from tests.client.disk import Disk
from tests.client.strace import Op, record
from tests.client.walked import MEMORY, Count, Failing


@dataclass
class Seen:
    """What the world saw before the crash."""

    noise: list[int] = field(default_factory=list)
    sent: dict[int, str] = field(default_factory=dict)
    changed: list[int] = field(default_factory=list)
    """Rounds that were sent twice, with other bytes."""

    def add(self, line: str) -> None:
        """One mark."""
        word, number, *rest = line.split()
        if word == "noise":
            self.noise.append(int(number))
        elif self.sent.setdefault(int(number), rest[0]) != rest[0]:
            self.changed.append(int(number))


@dataclass
class Found(Count):
    """What was wrong in the ledger: charges too few, too many, and other bytes."""

    under: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong anywhere."""
        return not (self.under or self.over or self.other)


def new_site(folder: Path) -> Path:
    """A real (not simulated) site with its ledger, and a server's key beside it."""
    site = init_site(folder, "alpha", policy=Policy(min_patients=1))
    Ledger.create(site.ledger).close()
    Identity.make(folder / "server.key")
    return folder


def walk(folder: Path, kind: str, scratch: Path, *, samples: int = 2, seed: int = 0) -> Found:
    """Record two rounds of a real process after one that went well, and fail the power at every operation."""
    run(folder, kind, 1, 1, scratch)
    failing, found, seen = Failing(Disk.of(folder), samples, seed), Found(), Seen()
    marks = scratch / "marks"
    ops = record(
        [sys.executable, "-m", "tests.client.crash_rounds", folder, marks, "2", "3", kind], folder, marks
    )
    failing.each(ops, seen.add, lambda state, place: judge(state, seen, 1, place, found), found)
    return found


def judge(folder: Path, seen: Seen, base: int, place: str, found: Found) -> None:
    """Open what a crash left with the real code, hold it against what the world saw, and go on."""
    (folder / "server.key").chmod(0o600)
    try:
        site = load_site(folder)
        desk = Desk(site)
        with desk.open() as ledger:
            rows = [charge.release.round for charge in ledger.charges]
            for number in seen.noise:
                if rows.count(number) < seen.noise.count(number):
                    found.under.append(f"{place}: round {number} drew noise and is not charged")
            if len(rows) > base + len(seen.noise) + 1:
                found.over.append(f"{place}: {len(rows)} charges for {len(seen.noise)} rounds")
            for number, sha256 in seen.sent.items():
                again = ledger.replay(release_of(number))
                if again is not None and hashlib.sha256(again).hexdigest() != sha256:
                    found.other.append(f"{place}: round {number} would be sent with other bytes")
                if again is None:
                    found.other.append(f"{place}: round {number} was sent and is not kept")
        _go_on(folder, desk)
    except (ConsiliumError, OSError) as error:
        found.other.append(f"{place}: {error}")


def _go_on(folder: Path, desk: Desk) -> None:
    """The next round, countersigned, charged and stored."""
    server = Identity.load(folder / "server.key")
    site = load_site(folder)
    head = desk.head()
    word = countersign(server, site.name, head, RunId("run-a"), 9) if head else None
    sent = desk.send(Asked(release_of(9), word), lambda pay: (pay(COHORT, EVENT, LIMITS), b"next")[1])
    with desk.open() as ledger:
        if ledger.replay(release_of(9)) != sent or Heads(site.state / NAME).known.newest is None:
            raise OSError("the site could not go on")


def tried_making(ops: Sequence[Op], folder: Path, scratch: Path) -> int:
    """Fail the power while a ledger is made; afterwards it opens, or can be made. How many states there were.

    Raises:
        LedgerError: when neither goes, or when one that was reported as made is gone.
    """
    reported: list[str] = []
    count = Count()

    def judge(state: Path, _: str) -> None:
        path = state / "ledger.sqlite"
        if reported or path.exists():
            Ledger(path).close()
        else:
            Ledger.create(path).close()

    Failing(Disk(), samples=3).each(ops, reported.append, judge, count)
    return count.states


def run(folder: Path, kind: str, first: int, last: int, scratch: Path) -> None:
    """Rounds in this process, seen by nobody."""
    marks = os.open(scratch / "before", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        rounds(folder, marks, first, last, "real")
    finally:
        os.close(marks)


def kills(scratch: Path, count: int, seed: int = 0, kind: str = "real", each: int = 20) -> Found:
    """Kill a process that does rounds, again and again at random moments; a fresh site after every `each`."""
    rng, found = random.Random(seed), Found()
    folder, seen, base, first = scratch, Seen(), 0, 1
    for number in range(count):
        if number % each == 0:
            folder, seen, base, first = new_site(scratch / f"site-{number}"), Seen(), 0, 10
            run(folder, kind, 1, 1, scratch)
            base = 1
        marks = scratch / f"marks-{number}"
        _killed(folder, marks, first, kind, rng.uniform(0.0, 0.03))
        lines = marks.read_text().splitlines() if marks.exists() else []
        for line in lines:
            seen.add(line)
        found.points += 1
        found.states += 1
        with Desk(load_site(folder)).open() as ledger:
            done = [charge.release.round for charge in ledger.charges]
            for drawn in seen.noise:
                if done.count(drawn) < seen.noise.count(drawn):
                    found.under.append(f"kill {number}: round {drawn} drew noise and is not charged")
            if len(done) > base + len(seen.noise) + number % each + 1:
                found.over.append(f"kill {number}: {len(done)} charges for {len(seen.noise)} rounds")
            _same_bytes(ledger, seen, number, found)
        first = max([first, *done]) if rng.random() < 0.5 else max([first, *done]) + 1
    return found


def _same_bytes(ledger: Ledger, seen: Seen, number: int, found: Found) -> None:
    found.other += [f"kill {number}: round {sent} was sent twice, with other bytes" for sent in seen.changed]
    for sent, sha256 in seen.sent.items():
        again = ledger.replay(release_of(sent))
        if again is not None and hashlib.sha256(again).hexdigest() != sha256:
            found.other.append(f"kill {number}: round {sent} would be sent with other bytes")


def _killed(folder: Path, marks: Path, first: int, kind: str, after_s: float) -> None:
    child = os.fork()
    if child == 0:
        try:
            rounds(
                folder, os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), first, first + 50, kind
            )
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Walk and kill by command; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--walk", action="store_true")
    parser.add_argument("--kind", default="real")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=2)
    asked = parser.parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="crash-walk-", dir=MEMORY))
    begun, bad = time.monotonic(), 0
    try:
        for name, wanted in (("walk", asked.walk), ("kills", asked.kills)):
            if not wanted:
                continue
            part = scratch / name
            part.mkdir()
            if name == "walk":
                found = walk(
                    new_site(part / "site"), asked.kind, part, samples=asked.samples, seed=asked.seed
                )
            else:
                found = kills(part, asked.kills, asked.seed, asked.kind)
            bad += not found.clean
            told = f"{found.points} points, {found.states} states, under-counts {len(found.under)}"
            told += (
                f", over-counts {len(found.over)}, other {len(found.other)}, {time.monotonic() - begun:.1f} s"
            )
            sys.stdout.write(f"{name}: {told}\n")
            for line in [*found.under, *found.over, *found.other][:12]:
                sys.stdout.write(f"  {line}\n")
    finally:
        shutil.rmtree(scratch)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Found", "Op", "judge", "kills", "new_site", "walk"]
