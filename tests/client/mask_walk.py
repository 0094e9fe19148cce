"""Power failures at every write of masked rounds: one mask for an update ever, the same bytes again, never two masks.

`python -m tests.client.mask_walk --samples 4` walks them all by command. The disk is that of the ledger's walk
(`tests.client.disk`), the process a real one under strace. In each state that a failure could leave

1. a question whose answer the world has seen gets the same bytes, though the hospital would now learn something else:
   two updates under one mask tell their difference;
2. an update that left under masks is known as such, so that it gets no second mask in another group;
3. another list of who is alive is refused once one was consented to: both would open a site;
4. a question that was under way gets an answer, the same twice; and the next round can begin.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from client.privacy.masking import Masking
from client.privacy.masking_store import NAME, Store
from client.site import load_site
from common import wire
from common.errors import ConsiliumError, FederationError
from common.messages import Instruction, Kind, Secure
from tests.client import mask_rounds
from tests.client.disk import Disk
from tests.client.mask_rounds import LOST, SITE
from tests.client.strace import record
from tests.client.walked import MEMORY, Failing, Found
from tests.masked_round import Table

Key = tuple[int, str]
"""Round and stage."""


@dataclass
class World:
    """What was asked and seen before the power failed."""

    asked: list[Key] = field(default_factory=list)
    sent: dict[Key, str] = field(default_factory=dict)
    """SHA-256 of the answer."""
    masked: list[str] = field(default_factory=list)
    """Digests of updates that left under masks."""

    def add(self, line: str) -> None:
        """One mark."""
        word, number, kind, *rest = line.split()
        key = (int(number), kind)
        if word == "asked":
            self.asked.append(key)
            return
        self.sent[key] = rest[0]
        if kind == Kind.TRAIN.value:
            self.masked.append(rest[1])


def walk(scratch: Path, kind: str = "real", *, last: int = 2, samples: int = 2, seed: int = 0) -> Found:
    """Record rounds of a real process, round 1 among them, and fail the power at every operation."""
    made = mask_rounds.seated(scratch / "table")
    folder, asked, marks = made.sites[SITE].folder, scratch / "asked", scratch / "marks"
    asked.mkdir()
    failing, world, found = Failing(Disk.of(folder), samples, seed), World(), Found()
    words = [made.folder, asked, marks, "1", str(last), kind]
    ops = record([sys.executable, "-m", "tests.client.mask_rounds", *words], folder, marks)

    def judge(state: Path, place: str) -> None:
        _judge(state, made, world, asked, (found, place))

    failing.each(ops, world.add, judge, found)
    return found


def _judge(folder: Path, made: Table, world: World, asked: Path, into: tuple[Found, str]) -> None:
    """Open what a failure left with the real code, and hold it against what the world saw."""
    found, place = into
    for key in folder.rglob("*.key"):
        key.chmod(0o600)
    half, site = Masking(load_site(folder)), load_site(folder)
    made.sites[SITE], made.halves[SITE] = site, half
    # Whatever would be learned now is something else than before: noise is drawn anew.
    made.updates[SITE] = {n: a + np.float32(1e-3) for n, a in made.updates[SITE].items()}
    newest = max((number for number, _ in world.sent), default=0)
    for key, sha256 in world.sent.items():
        told = _again(made, asked, key)
        if key[0] == newest and told != sha256:
            found.changed.append(f"{place}: {key} would be answered with {told}")
        if key[0] < newest and told != "secagg-replayed":
            found.changed.append(f"{place}: {key} of a round that is over is answered with {told}")
    with Store(site.state / NAME).open() as book:
        found.lawless += [
            f"{place}: an update that left is forgotten" for c in world.masked if book.bond_of(c) is None
        ]
    if (newest, Kind.CONSENT.value) in world.sent:
        found.lawless += _another_list(made, asked, newest, place)
    _goes_on(made, world, asked, into)


def _again(made: Table, asked: Path, key: Key) -> str:
    """SHA-256 of the answer to a question that was asked before, or the code of the refusal."""
    try:
        return hashlib.sha256(wire.pack(_ask(made, _question(asked, key)))).hexdigest()
    except ConsiliumError as error:
        return error.code


def _another_list(made: Table, asked: Path, number: int, place: str) -> list[str]:
    """Whether the site would say of the lost one that it is alive after all."""
    question = _question(asked, (number, Kind.CONSENT.value))
    given = question.secure or Secure(made.terms)
    alive = tuple(sorted((*given.alive, LOST)))
    try:
        _ask(made, replace(question, secure=replace(given, alive=alive, dead=())))
    except FederationError as error:
        return [] if error.code == "secagg-two-lists" else [f"{place}: another list: {error.code}"]
    return [f"{place}: a second list was consented to"]


def _goes_on(made: Table, world: World, asked: Path, into: tuple[Found, str]) -> None:
    """What was under way is answered, twice alike; then the next round begins."""
    found, place = into
    under_way = [key for key in world.asked if key not in world.sent]
    for key in under_way:
        told = [_again(made, asked, key) for _ in range(2)]
        if told[0] != told[1] or len(told[0]) != 64:
            found.stuck.append(f"{place}: {key} is answered with {told[0]}, then {told[1]}")
    made.round = 9
    try:
        made.ask(SITE, Kind.KEYS, Secure(made.terms))
    except ConsiliumError as error:
        found.stuck.append(f"{place}: no next round: {error.code}")


def _question(asked: Path, key: Key) -> Instruction:
    found = wire.unpack((asked / f"{key[0]}-{key[1]}").read_bytes())
    if not isinstance(found, Instruction):
        raise TypeError("a question is one")
    return found


def _ask(made: Table, question: Instruction):
    return made.halves[SITE].answer(question, made.plan, lambda: made.update(SITE, question))


def main(arguments: Sequence[str] | None = None) -> int:
    """Walk by command; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="real", choices=sorted(mask_rounds.HALVES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    scratch, begun = Path(tempfile.mkdtemp(prefix="mask-walk-", dir=MEMORY)), time.monotonic()
    try:
        found = walk(scratch, given.kind, last=given.rounds, samples=given.samples, seed=given.seed)
    finally:
        shutil.rmtree(scratch)
    sys.stdout.write(found.told("masks", time.monotonic() - begun))
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
