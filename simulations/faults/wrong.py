"""Hospitals that answer wrongly, slowly or not at all: each way once, in a federation in one process.

A wrong answer is made of the right one, at the place where a hostile or broken node would put it: after the site
service, before the server. What must come of it stands beside it: the code under which its sender is put aside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common import wire
from common.audit import read
from common.checkpoints import load
from common.errors import StorageError
from common.messages import Instruction, Kind, Update
from common.pages.page import NOTHING
from common.parts import RECORD
from common.plan import Plan
from common.types import SiteName
from server.exchange import NO_REPLY
from server.journal import read_federation
from server.reports.reasons import meaning
from server.survey import SKEW
from simulations.faults.absent import expected
from simulations.faults.toy import ToyDuties, toy_plan
from simulations.grid import InProcessGrid, run_on

_PICKLE: Final = b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06weight\x94K\x01s."
"""A dictionary as Python pickles it; written out, because nothing here reads or writes a pickle."""
SITES: Final = {"alpha": 100, "beta": 200, "gamma": 50}
WRONG: Final = "beta"
DUPLICATE: Final = "duplicate"
_ROUND: Final = 2
"""The round in which it goes wrong: not the first, so that there is an old reply to send again."""
_DEADLINE_S: Final = 1.5

Change = Callable[[bytes, list[bytes]], list[bytes | None]]
"""From the right reply, and those of the rounds before, to what arrives; None for an error of the node's."""


@dataclass(frozen=True)
class Case:
    """One way of being wrong, and the code under which it must be put aside; empty: nothing is lost by it."""

    code: str
    change: Change | None = None
    duties: Callable[[SiteName, Path, int], ToyDuties] | None = None
    """Where the fault is in the hospital itself."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: str
    code: str
    """Under which the sender was put aside in that round; empty: it was not."""
    clean: bool
    """Whether the model is, to the bit, that of the sites which were let in."""
    noted: bool
    """Whether the log names sender and reason, for which the reports have words."""
    seconds: float

    @property
    def well(self) -> bool:
        """Whether it came to what it must."""
        return self.code == CASES[self.case].code and self.clean and self.noted


def _edited(**changes: Any) -> Change:
    def change(blob: bytes, _before: list[bytes]) -> list[bytes | None]:
        update = wire.unpack(blob)
        if not isinstance(update, Update):
            return [blob]
        made = {key: value(update) if callable(value) else value for key, value in changes.items()}
        return [wire.pack(replace(update, **made))]

    return change


def _first(change: Callable[[Any], Any]) -> Change:
    def arrays(update: Update) -> dict[str, Any]:
        name = next(iter(update.arrays))
        return {**update.arrays, name: change(update.arrays[name])}

    return _edited(arrays=arrays)


def _filled(value: float) -> Change:
    return _first(lambda array: np.full_like(array, value))


def _worded(field_: str, value: object) -> Change:
    """A field that our own code would never write: put into the bytes."""

    def change(blob: bytes, _before: list[bytes]) -> list[bytes | None]:
        size = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + size])
        message = json.loads(header["__metadata__"][RECORD])
        message["body"][field_] = value
        header["__metadata__"][RECORD] = json.dumps(message)
        text = json.dumps(header).encode()
        return [len(text).to_bytes(8, "little") + text + blob[8 + size :]]

    return change


def _missing(update: Update) -> dict[str, Any]:
    return dict(list(update.arrays.items())[1:])


def _extra(update: Update) -> dict[str, Any]:
    return {**update.arrays, "extra": np.zeros(3, np.float32)}


class _Late(ToyDuties):
    """Answers after the deadline."""

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        if instruction.round == _ROUND:
            time.sleep(plan.federation.deadline_s * 1.2)
        return super().train(instruction, plan)


class _FullDisk(ToyDuties):
    """Cannot write its update down."""

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        if instruction.round == _ROUND:
            raise StorageError("update", "no space is left", "Free disk space", code="storage-full")
        return super().train(instruction, plan)


class _Raises(ToyDuties):
    """A bug with a patient's name in its text."""

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        if instruction.round == _ROUND:
            raise ValueError("cannot read /pacs/Anna_Muster.dcm")
        return super().train(instruction, plan)


