"""A disk that forgets: from a recording of what a process did, every state a power failure could leave.

The model is harsher than any file system we know. A file's bytes are safe after a sync of the file, its name
after a sync of its folder, and nothing else is. Of what is not safe any part may be there: every write, or
some of its 512-byte sectors, or none, in any order; every creation, rename and delete of a name, or none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.client.strace import Op

SECTOR = 512


@dataclass
class _File:
    """An inode: its bytes on the platter, and what was done to it since its last sync."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)


@dataclass
class Disk:
    """The state after some operations; names are kept apart from files, as directories do."""

    names: dict[str, _File] = field(default_factory=dict)
    safe_names: dict[str, _File] = field(default_factory=dict)
    pending_names: list[tuple[str, _File | None]] = field(default_factory=list)
    """A name and what it shall lead to (None: nothing), in the order in which it was asked for."""

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """Everything that lies in a folder, as if all of it had long been synced."""
        files = {
            str(p.relative_to(folder)): _File(bytearray(p.read_bytes()))
            for p in folder.rglob("*")
            if p.is_file()
        }
        return cls(dict(files), dict(files))

    def do(self, op: Op) -> None:
        """One operation."""
        if op.kind == "create":
            if op.path not in self.names:
                self._point(op.path, _File())
        elif op.kind in ("write", "truncate"):
            self.names[op.path].pending.append(op)
        elif op.kind == "unlink":
            self._point(op.path, None)
        elif op.kind == "rename":
            self._point(op.to, self.names[op.path])
            self._point(op.path, None)
        elif op.kind == "sync":
            self._sync(op.path)

    def states(self, rng: random.Random, samples: int) -> Iterator[dict[str, bytes]]:
        """States a crash may leave now: nothing unsynced, all of it, some of it, and torn."""
        yield self._state(lambda _what: False, None)
        yield self._state(lambda _what: True, None)
        for _ in range(samples):
            share = rng.choice((0.2, 0.5, 0.8))
            yield self._state(lambda _what: rng.random() < share, None)  # noqa: B023 - used at once
            yield self._state(lambda _what: rng.random() < share, rng)  # noqa: B023

    def _point(self, name: str, file: _File | None) -> None:
        if file is None:
            self.names.pop(name, None)
        else:
            self.names[name] = file
        self.pending_names.append((name, file))

    def _sync(self, path: str) -> None:
        file = self.names.get(path)
        if file is not None:
            for op in file.pending:
                _apply(file.safe, op)
            file.pending.clear()
            return
        kept = []
        for name, leads in self.pending_names:
            if name.rpartition("/")[0] == path:
                _rename(self.safe_names, name, leads)
            else:
                kept.append((name, leads))
        self.pending_names = kept

    def _state(self, keep, torn: random.Random | None) -> dict[str, bytes]:
        names = dict(self.safe_names)
        for name, leads in self.pending_names:
            if keep(name):
                _rename(names, name, leads)
        content: dict[int, bytes] = {}
        for file in names.values():
            if id(file) not in content:
                content[id(file)] = _content(file, keep, torn)
        return {name: content[id(file)] for name, file in names.items()}


def _content(file: _File, keep, torn: random.Random | None) -> bytes:
    data = bytearray(file.safe)
    pending = list(file.pending)
    if torn is not None:
        # Without a sync between them, writes reach the platter in any order.
        torn.shuffle(pending)
    for op in pending:
        if torn is not None and op.kind == "write":
            for part in _sectors(op):
                if keep(part):
                    _apply(data, part)
        elif keep(op):
            _apply(data, op)
    return bytes(data)


def _sectors(op: Op) -> Iterator[Op]:
    at = 0
    while at < len(op.data):
        size = SECTOR - (op.offset + at) % SECTOR
        yield Op("write", op.path, op.offset + at, op.data[at : at + size])
        at += size


def _apply(data: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del data[op.offset :]
        data.extend(bytes(max(0, op.offset - len(data))))
        return
    data.extend(bytes(max(0, op.offset - len(data))))
    data[op.offset : op.offset + len(op.data)] = op.data


def _rename(names: dict[str, _File], name: str, leads: _File | None) -> None:
    if leads is None:
        names.pop(name, None)
    else:
        names[name] = leads


def lay_out(state: dict[str, bytes], folder: Path) -> Path:
    """A state as a real folder."""
    for name, data in state.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def count(ops: Sequence[Op]) -> int:
    """How many of these change something on the disk: the places at which power may fail."""
    return sum(op.kind != "mark" for op in ops)
