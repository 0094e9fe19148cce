"""What a run leaves in its folder, and how it goes on from there after a crash.

`audit.jsonl`            each step as it happened, hash-chained
`checkpoint.safetensors` the model and the record after each completed round
`round/<site>.update`    updates that were admitted to the round under way; gone when it is complete
`run.lock`               held by the one process that carries the run out
`plan.toml`              what is carried out
`federation.json`        the record (`server.records.FederationRecord`), when the run ended
`model.safetensors`      the final model, when the run completed
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from common import checkpoints, tensors, wire
from common.audit import AuditLog
from common.checkpoints import Checkpoint
from common.code import code_digest
from common.errors import FederationError, StorageError
from common.locks import taken
from common.messages import Update
from common.plan import Plan, dump_plan
from common.tensors import Blob
from common.types import Arrays, Digest, RunId, SiteName
from server.records import FederationRecord

_ADAPTER: Final = TypeAdapter(FederationRecord)
COMPLETED: Final = "completed"
RUNNING: Final = "running"
_DIGEST_BYTES: Final = 32
_LOCK_S: Final = 20.0
"""How long the folder is waited for: a process that was killed lets go at once, its orphans within seconds."""


@dataclass(frozen=True)
class Saved:
    """Where an earlier run with the same folder came to."""

    record: FederationRecord
    arrays: Arrays
    round: int


def architecture_here(out: Path, plan: Plan) -> Digest | None:
    """The digest of the network in this folder, where the same code carried the same plan out; None elsewhere.

    To go on then takes no network to be built, which is most of the time a server takes to be back.
    """
    try:
        saved = checkpoints.load(out / "checkpoint.safetensors", mapped=True)
        record = _record(saved.state, "checkpoint")
    except StorageError:
        return None
    same = saved.plan_digest == plan.digest and record.code_digest == code_digest()
    return saved.architecture if same else None


class Journal:
    """The one writer of a run's folder."""

    def __init__(self, out: Path, plan: Plan, architecture: Digest) -> None:
        self._out = out
        self._plan = plan
        self._architecture = architecture
        self._asked: tuple[Blob, hashlib._Hash] | None = None
        self.audit = AuditLog(out / "audit.jsonl", None)

    @contextmanager
    def owned(self, wait_s: float = _LOCK_S) -> Iterator[None]:
        """Hold the folder: a run that is submitted again must not meet what is left of itself.

        Args:
            wait_s: how long to wait for another process to let go.

        Raises:
            FederationError: code `out-busy` when another process carries this run out.
            StorageError: when the folder cannot be written.
        """
        path = self._out / "run.lock"
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            mine = taken(path, wait_s)
        except BlockingIOError:
            raise FederationError(
                "folder out", "another process carries this run out", "Wait for it", code="out-busy"
            ) from None
        except OSError:
            raise StorageError(path.name, "it cannot be made", "Check free space and rights") from None
        with mine:
            yield

    def begin(self, record: FederationRecord) -> None:
        """Put on disk what is asked, and that the run is under way: nobody must take an earlier end for its end."""
        plan = self._out / "plan.toml"
        if not plan.exists():
            checkpoints.write_whole(plan, dump_plan(self._plan).encode())
        write_federation(record, self._out / "federation.json")

    def keep(self, question: Blob, site: SiteName, update: Blob) -> None:
        """Put an admitted update of the round under way on disk; on disk when this returns.

        Args:
            question: the bytes that were asked, so that the update counts for this round, run and model only.
            site: whose it is; a name of the roster.
            update: the reply as it came.
        """
        seal: list[bytes | memoryview] = [self._seal(question, update)]
        content = chain(seal, tensors.portions(update))
        checkpoints.write_pieces(self._round / f"{site}.update", content)

    def kept_of(self, site: SiteName) -> Update:
        """What `keep` has put on disk of a site, as it lies there, memory-mapped."""
        return _update_in(self._round / f"{site}.update")

    def kept(self, question: Blob) -> Iterator[tuple[SiteName, Update, int]]:
        """The updates of the same question that were admitted before a restart, memory-mapped; others are deleted.

        Each with its site and its length in bytes.
        """
        for path in sorted(self._round.glob("*.update")):
            content = tensors.pages(path)
            with memoryview(content)[_DIGEST_BYTES:] as update:
                whole, size = content[:_DIGEST_BYTES] == self._seal(question, update), len(update)
            if whole:
                yield SiteName(path.stem), _update_in(path), size
            else:
                path.unlink(missing_ok=True)

    def _seal(self, question: Blob, update: Blob) -> bytes:
        """SHA-256 of both; the question's part of it is worked out once a round."""
        if self._asked is None or self._asked[0] is not question:
            self._asked = (question, _hashed(hashlib.sha256(), question))
        return _hashed(self._asked[1].copy(), update).digest()

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self._out

    @property
    def architecture(self) -> Digest:
        """Of the network that the run trains."""
        return self._architecture

    @property
    def under_way(self) -> Path:
        """Folder of what the round under way came to so far; it goes when the round is saved."""
        return self._round

    @property
    def _round(self) -> Path:
        return self._out / "round"

    def resume(self) -> Saved | None:
        """What was saved here before, or None for a fresh folder.

        Raises:
            FederationError: code `out-used` when the folder belongs to another plan.
            StorageError: when the checkpoint cannot be read or is another network's.
        """
        path = self._out / "checkpoint.safetensors"
        if not path.exists():
            return None
        saved = checkpoints.load(path, mapped=True)
        if saved.plan_digest != self._plan.digest:
            raise FederationError(
                "folder out", "it holds a run of another plan", "Choose another folder", code="out-used"
            )
        saved = checkpoints.load(path, self._architecture, mapped=True)
        return Saved(_record(saved.state, path.name), saved.arrays, saved.round)

    def save(self, record: FederationRecord, arrays: Arrays, round_: int) -> Arrays:
        """Put the state after `round_` completed rounds on disk; gives the model as it lies there, memory-mapped."""
        self._save("checkpoint.safetensors", record, arrays, round_)
        return tensors.mapped(self._out / "checkpoint.safetensors")[1].ordered(arrays)

    def forget_round(self) -> None:
        """The round is complete and on disk: its updates may go."""
        shutil.rmtree(self._round, ignore_errors=True)

    def finish(self, record: FederationRecord, arrays: Arrays | None) -> None:
        """Write the record, and the model when the run completed."""
        if arrays is not None:
            self.save(record, arrays, self._plan.federation.rounds)
            self._save("model.safetensors", record, arrays, self._plan.federation.rounds)
        write_federation(record, self._out / "federation.json")

    def _save(self, name: str, record: FederationRecord, arrays: Arrays, round_: int) -> None:
        checkpoints.save(
            Checkpoint(
                run=_run(record),
                round=round_,
                plan_digest=self._plan.digest,
                architecture=self._architecture,
                arrays=arrays,
                state=json.dumps(_plain(record) if name.startswith("checkpoint") else _label(record)),
            ),
            self._out / name,
        )