CASES: Final[Mapping[str, Case]] = {
    "NaN": Case("not-finite", _filled(float("nan"))),
    "Inf": Case("not-finite", _filled(float("inf"))),
    "1e30": Case("too-large", _filled(1e30)),
    "long": Case("norm", _filled(1e5)),
    "wrong shape": Case("shape", _first(lambda array: array.reshape(-1))),
    "wrong dtype": Case("dtype", _first(lambda array: array.astype(np.float64))),
    "missing tensor": Case("names", _edited(arrays=_missing)),
    "extra tensor": Case("names", _edited(arrays=_extra)),
    "weight 0": Case("weight", _edited(weight=0)),
    "weight -1": Case("weight", _edited(weight=-1)),
    "weight 1e9": Case("weight", _edited(weight=1_000_000_000)),
    "weight NaN": Case("wire", _worded("weight", float("nan"))),
    "same reply twice": Case("", lambda blob, _before: [blob, blob]),
    "old round's reply": Case("round", lambda _blob, before: [before[0]]),
    "another site's name": Case("site", _edited(site="alpha")),
    "another run": Case("run", _edited(run="run-other")),
    "other code": Case("code-mismatch", _edited(code_digest="sha256:" + "0" * 64)),
    "over-large": Case("too-long", lambda blob, _before: [blob + bytes(64 << 20)]),
    "truncated": Case("wire", lambda blob, _before: [blob[: len(blob) // 2]]),
    "empty": Case("wire", lambda _blob, _before: [b""]),
    "a pickle": Case("wire", lambda _blob, _before: [_PICKLE]),
    "crashed": Case("no-reply", lambda _blob, _before: [None]),
    "silent": Case("no-reply", lambda _blob, _before: []),
    "slow": Case("timeout", duties=_Late),
    "full disk": Case("storage-full", duties=_FullDisk),
    "raises": Case("internal", duties=_Raises),
}


class Hurt(InProcessGrid):
    """A grid on which one node's replies in one round are changed."""

    def __init__(self, folders: Sequence[Path], node: int, change: Change | None) -> None:
        super().__init__(folders)
        self._node, self._change = node, change
        self._before: list[bytes] = []

    def deliver(self, message: Message) -> list[Message]:
        """The replies, with the fault in them."""
        replies = super().deliver(message)
        if self._change is None or message.metadata.dst_node_id != self._node:
            return replies
        asked = wire.unpack(wire.from_records(message.content))
        if not isinstance(asked, Instruction) or asked.kind is not Kind.TRAIN:
            return replies
        blob = wire.from_records(replies[0].content)
        if asked.round != _ROUND:
            self._before.append(blob)
            return replies
        return [_reply(made, message) for made in self._change(blob, self._before)]


def _reply(blob: bytes | None, message: Message) -> Message:
    if blob is None:
        return Message(Error(ErrorCode.NODE_UNAVAILABLE, "/pacs/Anna_Muster"), reply_to=message)
    return Message(wire.to_records(blob), reply_to=message)


def run(folder: Path, name: str) -> Outcome:
    """One case in a federation of three toy hospitals over three rounds.

    Raises:
        ConsiliumError: when the run did not complete, which is a failure in every case.
    """
    case = CASES[name]
    plan = toy_plan(sites=list(SITES), rounds=_ROUND + 1, least_sites=2, deadline_s=_DEADLINE_S)
    folders = _hospitals(folder, case)
    started = time.monotonic()
    record = run_on(Hurt(folders, list(SITES).index(WRONG) + 1, case.change), plan, folder / "out")
    seconds = time.monotonic() - started
    read_federation(folder / "out" / "federation.json")
    rounds = [set(r.sites) for r in record.rounds]
    lines = list(read(folder / "out" / "audit.jsonl"))
    told = json.dumps([e["fields"] for e in lines])
    return Outcome(
        name,
        record.rounds[_ROUND - 1].refused.get(WRONG, ""),
        clean=_same(folder / "out", expected(folder / "expected", plan, rounds, SITES))
        and "Anna" not in told,
        noted=_noted(case, lines),
        seconds=seconds,
    )


def _noted(case: Case, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the log names sender and reason, and of two releases both; silence is in the round's record alone."""
    if case.code == NO_REPLY:
        return True
    seen = [(e["event"], e["fields"]) for e in lines if e["fields"].get("site") == WRONG]
    refused = {fields["code"] for event, fields in seen if event == "update.refused"}
    skew = [fields for event, fields in seen if event == "version.skew"]
    both = all(fields["version"] != fields["digest"] for fields in skew)
    named = both and len(skew) == (case.code == SKEW)
    code = case.code or DUPLICATE
    return code in refused and named and meaning(code, reply=True)[0] != NOTHING


def _hospitals(folder: Path, case: Case) -> list[Path]:
    folders = []
    for name, bucket in SITES.items():
        site = init_site(folder / name, name, simulation_seed=1, policy=Policy(allow_non_private=True))
        kind = case.duties if case.duties is not None and name == WRONG else ToyDuties
        direct.host(SiteService(site, kind(SiteName(name), site.state, bucket)))
        folders.append(site.folder)
    return folders


def _same(one: Path, two: Path) -> bool:
    first, second = (load(out / "model.safetensors").arrays for out in (one, two))
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def table(outcomes: Sequence[Outcome]) -> str:
    """What came of each case, as a table of Markdown."""
    lines = ["| a hospital sends | it is put aside as | nothing of it in the model |", "|---|---|---|"]
    for row in outcomes:
        aside = f"`{row.code}`" if row.code else "counted once, the second is `duplicate`"
        lines.append(f"| {row.case} | {aside} | {'yes' if row.clean else 'NO'} |")
    return "\n".join(lines)
