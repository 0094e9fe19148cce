"""What travels, as the SuperLink keeps it: the long objects in files beside its database, all else in it.

Flower keeps every object in a row of SQLite. A part of a model is then written to the database's log and from there to its
pages, with the disk waited for, while every other writer waits. Here a long object is one file, whole before its row says
that it is there, and what the row holds is a mark. Objects, rows and their rules are Flower's otherwise. A database that Flower's
own store wrote is read as it is.

Whoever writes takes a turn in this process first. SQLite alone has a writer who finds another at work look again after one, two,
five, ten, up to a hundred milliseconds, and Flower checks and keeps an object's content inside of the transaction that counts it: with three hospitals
sending, most of what the SuperLink did was to wait so. Here the content is checked and written before the turn, and in the turn a name is given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from flwr.supercore.inflatable.inflatable_object import get_object_id, is_valid_sha256_hash
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

_SHORT: Final = 1 << 16
"""An object of at most so many bytes stays in its row."""
_MARK: Final = b"in a file"
"""Of an object that lies in a file; no object is these bytes, because each begins with its type and length."""


class FileObjectStore(SqlObjectStore):
    """Flower's store of objects in SQL, with long contents in a folder.

    Args:
        database_path: of the SQLite file.
        folder: for the contents; made where it is not there.
    """

    def __init__(self, database_path: str, folder: Path) -> None:
        super().__init__(database_path, verify=False)
        self._folder = folder
        self.turn: Final = threading.RLock()
        """Of everybody in this process who opens a transaction on this database."""
        self._ready = threading.local()

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A transaction, one at a time in this process."""
        with self.turn, super().session() as session:
            yield session

    @contextmanager
    def laid_down(self, object_id: str, object_content: bytes) -> Iterator[None]:
        """Have a long content checked and on disk when it is put; what is not put in this block is forgotten.

        A content that is not what its number says is left to `put`, which refuses it.
        """
        if len(object_content) <= _SHORT or not _is(object_id, object_content):
            yield
            return
        with self._beside(object_id, object_content) as file:
            self._ready.content, self._ready.file = object_content, file
            try:
                yield
            finally:
                self._ready.content = self._ready.file = None

    def initialize(self, *parts: Any, **named: Any) -> list[str]:
        """Open the database, and forget files that no row knows: a process was killed between the two."""
        found: list[str] = super().initialize(*parts, **named)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if not is_valid_sha256_hash(path.name) or path.name not in self:
                path.unlink()
        return found

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object, if it is what its number says."""
        if getattr(self._ready, "content", None) is object_content and object_content:
            self._ready.file.replace(self._folder / object_id)
            super().put(object_id, _MARK)
            return
        if object_id != get_object_id(object_content):
            raise ValueError(f"Object ID {object_id} does not match content hash")
        validate_object_content(content=object_content)
        if len(object_content) <= _SHORT:
            super().put(object_id, object_content)
            return
        with self._beside(object_id, object_content) as file:
            file.replace(self._folder / object_id)
        super().put(object_id, _MARK)

    def get(self, object_id: str) -> bytes | None:
        """An object's content; empty where it has not come yet, None where it is not known or its file is gone."""
        content = super().get(object_id)
        if content != _MARK:
            return content
        try:
            return (self._folder / object_id).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, object_id: str) -> None:
        """Forget an object and what belongs to it alone."""
        # One transaction with its rows: whoever registers the same object anew waits until both are gone.
        with self._mutation_session():
            super().delete(object_id)
            if object_id not in self:
                (self._folder / object_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        with self._mutation_session():
            super().clear()
            for path in self._folder.iterdir():
                path.unlink()

    @contextmanager
    def _beside(self, object_id: str, content: bytes) -> Iterator[Path]:
        """A file with this content under another name; gone after the block, unless it got the object's."""
        file = self._folder / f"{object_id}.{threading.get_ident()}"
        try:
            file.write_bytes(content)
            yield file
        finally:
            file.unlink(missing_ok=True)


def _is(object_id: str, content: bytes) -> bool:
    """Whether a content is an object, and the one of this number."""
    with suppress(ValueError):
        validate_object_content(content=content)
        return object_id == get_object_id(content)
    return False
