"""A model on disk: written whole or not at all, in safetensors, with what it belongs to.

Never pickle: reading a checkpoint runs no code. The metadata names the architecture, so that
weights are not poured into another network, and holds a digest of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from common import tensors
from common.arrays import digest
from common.durability import push, push_folder
from common.errors import StorageError
from common.types import Arrays, Digest, RunId

FORMAT: Final = "consilium/checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """A global model after `round` completed rounds of `run`."""

    run: RunId
    round: int
    plan_digest: Digest
    architecture: Digest
    arrays: Arrays
    state: str = "{}"
    """JSON of whatever the writer needs to go on from here."""


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write the checkpoint so that `path` holds the old one or the new one, never a part.

    Raises:
        StorageError: when the disk is full or the folder cannot be written.
    """
    metadata: dict[str, str] = {
        "format": FORMAT,
        "run": checkpoint.run,
        "round": str(checkpoint.round),
        "plan_digest": checkpoint.plan_digest,
        "architecture": checkpoint.architecture,
        "order": json.dumps(list(checkpoint.arrays)),
        "digest": digest(checkpoint.arrays),
        "state": checkpoint.state,
    }
    write_pieces(path, tensors.pieces(checkpoint.arrays, metadata))


def write_whole(path: Path, *content: bytes | memoryview) -> None:
    """Replace `path` by `content` in one step; see `write_pieces`."""
    write_pieces(path, content)


def write_pieces(path: Path, content: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by `content`, piece after piece, in one step that survives a power cut.

    Raises:
        StorageError: when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for piece in content:
                file.write(piece)
            file.flush()
            push(file.fileno())
        temporary.replace(path)
        push_folder(path.parent)
    except OSError:
        raise StorageError(path.name, "it cannot be written", "Check free space and rights") from None


def load(path: Path, architecture: Digest | None = None, *, mapped: bool = False) -> Checkpoint:
    """Read a checkpoint back, its tensors in the model's order.

    Args:
        path: of the checkpoint.
        architecture: that it must have, if any.
        mapped: leave the tensors in the file, not to be written; memory then holds one at a time.

    Raises:
        StorageError: code `checkpoint-unreadable`, `checkpoint-altered`, or
            `checkpoint-architecture` when it belongs to another network than `architecture`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            order: list[str] = json.loads(metadata["order"])
            arrays: Arrays = (
                tensors.mapped(path)[1].ordered(order)
                if mapped
                else {name: file.get_tensor(name) for name in order}
            )
        checkpoint = Checkpoint(
            RunId(metadata["run"]),
            int(metadata["round"]),
            Digest(metadata["plan_digest"]),
            Digest(metadata["architecture"]),
            arrays,
            metadata["state"],
        )
    except (OSError, SafetensorError, KeyError, ValueError):
        raise _refused(path, "it is not a whole checkpoint", "unreadable") from None
    if metadata.get("format") != FORMAT or metadata.get("digest") != digest(arrays):
        raise _refused(path, "its tensors are not those that were written", "altered")
    if architecture is not None and checkpoint.architecture != architecture:
        raise _refused(path, "it belongs to another network", "architecture")
    return checkpoint


def _refused(path: Path, rule: str, code: str) -> StorageError:
    return StorageError(path.name, rule, "Restore it, or use another folder", code=f"checkpoint-{code}")