def _hashed(state: hashlib._Hash, content: Blob) -> hashlib._Hash:
    for portion in tensors.portions(content):
        state.update(portion)
    return state


def _update_in(path: Path) -> Update:
    found = wire.unpack_file(path, _DIGEST_BYTES)
    if not isinstance(found, Update):
        raise StorageError(path.name, "it holds no update", "Start the run anew in another folder")
    return found


def is_owned(out: Path) -> bool:
    """Whether a process carries out the run in this folder right now; the kernel frees it with the process."""
    path = out / "run.lock"
    if not path.exists():
        return False
    try:
        taken(path).close()
    except BlockingIOError:
        return True
    return False


def _plain(record: FederationRecord) -> dict[str, object]:
    """The record as plain values, in a tenth of the time that `dataclasses.asdict` takes for many sites."""
    plain: dict[str, object] = _ADAPTER.dump_python(record)
    return plain


def _label(record: FederationRecord) -> dict[str, object]:
    """What a model says of itself wherever it is copied: whether sites are missing in it."""
    return {"subset": record.subset, "trained": len(record.trained), "expected": len(record.expected)}


def write_federation(record: FederationRecord, path: Path) -> None:
    """Write a federated run's record, whole or not at all."""
    checkpoints.write_whole(path, json.dumps(_plain(record), indent=1, sort_keys=True).encode())


def read_federation(path: Path) -> FederationRecord:
    """Read a federated run's record back.

    Raises:
        StorageError: when it is not there or not a record.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise StorageError(path.name, "it cannot be read", "Look whether the run began") from None
    return _record(text, path.name)


def read_live(home: Path) -> FederationRecord:
    """The record of the run in this folder as it stands: of its end, else of its last completed round.

    Raises:
        StorageError: there is none yet.
    """
    ended = read_federation(home / "federation.json")
    saved = home / "checkpoint.safetensors"
    if ended.status != RUNNING or not saved.exists():
        return ended
    try:
        with safe_open(saved, framework="numpy") as file:
            state = (file.metadata() or {})["state"]
    except (OSError, SafetensorError, KeyError):
        return ended
    return _record(state, saved.name)


def _record(text: str, name: str) -> FederationRecord:
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError:
        raise StorageError(name, "it holds no record of a run", "Use another folder") from None


def _run(record: FederationRecord) -> RunId:
    return RunId(record.run)
