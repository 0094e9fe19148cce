"""What a run leaves in its folder, and how it goes on from there after a crash.

`audit.jsonl`            each step as it happened, hash-chained
`checkpoint.safetensors` the model and the record after each completed round
`federation.json`        the record (`server.records.FederationRecord`), when the run ended
`model.safetensors`      the final model, when the run completed
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from common import checkpoints
from common.audit import AuditLog
from common.checkpoints import Checkpoint
from common.errors import FederationError, StorageError
from common.plan import Plan
from common.types import Arrays, Digest, RunId
from server.records import FederationRecord

_ADAPTER: Final = TypeAdapter(FederationRecord)
COMPLETED: Final = "completed"
RUNNING: Final = "running"


@dataclass(frozen=True)
class Saved:
    """Where an earlier run with the same folder came to."""

    record: FederationRecord
    arrays: Arrays
    round: int


class Journal:
    """The one writer of a run's folder."""

    def __init__(self, out: Path, plan: Plan, architecture: Digest) -> None:
        self._out = out
        self._plan = plan
        self._architecture = architecture
        self.audit = AuditLog(out / "audit.jsonl")

    def resume(self) -> Saved | None:
        """What was saved here before, or None for a fresh folder.

        Raises:
            FederationError: code `out-used` when the folder belongs to another plan.
            StorageError: when the checkpoint cannot be read or is another network's.
        """
        path = self._out / "checkpoint.safetensors"
        if not path.exists():
            return None
        saved = checkpoints.load(path)
        if saved.plan_digest != self._plan.digest:
            raise FederationError(
                "folder out", "it holds a run of another plan", "Choose another folder", code="out-used"
            )
        saved = checkpoints.load(path, self._architecture)
        return Saved(_record(saved.state, path.name), saved.arrays, saved.round)

    def save(self, record: FederationRecord, arrays: Arrays, round_: int) -> None:
        """Put the state after `round_` completed rounds on disk."""
        self._save("checkpoint.safetensors", record, arrays, round_)

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
                state=json.dumps(asdict(record)) if name.startswith("checkpoint") else "{}",
            ),
            self._out / name,
        )


def write_federation(record: FederationRecord, path: Path) -> None:
    """Write a federated run's record, whole or not at all."""
    checkpoints.write_whole(path, json.dumps(asdict(record), indent=1, sort_keys=True).encode())


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


def _record(text: str, name: str) -> FederationRecord:
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError:
        raise StorageError(name, "it holds no record of a run", "Use another folder") from None


def _run(record: FederationRecord) -> RunId:
    return RunId(record.run)
