"""One reply on its way from the SuperLink into a file, object by object as Flower names and nests them.

Nothing here is believed: how long a reply may be, how deep and of what, is held against what an answer of ours looks like.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Final, cast

from flwr.app import Array, ArrayRecord, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry

from common.parts import recorded
from common.tensors import Pages

_SMALL: Final = 1 << 16
"""An array of at most so many bytes stays in memory."""
_ABOUT: Final = 1 << 10
"""What an object counts for besides its content."""
_DEPTH: Final = 4
"""Message, its records, one of them, an array."""


class TooLong(Exception):
    """A reply is longer than any answer may be."""


@dataclass
class Fetching:
    """One reply on its way in."""

    fetch: Callable[[str], bytes]
    """Gives an object's content by its number."""
    file: IO[bytes]
    most: int
    _written: int = 0
    _spent: int = 0
    _views: list[tuple[Array, int, int]] = field(default_factory=list)
    _chunks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where a chunk lies in the file: the same one may come again."""

    def message(self, number: str) -> Message:
        """The reply of this number, its longer arrays views of the file.

        Raises:
            TooLong: it is longer than any answer may be.
            ValueError: it is no message.
        """
        try:
            found = self._object(number, _DEPTH)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ValueError(number) from None
        if found.__class__ is not Message:
            raise ValueError(number)
        self.file.flush()
        if self._views:
            whole = memoryview(Pages(self.file.fileno(), 0, access=mmap.ACCESS_READ))
            for array, begin, end in self._views:
                array.data = cast("bytes", whole[begin:end])
        return found

    def _object(self, number: str, depth: int) -> InflatableObject:
        content = self._fetched(number)
        kind, children, _ = get_object_head_values_from_object_content(content)
        if depth == 0:
            raise ValueError(number)
        if kind == ArrayRecord.__qualname__:
            named: dict[str, str] = json.loads(get_object_body(content, ArrayRecord))
            return recorded({name: self._array(child) for name, child in named.items()})
        below = {child: self._object(child, depth - 1) for child in children}
        return inflatable_class_registry[kind].inflate(bytes(content), below)

    def _array(self, number: str) -> Array:
        content = self._fetched(number)
        children = get_object_head_values_from_object_content(content)[1]
        said = json.loads(get_object_body(content, Array))
        array = Array(dtype=said["dtype"], shape=tuple(said["shape"]), stype=said["stype"], data=b"")
        begin = self._written
        for place in said["arraychunk_ids"]:
            chunk = self._chunk(children[place])
            if self._written == 0 and len(said["arraychunk_ids"]) == 1 and len(chunk) <= _SMALL:
                array.data = bytes(chunk)
                return array
            self._written += self.file.write(chunk)
        self._views.append((array, begin, self._written))
        return array

    def _chunk(self, number: str) -> memoryview:
        if number in self._chunks:
            begin, length = self._chunks[number]
            self._spend(length)
            self.file.flush()
            return memoryview(os.pread(self.file.fileno(), length, begin))
        content = self._fetched(number)
        chunk = memoryview(content)[content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
        if get_object_head_values_from_object_content(content)[0] != ArrayChunk.__qualname__:
            raise ValueError(number)
        if len(chunk) > _SMALL:
            self._chunks[number] = (self._written, len(chunk))
        return chunk

    def _fetched(self, number: str) -> bytes:
        content = self.fetch(number)
        self._spend(len(content))
        return content

    def _spend(self, length: int) -> None:
        self._spent += length + _ABOUT
        if self._spent > self.most:
            raise TooLong
